"""Judges the names in an archive: each must mean one place inside the target, on every file system.

Pure: no file is touched. hotswap.runtime.archive feeds it every name before a byte is unpacked.
"""

import unicodedata
from dataclasses import dataclass
from typing import NoReturn

from hotswap.domain.errors import BundleRejected

RESERVED_PREFIX = ".hotswap"
"""Names at the root that unpacking itself writes (the completion marker)."""

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_BYTECODE = (".pyc", ".pyo")


@dataclass(frozen=True, slots=True)
class NameRules:
    """Limits in bytes of UTF-8, path parts, and files plus directories."""

    name_bytes: int
    part_bytes: int
    depth: int
    entries: int


class NameTable:
    """Every name seen so far. `add` raises BundleRejected for a name that is unsafe or collides with an earlier one."""

    def __init__(self, rules: NameRules) -> None:
        self._rules = rules
        self._spelled: dict[str, str] = {}  # folded path -> the spelling seen first; implied directories included
        self._files: set[str] = set()
        self._directories: set[str] = set()
        self._listed: set[str] = set()

    def add(self, name: str) -> str:
        """Accept one entry's name; a trailing slash says directory. Returns it without that slash."""
        is_dir = name.endswith("/")
        clean = name.removesuffix("/")
        parts = self._check_shape(name, clean)
        path = folded = ""
        for index, part in enumerate(parts):
            path = f"{path}/{part}" if index else part
            folded = f"{folded}/{_fold(part)}" if index else _fold(part)
            before = self._spelled.setdefault(folded, path)
            if before != path:
                _refuse(name, f"is the same as '{before}' where case or the coding of letters does not count")
            if index < len(parts) - 1 or is_dir:
                if folded in self._files:
                    _refuse(name, f"needs '{path}' to be a directory, but it is a file")
                self._directories.add(folded)
        if folded in self._listed:
            _refuse(name, "appears twice")
        self._listed.add(folded)
        if not is_dir:
            if folded in self._directories:
                _refuse(name, "is a file, but other entries need it to be a directory")
            self._files.add(folded)
        if len(self._spelled) > self._rules.entries:
            raise BundleRejected(
                f"the archive makes more than {self._rules.entries} files and directories, implied ones included"
            )
        return clean

    def _check_shape(self, name: str, clean: str) -> list[str]:
        if len(name.encode("utf-8", "surrogatepass")) > self._rules.name_bytes:
            _refuse(name, f"is longer than {self._rules.name_bytes} bytes")
        if not name.isascii() or not name.isprintable():
            unseen = next((letter for letter in name if unicodedata.category(letter) in _UNSEEN), None)
            if unseen is not None:
                _refuse(name, f"holds the unprintable character U+{ord(unseen):04X}")
        if "\\" in name or ":" in name:
            _refuse(name, "holds a backslash or a colon, which some systems read as a path or a drive")
        if name.startswith("/"):
            _refuse(name, "is an absolute path")
        parts = clean.split("/")
        if len(parts) > self._rules.depth:
            _refuse(name, f"is deeper than {self._rules.depth} directories")
        for part in parts:
            self._check_part(name, part)
        if parts[0].casefold().startswith(RESERVED_PREFIX):
            _refuse(name, f"starts with {RESERVED_PREFIX}, which is kept for HotSwap itself")
        # Bytecode runs without the source that a reviewer reads; HotSwap compiles the source itself.
        if "__pycache__" in parts or parts[-1].casefold().endswith(_BYTECODE):
            _refuse(name, "is Python bytecode; leave it out, it is compiled from the source when unpacked")
        return parts

    def _check_part(self, name: str, part: str) -> None:
        if part in ("", ".", ".."):
            _refuse(name, "has an empty, '.' or '..' part, so it may point outside")
        if part[-1] in ". ":
            _refuse(name, "has a part that ends in a dot or a space, which some systems drop")
        if len(part.encode("utf-8", "surrogatepass")) > self._rules.part_bytes:
            _refuse(name, f"has a part longer than {self._rules.part_bytes} bytes")


def _fold(part: str) -> str:
    if part.isascii():
        return part.lower()
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", part).casefold())


def _refuse(name: str, fault: str) -> NoReturn:
    shown = name if len(name) <= 120 else name[:119] + "…"
    raise BundleRejected(f"the archive's entry {shown!r} {fault}")
