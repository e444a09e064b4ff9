"""One error tree. Errors carry facts; activities.errors decides what is retried, api.errors decides the HTTP status."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldFault:
    """One wrong field: `field` is its path as the sender wrote it, `message` the fault and the remedy."""

    field: str
    message: str


class HotSwapError(Exception):
    """Base of everything this project raises on purpose."""

    def __init__(self, message: str, faults: Sequence[FieldFault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)


class InvalidInput(HotSwapError):
    """The sender's fault; `faults` name each wrong field. A repeat cannot help."""


class ManifestInvalid(InvalidInput):
    """The manifest breaks spec section 3. `faults` name every wrong key."""


class BundleRejected(InvalidInput):
    """The archive is broken or hostile (bomb, link, path outside, duplicate name...). Never unpacked."""


class ArtifactTooLarge(HotSwapError):
    """The artifact is over the size limit."""


class DependencyConflict(InvalidInput):
    """Dependencies cannot be satisfied together; the message holds the chain."""


class SignatureRefused(InvalidInput):
    """A signature is missing where one is required, does not fit the bytes, or its key does not count (any more)."""


class NotFound(HotSwapError):
    """The named thing does not exist."""


class Conflict(HotSwapError):
    """The command makes no sense in the present state, or the thing is already there. The message says which."""


class DeploymentRunning(Conflict):
    """Another deployment holds this (environment, plugin)."""

    def __init__(self, environment: str, plugin: str, holder: str) -> None:
        super().__init__(
            f"deployment {holder} is running for {plugin} in {environment}; "
            "wait for it, or abort it, before starting another"
        )
        self.holder = holder


class IllegalTransition(Conflict):
    """An event that the lifecycle table does not allow in this status."""


class Forbidden(HotSwapError):
    """The caller is known and may not do this."""


class Unauthorized(HotSwapError):
    """The caller is not known: no token, or a wrong one."""


class RateLimited(HotSwapError):
    """The caller has used up a limit; after `retry_seconds` there is something left again."""

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class ArtifactMissing(HotSwapError):
    """The registry names an artifact that the object store does not have. A repeat cannot help."""


class ArtifactCorrupt(HotSwapError):
    """The artifact's SHA-256 differs from the registry's. Never retried, never loaded."""


class StaleGeneration(HotSwapError):
    """A fenced write or order came too late: a newer generation holds. Never retried."""


class SandboxUnavailable(HotSwapError):
    """The sandbox cannot prove its isolation; the message names the missing layer. Fails closed."""


class HandoverFailed(HotSwapError):
    """A node's process could not take the place of the one that serves, which serves on. A repeat may help."""


class TrialFailed(HotSwapError):
    """The version failed its sandbox trial. A repeat cannot help; the message names the smoke test."""


class HostFailed(HotSwapError):
    """A plugin host could not load or died. `limit` names the limit that was hit, when one was.

    Limits: TIMEOUT, CPU_LIMIT, MEMORY_LIMIT, PROCESS_LIMIT, FILE_LIMIT, SCRATCH_LIMIT, OUTPUT_LIMIT, REPLY_TOO_LARGE,
    BAD_REPLY, LOAD_FAILED, DIED (docs/isolation.md).
    """

    def __init__(self, message: str, limit: str = "DIED") -> None:
        super().__init__(message)
        self.limit = limit


class PluginError(HotSwapError):
    """The plugin's own code raised. `kind` is the exception's class name."""

    def __init__(self, message: str, kind: str = "Exception") -> None:
        super().__init__(message)
        self.kind = kind


class MetricProviderFault(HotSwapError):
    """A metric's provider did not answer, or nothing that can be read. Never ends an activity: it is counted as evidence.

    `transient`: the provider is away or overloaded, so it is left alone for a while; otherwise the question is wrong.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class NotificationFault(HotSwapError):
    """A message was not delivered. `transient`: a repeat may help, not before `retry_after` seconds when the receiver said so."""

    def __init__(self, message: str, *, transient: bool, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class Unavailable(HotSwapError):
    """A server we depend on does not answer now. A repeat helps."""
