"""What can go wrong on the command line, and the exit code each means. hotswap.cli.output prints them."""

from collections.abc import Sequence

USAGE = 2
"""Exit code: the command line or what was sent is wrong; correct it and repeat."""

UNREACHABLE = 3
"""Exit code: the api does not answer; a repeat helps once it runs."""

OTHER = 1
"""Exit code: everything else that failed."""

INTERRUPTED = 130
"""Exit code: Ctrl-C (128 + SIGINT), as every shell has it."""

REMEDIES = {
    "UNAUTHORIZED": "log in with `hotswap login`, or give a token: --as USER with a running `hotswap up`, --token, HOTSWAP_TOKEN",
    "FORBIDDEN": "repeat it as somebody whose role allows it: --as admin, --as approver ... (or --token)",
    "NOT_FOUND": "check the spelling; `hotswap list` and `hotswap plugin list` show what there is",
    "CONFLICT": "look at the present state with `hotswap status ID` or `hotswap list`",
    "PAYLOAD_TOO_LARGE": "make the bundle smaller: leave out what the plugin does not import",
    "RATE_LIMIT_EXCEEDED": "wait for the time that the answer names, then repeat it",
    "SERVICE_UNAVAILABLE": "a server behind the api does not answer; `hotswap ping` tells which. A repeat helps",
    "INTERNAL_ERROR": "a fault of the platform: look for the trace id in the api's log (.hotswap/ under `hotswap up`)",
    "VALIDATION_ERROR": "correct the fields named above and repeat it",
    "DEPENDENCY_CONFLICT": "change the versions that the chain above names",
}
"""What a person does about each code of the api's error envelope."""


class CliError(Exception):
    """A failure to tell a person: what happened, what to do, and the exit code."""

    exit_code = OTHER

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        code: str = "ERROR",
        faults: Sequence[tuple[str, str]] = (),
        trace_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code
        self.faults = tuple(faults)
        self.trace_id = trace_id

    def as_json(self) -> dict[str, object]:
        """The spec's error envelope, with the remedy."""
        details = [{"field": field, "message": message} for field, message in self.faults]
        envelope = {"code": self.code, "message": self.message, "details": details, "traceId": self.trace_id}
        return {"error": {**envelope, "remedy": self.remedy}}


class UsageFault(CliError):
    """What was typed, or a file it names, is wrong."""

    exit_code = USAGE

    def __init__(self, message: str, remedy: str = "", *, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, remedy, code="USAGE", faults=faults)


def not_one(name: str, found: Sequence[str], kind: str, where: str) -> UsageFault:
    """The beginning of an id that fits none, or several. `where`: how to see what there is."""
    if not found:
        return UsageFault(f"no {kind} begins with '{name}'", where)
    return UsageFault(f"'{name}' fits {len(found)}: {', '.join(found[:5])}", f"{where}; write more digits")


class ApiUnreachable(CliError):
    """No answer from the api. A repeat helps once it runs."""

    exit_code = UNREACHABLE

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"the api at {url} does not answer: {why}",
            "start the stack with `hotswap up` in another terminal, or point --url / HOTSWAP_URL at a running api",
            code="UNREACHABLE",
        )


class ApiError(CliError):
    """The api said no. `status` is the HTTP status, `code` the spec's error code."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        faults: Sequence[tuple[str, str]] = (),
        trace_id: str = "",
        retry_after: str = "",
    ) -> None:
        remedy = REMEDIES.get(code, "")
        if retry_after:
            remedy = f"wait {retry_after} s, then repeat it"
        super().__init__(message, remedy, code=code, faults=faults, trace_id=trace_id)
        self.status = status
        self.exit_code = USAGE if status in (400, 413, 422) else OTHER
