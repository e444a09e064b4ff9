"""What the stack needs to know of a server, whether it is embedded or external.

Neighbours: postgres, valkey, seaweedfs and temporal each implement Server; hotswap.embedded.stack starts them in
parallel, provisions each as soon as it serves, and hands `settings` to every HotSwap process.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from hotswap.config import SettingsInvalid
from hotswap.embedded.binaries import Binary
from hotswap.embedded.data_dir import DataDir
from hotswap.embedded.parts import Part
from hotswap.embedded.ports import Ports


class Server(Protocol):
    """One embedded server. The constructor does no I/O."""

    name: str
    ports: tuple[str, ...]

    @property
    def binary(self) -> Binary:
        """The program, found when first asked for. Raises StackError."""
        ...

    async def prepare(self) -> Part:
        """Make the data on the first start; the part to run. Ports are settled by now."""
        ...

    async def provision(self) -> None:
        """Once it serves: what must exist in it (database, bucket, namespace). Repeats change nothing."""
        ...

    def settings(self) -> dict[str, str]:
        """The HOTSWAP_ variables that lead to it."""
        ...


class ServerFactory(Protocol):
    """Makes a Server for a data directory and its ports."""

    def __call__(self, data: DataDir, ports: Ports) -> Server: ...


def external(required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, str] | None:
    """The variables of an external server, when the first of `required` is set; None = run the embedded one.

    A value may come from a file (NAME_FILE), as hotswap.config has it. Raises SettingsInvalid naming what is missing.
    """
    found = {name: value for name in (*required, *optional) if (value := _value(name)) is not None}
    if required[0] not in found:
        return None
    missing = [name for name in required if name not in found]
    if missing:
        raise SettingsInvalid(
            f"{required[0]} names an external server, so set {', '.join(missing)} too, or unset {required[0]}"
        )
    return found


def clean_environment(home: Path, **more: str) -> Mapping[str, str]:
    """What a third-party server gets to see: no credentials and no HOTSWAP_ variables of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "LC_ALL": "C", "TZ": "UTC", **more}


def _value(name: str) -> str | None:
    if os.environ.get(name):
        return os.environ[name]
    file = os.environ.get(f"{name}_FILE")
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as fault:
        raise SettingsInvalid(f"{name}_FILE: cannot read {file} ({fault.strerror}); mend or unset it") from fault
