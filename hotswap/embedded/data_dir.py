"""The one directory that holds everything of an embedded stack: its lock, ports, credentials, logs and the servers' data.

Neighbours: hotswap.embedded.stack owns one DataDir for its life; each server keeps its files in a folder of its own.
Files are 0600, folders 0700: the generated credentials are in them.
"""

import fcntl
import json
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any, TextIO

from hotswap.domain.errors import HotSwapError

STACK_FILE = "stack.json"

UNUSABLE = re.compile(r'["\\%?#\x00-\x1f\x7f]')
"""What ends a path early, or means something else, in Valkey's configuration and in Temporal's name of its SQLite file."""

ANOTHER = "choose another with --data-dir or HOTSWAP_HOME"


class StackError(HotSwapError):
    """The embedded stack cannot run; the message says which part, why, and where its log is."""


class DataDirBusy(StackError):
    """Another supervisor uses this data directory."""


class DataDir:
    """Paths inside the directory, and the lock that keeps a second supervisor out."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.run = self.root / "run"
        self.stack_file = self.root / STACK_FILE
        self._lock: int | None = None
        self.held = False
        """Whether this object ever held the lock: only then are the files its own."""

    def acquire(self) -> bool:
        """Make the folders and take the lock. True = the supervisor before us did not stop cleanly.

        Raises DataDirBusy naming the holder, StackError when the directory cannot be used.
        """
        self._make_folders()
        try:
            return self._acquire()
        except OSError as fault:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            raise self._unusable(fault) from fault

    def _acquire(self) -> bool:
        # NOFOLLOW: what a link in a folder that somebody else made points at would be truncated.
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise DataDirBusy(
                f"{self.root} is in use by the stack of process {holder}; stop that one, or choose another --data-dir"
            ) from None
        self._lock = lock
        self.held = True
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        for leftover in self.run.iterdir():
            leftover.unlink()
        crashed = self.stack_file.exists()
        self.stack_file.unlink(missing_ok=True)
        return crashed

    def release(self) -> None:
        """Give the lock back; the files stay, but stack.json goes: there is no stack any more."""
        if self._lock is not None:
            self.stack_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def open_log(self, name: str) -> TextIO:
        """A log of the supervisor's own, appended to. Raises StackError when the directory cannot be used."""
        self._make_folders()
        try:
            return self.log(name).open("a", encoding="utf-8")
        except OSError as fault:
            raise self._unusable(fault) from fault

    def folder(self, name: str) -> Path:
        """A folder of one part, made when it is not there."""
        path = self.root / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def secret(self, name: str, random_bytes: int = 24) -> str:
        """A credential that is generated once and kept: URL-safe base64 of so many bytes, 32 characters by default."""
        path = self.root / "credentials.json"
        known = read_json(path)
        if name not in known:
            known[name] = secrets.token_urlsafe(random_bytes)
            write_private(path, known)
        return str(known[name])

    def _make_folders(self) -> None:
        if (odd := UNUSABLE.search(str(self.root))) is not None:
            raise StackError(f"cannot use {str(self.root)!r}: not all servers take a path with {odd[0]!r}; {ANOTHER}")
        try:
            for folder in (self.root, self.logs, self.run):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as fault:
            raise self._unusable(fault) from fault

    def _unusable(self, fault: OSError) -> StackError:
        where = f" ({fault.filename})" if fault.filename not in (None, str(self.root)) else ""
        return StackError(f"cannot use {self.root}: {fault.strerror}{where}; mend that, or {ANOTHER}")


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file, or an empty one when there is no file. Raises StackError when it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as fault:
        raise StackError(f"{path} cannot be read: {fault.strerror}") from fault
    except (ValueError, RecursionError) as fault:
        raise StackError(f"{path} is not JSON ({fault}); remove it to have it made anew") from fault
    if not isinstance(content, dict):
        raise StackError(f"{path} holds no JSON object; remove it to have it made anew")
    return content


def write_private(path: Path, content: dict[str, Any] | str) -> None:
    """Write whole or not at all, readable by the owner only."""
    text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as new:
        new.write(text)
    Path(new.name).replace(path)
