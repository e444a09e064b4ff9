"""Makes archives for tests: honest ones with zipfile, hostile ones byte by byte."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

MANIFEST = b"""
name = "shout"
version = "1.0.0"
entryPoint = "shout_plugin:Shout"

[[methods]]
name = "shout"
"""
CODE = b"""
class Shout:
    def shout(self, parameters, context):
        return {"text": parameters["text"].upper()}
"""
GOOD = {"plugin.toml": MANIFEST, "shout_plugin.py": CODE}


@dataclass(frozen=True)
class Raw:
    """One entry as it is written, each field free to lie. None: the honest value."""

    name: bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    packed: bytes | None = None
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_size: int | None = None
    local_packed_size: int | None = None
    local_crc: int | None = None
    mode: int = stat.S_IFREG | 0o644
    dos_attributes: int = 0
    extra: bytes = b""
    local_extra: bytes = b""
    descriptor: bytes = b""
    before: bytes = b""
    disk: int = 0
    offset: int | None = None
    comment: bytes = b""
    local: bool = True


@dataclass(frozen=True)
class Ending:
    """The end record, each field free to lie."""

    prefix: bytes = b""
    gap: bytes = b""
    between: bytes = b""
    trailing: bytes = b""
    comment: bytes = b""
    comment_size: int | None = None
    disk: int = 0
    count: int | None = None
    count_here: int | None = None
    directory_size: int | None = None
    directory_offset: int | None = None
    shift_offsets: bool = False
    edit: Callable[[bytes], bytes] = field(default=lambda content: content)


def deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(content) + compressor.flush()


def raw_zip(entries: list[Raw], ending: Ending | None = None) -> bytes:
    ending = ending or Ending()
    body, directory = bytearray(ending.prefix), bytearray()
    base = len(ending.prefix) if not ending.shift_offsets else 0
    for entry in entries:
        packed = entry.packed
        if packed is None:
            packed = deflate(entry.content) if entry.method == 8 else entry.content
        crc = zlib.crc32(entry.content) if entry.crc is None else entry.crc
        size = len(entry.content) if entry.size is None else entry.size
        packed_size = len(packed) if entry.packed_size is None else entry.packed_size
        body += entry.before
        offset = len(body) - (len(ending.prefix) - base) if entry.offset is None else entry.offset
        if entry.local:
            name = entry.name if entry.local_name is None else entry.local_name
            body += struct.pack(
                "<4sHHHHHIIIHH",
                b"PK\x03\x04",
                20,
                entry.flags if entry.local_flags is None else entry.local_flags,
                entry.method if entry.local_method is None else entry.local_method,
                0,
                0x21,
                crc if entry.local_crc is None else entry.local_crc,
                packed_size if entry.local_packed_size is None else entry.local_packed_size,
                size if entry.local_size is None else entry.local_size,
                len(name),
                len(entry.local_extra),
            )
            body += name + entry.local_extra + packed + entry.descriptor
        directory += struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            b"PK\x01\x02",
            (3 << 8) | 20,
            20,
            entry.flags,
            entry.method,
            0,
            0x21,
            crc,
            packed_size,
            size,
            len(entry.name),
            len(entry.extra),
            len(entry.comment),
            entry.disk,
            0,
            (entry.mode << 16) | entry.dos_attributes,
            offset,
        )
        directory += entry.name + entry.extra + entry.comment
    body += ending.gap
    start = len(body) - (len(ending.prefix) if ending.shift_offsets else 0)
    count = len(entries) if ending.count is None else ending.count
    end = struct.pack(
        "<4sHHHHIIH",
        b"PK\x05\x06",
        ending.disk,
        ending.disk,
        count if ending.count_here is None else ending.count_here,
        count,
        len(directory) if ending.directory_size is None else ending.directory_size,
        start if ending.directory_offset is None else ending.directory_offset,
        len(ending.comment) if ending.comment_size is None else ending.comment_size,
    )
    whole = bytes(body) + bytes(directory) + ending.between + end + ending.comment + ending.trailing
    return ending.edit(whole)


def good_entries() -> list[Raw]:
    return [Raw(name.encode(), content) for name, content in GOOD.items()]


def good_with(*extra: Raw, ending: Ending | None = None) -> bytes:
    """A bundle that is fine but for the entries (and the ending) given."""
    return raw_zip([*good_entries(), *extra], ending)


def lying(**changes: object) -> bytes:
    """A good bundle whose last entry lies."""
    honest = Raw(b"data.bin", b"0123456789" * 100)
    return good_with(replace(honest, **changes))  # type: ignore[arg-type]


def plain_zip(files: dict[str, bytes]) -> bytes:
    """What any zip tool writes."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
