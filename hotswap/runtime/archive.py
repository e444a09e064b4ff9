"""Reads a hostile zip strictly: one meaning for every byte, or BundleRejected.

Not built on zipfile, which reads the last of several readings of a file, trusts the sizes it is told and accepts junk
before and after. Here the entries must tile the file from byte 0 to the central directory, both records of an entry must
agree, and nothing may follow the end record. Neighbours: hotswap.runtime.archive_names judges names,
hotswap.runtime.bundle decides where the bytes go.
"""

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Self

from hotswap.domain.errors import BundleRejected
from hotswap.runtime.archive_names import NameRules, NameTable

MIB = 1024 * 1024
STORED, DEFLATED = 0, 8
CHUNK = 64 * 1024

_END = struct.Struct("<4sHHHHIIH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_DESCRIPTOR = struct.Struct("<III")
_END_MARK, _CENTRAL_MARK, _LOCAL_MARK, _DESCRIPTOR_MARK = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"
_ZIP64_LOCATOR_MARK = b"PK\x06\x07"
_MAX_COMMENT = 0xFFFF

_ENCRYPTED, _DESCRIPTOR_FOLLOWS, _PATCH, _STRONG, _UTF8, _MASKED = 0x1, 0x8, 0x20, 0x40, 0x800, 0x2000
_COMPARED_FLAGS = _ENCRYPTED | _DESCRIPTOR_FOLLOWS | _PATCH | _STRONG | _UTF8 | _MASKED
_BAD_EXTRAS = {
    0x0001: "uses zip64, which no bundle needs",
    0x000D: "carries a PKWARE Unix field, which can hide a link",
    0x0017: "is encrypted",
    0x7075: "carries a second name (unicode path field)",
    0x9901: "is encrypted",
}
_DOS_DIRECTORY = 0x10


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """Hard caps on what an archive may become. Every cap is checked before and again while bytes are written."""

    total_bytes: int = 512 * MIB
    file_bytes: int = 128 * MIB
    ratio: int = 200
    """Unpacked bytes to archive bytes. Deflate reaches 1,032; Python source seldom passes 10."""
    ratio_free_bytes: int = 4 * MIB
    """Below this much output the ratio is not looked at: a small file of zeros harms nobody."""
    entries: int = 20_000
    """Files and directories, those only implied by a path included."""
    depth: int = 32
    name_bytes: int = 1024
    part_bytes: int = 255
    directory_bytes: int = 8 * MIB
    """Size of the zip's central directory, which is held in memory."""


DEFAULT_LIMITS = UnpackLimits()


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted entry. `name` has no trailing slash; sizes are in bytes and were checked against the limits."""

    name: str
    is_dir: bool
    method: int
    flags: int
    crc: int
    packed_bytes: int
    size_bytes: int
    header_offset: int
    data_offset: int = 0


class StrictArchive:
    """An open archive whose structure, names and declared sizes were all accepted. Use as a context manager.

    Raises BundleRejected (never retried) naming the fault; OSError when the file itself cannot be read.
    """

    def __init__(self, path: Path, limits: UnpackLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        # O_NONBLOCK: a FIFO put there must be refused below, not waited for.
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                _reject("is not a regular file")
            self.size_bytes = status.st_size
            self.entries = self._read_structure()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def raw_chunks(self) -> Iterator[bytes]:
        """The archive's own bytes, from the descriptor that was judged (the path may have been replaced since)."""
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk

    def read(self, entry: Entry) -> Iterator[bytes]:
        """The entry's content in chunks, never more than it declared; ends only when size and CRC are as declared."""
        self._file.seek(entry.data_offset)
        produced, crc = 0, 0
        chunks = self._stored(entry) if entry.method == STORED else self._inflated(entry)
        for chunk in chunks:
            produced += len(chunk)
            if produced > entry.size_bytes:
                _reject(f"'{entry.name}' unpacks to more than the {entry.size_bytes} bytes it declares")
            crc = zlib.crc32(chunk, crc)
            yield chunk
        if produced != entry.size_bytes:
            _reject(f"'{entry.name}' unpacks to {produced} bytes but declares {entry.size_bytes}")
        if crc != entry.crc:
            _reject(f"'{entry.name}' is damaged: its checksum differs")

    def _stored(self, entry: Entry) -> Iterator[bytes]:
        left = entry.packed_bytes
        while left:
            chunk = self._exactly(min(CHUNK, left), entry.name)
            left -= len(chunk)
            yield chunk

    def _inflated(self, entry: Entry) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        left = entry.packed_bytes
        pending = b""
        try:
            while not inflater.eof and (left or pending):
                if not pending:
                    pending = self._exactly(min(CHUNK, left), entry.name)
                    left -= len(pending)
                chunk = inflater.decompress(pending, CHUNK)
                pending = inflater.unconsumed_tail
                if chunk:
                    yield chunk
            # Output can wait inside the inflater after the last input byte was taken.
            while not inflater.eof and (chunk := inflater.decompress(b"", CHUNK)):
                yield chunk
        except zlib.error as fault:
            _reject(f"'{entry.name}' cannot be decompressed: {fault}")
        if not inflater.eof or left or pending or inflater.unused_data:
            _reject(f"'{entry.name}' holds bytes that its compressed stream does not use, or ends too early")

    def _exactly(self, count: int, what: str) -> bytes:
        content = self._file.read(count)
        if len(content) != count:
            _reject(f"ends inside {what}")
        return content

    # -- structure -----------------------------------------------------------------------------------------------

    def _read_structure(self) -> tuple[Entry, ...]:
        count, directory_bytes, directory_offset = self._read_end()
        self._file.seek(directory_offset)
        directory = self._exactly(directory_bytes, "its central directory")
        entries = self._parse_directory(directory, count)
        self._check_sizes(entries)
        return self._check_tiling(entries, directory_offset)

    def _read_end(self) -> tuple[int, int, int]:
        """Number of entries, size and offset of the central directory, from the one possible end record."""
        tail_bytes = min(self.size_bytes, _END.size + _MAX_COMMENT)
        self._file.seek(self.size_bytes - tail_bytes)
        tail = self._exactly(tail_bytes, "its end record")
        found = []
        at = tail.rfind(_END_MARK)
        while at >= 0:
            if at + _END.size <= tail_bytes:
                comment_bytes = int.from_bytes(tail[at + 20 : at + 22], "little")
                if at + _END.size + comment_bytes == tail_bytes:
                    found.append(at)
            at = tail.rfind(_END_MARK, 0, at)
        if not found:
            _reject("is not a zip, is cut short, or has data after its end; build it anew and send it whole")
        if len(found) > 1:
            _reject("has more than one end record, so that readers would disagree about its content")
        at = found[0]
        _, disk, start_disk, here, count, directory_bytes, directory_offset, _ = _END.unpack_from(tail, at)
        if tail[max(0, at - 20) : at].startswith(_ZIP64_LOCATOR_MARK) or 0xFFFFFFFF in (
            directory_bytes,
            directory_offset,
        ):
            _reject("uses zip64, which no bundle needs")
        if disk or start_disk or here != count:
            _reject("is part of a zip that spans several files")
        if count > self.limits.entries:
            _reject(f"has {count} entries; the limit is {self.limits.entries}")
        if directory_bytes > self.limits.directory_bytes:
            _reject(f"has a central directory of {directory_bytes} bytes; the limit is {self.limits.directory_bytes}")
        if directory_offset + directory_bytes != self.size_bytes - tail_bytes + at:
            _reject("has bytes before its first entry or between its central directory and its end")
        return count, directory_bytes, directory_offset

    def _parse_directory(self, directory: bytes, count: int) -> list[Entry]:
        names = NameTable(
            NameRules(self.limits.name_bytes, self.limits.part_bytes, self.limits.depth, self.limits.entries)
        )
        entries, at = [], 0
        for _ in range(count):
            if at + _CENTRAL.size > len(directory):
                _reject("has a central directory that ends too early")
            fields = _CENTRAL.unpack_from(directory, at)
            mark, made_by, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, attributes, offset = fields
            name_end = at + _CENTRAL.size + lengths[0]
            extra_end = name_end + lengths[1]
            raw_name, extra = directory[at + _CENTRAL.size : name_end], directory[name_end:extra_end]
            at = extra_end + lengths[2]
            if mark != _CENTRAL_MARK or at > len(directory):
                _reject("has a broken central directory")
            name = _decode(raw_name, flags)
            _check_kind(name, method, flags, made_by, attributes, disk)
            _check_extra(name, extra)
            is_dir = name.endswith("/")
            if is_dir and (packed or size):
                _reject(f"'{name}' is a directory with content")
            if method == STORED and packed != size:
                _reject(f"'{name}' is not compressed but declares two sizes ({packed} and {size})")
            clean = names.add(name)
            entries.append(Entry(clean, is_dir, method, flags, crc, packed, size, offset))
        if at != len(directory):
            _reject("has bytes in its central directory that belong to no entry")
        return entries

    def _check_sizes(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.size_bytes > self.limits.file_bytes:
                _reject(f"'{entry.name}' declares {entry.size_bytes} bytes; the limit is {self.limits.file_bytes}")
        total = sum(entry.size_bytes for entry in entries)
        if total > self.limits.total_bytes:
            _reject(f"would unpack to {total} bytes; the limit is {self.limits.total_bytes}")
        if total > self.limits.ratio_free_bytes and total > self.limits.ratio * self.size_bytes:
            _reject(f"would unpack to more than {self.limits.ratio} times its size")

    def _check_tiling(self, entries: list[Entry], directory_offset: int) -> tuple[Entry, ...]:
        """Every local record must start where the one before it ended: no junk, no overlap, no hidden entry."""
        placed: dict[int, Entry] = {}
        expected = 0
        for entry in sorted(entries, key=lambda item: item.header_offset):
            if entry.header_offset != expected:
                _reject(f"has hidden or overlapping bytes before '{entry.name}'")
            placed[expected], expected = self._check_local(entry, directory_offset)
        if expected != directory_offset:
            _reject("has hidden bytes between its last entry and its central directory")
        return tuple(placed[entry.header_offset] for entry in entries)

    def _check_local(self, entry: Entry, directory_offset: int) -> tuple[Entry, int]:
        """The entry with its data's place, and where its record ends."""
        self._file.seek(entry.header_offset)
        header = self._exactly(_LOCAL.size, f"the record of '{entry.name}'")
        mark, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(header)
        if mark != _LOCAL_MARK:
            _reject(f"has no record of '{entry.name}' where its directory says")
        name = _decode(self._exactly(name_bytes, "a name"), flags)
        _check_extra(name, self._exactly(extra_bytes, "an extra field"))
        agrees = (name.removesuffix("/"), method, flags & _COMPARED_FLAGS) == (
            entry.name,
            entry.method,
            entry.flags & _COMPARED_FLAGS,
        ) and name.endswith("/") == entry.is_dir
        declared = (entry.crc, entry.packed_bytes, entry.size_bytes)
        later = bool(flags & _DESCRIPTOR_FOLLOWS)
        if not agrees or ((crc, packed, size) != declared and not (later and (crc, packed, size) == (0, 0, 0))):
            _reject(f"says two different things about '{entry.name}'")
        data_offset = entry.header_offset + _LOCAL.size + name_bytes + extra_bytes
        end = data_offset + entry.packed_bytes
        if later:
            end = self._check_descriptor(entry, end, declared)
        if end > directory_offset:
            _reject(f"'{entry.name}' reaches into the central directory")
        return Entry(
            entry.name,
            entry.is_dir,
            entry.method,
            entry.flags,
            entry.crc,
            entry.packed_bytes,
            entry.size_bytes,
            entry.header_offset,
            data_offset,
        ), end

    def _check_descriptor(self, entry: Entry, at: int, declared: tuple[int, int, int]) -> int:
        self._file.seek(at)
        what = f"the descriptor of '{entry.name}'"
        content = self._exactly(_DESCRIPTOR.size, what)
        length = _DESCRIPTOR.size
        # The mark is optional by the standard. A CRC that equals the mark reads as one: astronomically rare, then refused.
        if content.startswith(_DESCRIPTOR_MARK):
            content = content[4:] + self._exactly(4, what)
            length += 4
        if _DESCRIPTOR.unpack(content) != declared:
            _reject(f"says two different things about '{entry.name}'")
        return at + length


def _reject(fault: str) -> NoReturn:
    raise BundleRejected(f"the archive {fault}" if not fault.startswith("'") else f"the archive's {fault}")


def _decode(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        _reject(f"has a name that is not UTF-8 marked as such: {raw[:80]!r}")


def _check_kind(name: str, method: int, flags: int, made_by: int, attributes: int, disk: int) -> None:
    if flags & (_ENCRYPTED | _STRONG | _MASKED):
        _reject(f"'{name}' is encrypted")
    if method not in (STORED, DEFLATED) or flags & _PATCH:
        _reject(f"'{name}' uses compression method {method}; use stored or deflate")
    if disk:
        _reject("is part of a zip that spans several files")
    # Looked at whatever system `made_by` names: unpackers differ in whether they obey the mode then.
    kind = stat.S_IFMT(attributes >> 16)
    wanted = stat.S_IFDIR if name.endswith("/") else stat.S_IFREG
    if kind not in (0, wanted):
        what = "a link" if kind == stat.S_IFLNK else f"of kind {kind:#o} (made by system {made_by >> 8})"
        _reject(f"'{name}' is {what}; only files and directories are accepted")
    if attributes & _DOS_DIRECTORY and not name.endswith("/"):
        _reject(f"'{name}' is marked as a directory but named as a file")


def _check_extra(name: str, extra: bytes) -> None:
    at = 0
    while at < len(extra):
        if at + 4 > len(extra):
            _reject(f"'{name}' has a broken extra field")
        tag, length = struct.unpack_from("<HH", extra, at)
        at += 4 + length
        if at > len(extra):
            _reject(f"'{name}' has a broken extra field")
        if tag in _BAD_EXTRAS:
            _reject(f"'{name}' {_BAD_EXTRAS[tag]}")
