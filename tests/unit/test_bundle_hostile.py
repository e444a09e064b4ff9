"""Hostile archives: each is refused with BundleRejected by every door, and leaves nothing on the disk."""

import os
import random
import stat
import struct
import unicodedata
import zlib
from pathlib import Path

import pytest

from hotswap.domain.errors import BundleRejected, InvalidInput
from hotswap.runtime.bundle import UnpackLimits, unpack, validate_bundle
from tests.unit.bundle_archives import (
    GOOD,
    MANIFEST,
    Ending,
    Raw,
    deflate,
    good_entries,
    good_with,
    lying,
    plain_zip,
    raw_zip,
    write,
)

SMALL = UnpackLimits(
    total_bytes=1_000_000, file_bytes=600_000, ratio=50, ratio_free_bytes=100_000, entries=50, directory_bytes=20_000
)
ZEROS = b"\0" * 500_000
GOOD_ZIP = good_with()
COMPOSED, DECOMPOSED = "caf\u00e9.txt", unicodedata.normalize("NFD", "caf\u00e9.txt")
UTF8 = 0x800


def named(name: str, content: bytes = b"x") -> Raw:
    return Raw(name.encode(), content, flags=0 if name.isascii() else UTF8)


def overlapping() -> bytes:
    """Two directory entries that share one record: the trick of the better zip bombs."""
    kernel = Raw(b"kernel.bin", b"a" * 1000)
    start = len(raw_zip(good_entries())) - 22 - sum(46 + len(name) for name in GOOD)
    return good_with(kernel, Raw(b"again.bin", b"a" * 1000, local=False, offset=start))


def quoted_overlap() -> bytes:
    """An entry whose data holds the next entry's whole record, as in Fifield's bomb."""
    inner = raw_zip([Raw(b"inner.bin", b"b" * 100, method=0)])[: 30 + 9 + 100]
    outer = Raw(b"outer.bin", inner, method=0)
    start = len(raw_zip(good_entries())) - 22 - sum(46 + len(name) for name in GOOD)
    return good_with(outer, Raw(b"inner.bin", b"b" * 100, method=0, local=False, offset=start + 30 + 9))


def two_end_records() -> bytes:
    """A whole second archive in the comment of the first: readers disagree about which one it is."""
    second = plain_zip({"plugin.toml": MANIFEST, "shout_plugin.py": b"raise SystemExit"})
    return good_with(ending=Ending(comment=second))


def _lengthened(content: bytes, field: int) -> bytes:
    """The last entry of the directory says that its name (28) or comment (32) is 60,000 bytes long."""
    at = content.rindex(b"PK\x01\x02") + field
    return content[:at] + struct.pack("<H", 60_000) + content[at + 2 :]


HOSTILE: dict[str, tuple[bytes, str]] = {
    # bombs
    "bomb by ratio": (good_with(Raw(b"a.bin", ZEROS), Raw(b"b.bin", b"\0" * 400_000)), "times its size"),
    "bomb by total": (
        good_with(*(named(f"{i}.bin", random.Random(i).randbytes(260_000)) for i in range(4))),
        "would unpack to",
    ),
    "bomb by one file": (
        good_with(Raw(b"a.bin", random.Random(1).randbytes(600_001), method=0)),
        "the limit is 600000",
    ),
    "bomb by entries": (good_with(*(named(f"{i}.txt") for i in range(60))), "62 entries"),
    "bomb by implied directories": (
        good_with(*(named(f"{i}/" + "/".join("abcdefgh") + "/f.txt") for i in range(8))),
        "implied ones included",
    ),
    "bomb by central directory": (
        good_with(Raw(b"a.txt", b"x", comment=b"c" * 30_000)),
        "central directory of",
    ),
    "overlapping entries": (overlapping(), "overlapping"),
    "quoted overlap": (quoted_overlap(), "overlapping"),
    # lying sizes
    "declares less than it holds": (lying(size=10), "more than the 10 bytes"),
    "declares more than it holds": (lying(size=5000), "declares 5000"),
    "declares gigabytes": (lying(size=0xFFFFFFF0), "the limit is"),
    "local size differs": (lying(local_size=10), "two different things"),
    "local packed size differs": (lying(local_packed_size=3), "two different things"),
    "packed size reaches past the end": (lying(packed_size=90_000, local_packed_size=90_000), "central directory"),
    "stored with two sizes": (lying(method=0, size=10), "two sizes"),
    "wrong checksum": (lying(crc=1), "checksum"),
    "local checksum differs": (lying(local_crc=7), "two different things"),
    "descriptor lies": (
        lying(flags=8, descriptor=struct.pack("<4sIII", b"PK\x07\x08", 1, 2, 3)),
        "two different things",
    ),
    "compressed stream cut short": (lying(packed=deflate(b"0123456789" * 100)[:-4]), "ends too early"),
    "junk after the compressed stream": (lying(packed=deflate(b"0123456789" * 100) + b"junk"), "does not use"),
    "not a compressed stream": (lying(packed=b"\xff" * 40), "cannot be decompressed"),
    # names
    "duplicate name": (good_with(named("plugin.toml", MANIFEST)), "appears twice"),
    "case collision": (good_with(named("Shout_Plugin.py")), "case"),
    "case collision of directories": (good_with(named("Lib/a.py"), named("lib/b.py")), "case"),
    "normalisation collision": (good_with(named(COMPOSED), named(DECOMPOSED)), "coding of letters"),
    "compatibility collision": (good_with(named("file.txt"), named("\ufb01le.txt")), "coding of letters"),
    "absolute path": (good_with(named("/etc/cron.d/x")), "absolute"),
    "dot-dot": (good_with(named("../outside.py")), "'..'"),
    "dot-dot in the middle": (good_with(named("a/../../outside.py")), "'..'"),
    "dot part": (good_with(named("./plugin2.py")), "'.'"),
    "empty part": (good_with(named("a//b.py")), "empty"),
    "empty name": (good_with(named("")), "empty"),
    "only a slash": (good_with(Raw(b"/", b"", method=0, mode=stat.S_IFDIR | 0o755)), "absolute"),
    "backslash path": (good_with(named("..\\outside.py")), "backslash"),
    "drive": (good_with(named("C:/outside.py")), "colon"),
    "alternate stream": (good_with(named("shout_plugin.py:x")), "colon"),
    "NUL in a name": (good_with(named("a.py\0.txt")), "U.0000"),
    "newline in a name": (good_with(named("a\nb.txt")), "U.000A"),
    "escape sequence in a name": (good_with(named("\x1b[2J.txt")), "U.001B"),
    "right-to-left override": (good_with(named("a\u202eyp.txt")), "U.202E"),
    "trailing dot": (good_with(named("plugin.toml.")), "dot or a space"),
    "trailing space": (good_with(named("dir /a.py")), "dot or a space"),
    "name not UTF-8": (good_with(Raw(b"\xff\xfe.py", b"x", flags=UTF8)), "not UTF-8"),
    "name in an old code page": (good_with(Raw(b"caf\x82.py", b"x")), "not UTF-8"),
    "part too long": (good_with(named("a" * 256)), "longer than 255"),
    "name too long": (good_with(named("/".join(["a" * 200] * 6))), "longer than 1024"),
    "too deep": (good_with(named("/".join(["d"] * 40))), "deeper than 32"),
    "file that is a directory too": (good_with(named("a"), named("a/b.py")), "but it is a file"),
    "directory that is a file too": (good_with(named("a/b.py"), named("A")), "case"),
    "directory then file": (good_with(named("a/b.py"), named("a")), "need it to be a directory"),
    "the marker of completion": (good_with(named(".hotswap-unpacked.json", b"{}")), "kept for HotSwap"),
    "bytecode without source": (good_with(named("evil.pyc")), "bytecode"),
    "bytecode beside source": (good_with(named("__pycache__/shout_plugin.cpython-311.pyc")), "bytecode"),
    "local name differs": (lying(local_name=b"plugin.toml"), "two different things"),
    "local name is a directory": (lying(local_name=b"data.bin/"), "two different things"),
    # kinds
    "symbolic link": (good_with(Raw(b"link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)), "a link"),
    "character device": (good_with(Raw(b"dev", b"", method=0, mode=stat.S_IFCHR | 0o666)), "kind"),
    "block device": (good_with(Raw(b"dev", b"", method=0, mode=stat.S_IFBLK | 0o666)), "kind"),
    "FIFO": (good_with(Raw(b"fifo", b"", method=0, mode=stat.S_IFIFO | 0o666)), "kind"),
    "socket": (good_with(Raw(b"sock", b"", method=0, mode=stat.S_IFSOCK | 0o666)), "kind"),
    "directory mode on a file name": (good_with(Raw(b"d", b"", method=0, mode=stat.S_IFDIR | 0o755)), "kind"),
    "file mode on a directory name": (good_with(Raw(b"d/", b"", method=0)), "kind"),
    "DOS directory with a file's name": (
        good_with(Raw(b"d", b"", mode=0, dos_attributes=0x10)),
        "marked as a directory",
    ),
    "directory with content": (good_with(Raw(b"d/", b"hello", mode=stat.S_IFDIR | 0o755)), "directory with content"),
    "link in a PKWARE field": (
        good_with(Raw(b"a", b"x", extra=struct.pack("<HH", 0x000D, 12) + b"\0" * 12)),
        "can hide a link",
    ),
    "second name in an extra field": (
        good_with(Raw(b"a", b"x", extra=struct.pack("<HHBI", 0x7075, 9, 1, zlib.crc32(b"a")) + b"b.py")),
        "second name",
    ),
    "second size in an extra field": (
        good_with(Raw(b"a", b"x", local_extra=struct.pack("<HHQQ", 1, 16, 1, 1))),
        "zip64",
    ),
    "name runs past the directory": (
        good_with(ending=Ending(edit=lambda content: _lengthened(content, 28))),
        "broken central directory",
    ),
    "comment runs past the directory": (
        good_with(ending=Ending(edit=lambda content: _lengthened(content, 32))),
        "broken central directory",
    ),
    "broken extra field": (good_with(Raw(b"a", b"x", extra=b"\x55\x54\xff\xff\0")), "broken extra"),
    "broken local extra field": (good_with(Raw(b"a", b"x", local_extra=b"\x55\x54\xff")), "broken extra"),
    # encoding of content
    "encrypted": (lying(flags=1), "encrypted"),
    "strongly encrypted": (lying(flags=0x40), "encrypted"),
    "AES field": (lying(extra=struct.pack("<HH", 0x9901, 7) + b"\0" * 7), "encrypted"),
    "encrypted only locally": (lying(local_flags=1), "two different things"),
    "bzip2": (lying(method=12), "method 12"),
    "lzma": (lying(method=14), "method 14"),
    "deflate64": (lying(method=9), "method 9"),
    "zstd": (lying(method=93), "method 93"),
    "patch data": (lying(flags=0x20), "method"),
    "method differs locally": (lying(local_method=0), "two different things"),
    # structure
    "not a zip": (b"#!/bin/sh\necho hello\n" * 10, "not a zip"),
    "empty file": (b"", "not a zip"),
    "tar instead of zip": (b"plugin.toml" + b"\0" * 1013, "not a zip"),
    "prepended junk": (good_with(ending=Ending(prefix=b"#!/bin/sh\n")), "before"),
    "prepended junk, offsets left alone": (
        good_with(ending=Ending(prefix=b"MZ" * 50, shift_offsets=True)),
        "bytes before",
    ),
    "trailing data": (good_with(ending=Ending(trailing=b"trailing")), "data after its end"),
    "two end records": (two_end_records(), "more than one end record"),
    "comment length lies": (good_with(ending=Ending(comment=b"abc", comment_size=2)), "data after its end"),
    "hidden bytes between entries": (good_with(Raw(b"a", b"x", before=b"hidden record")), "hidden"),
    "hidden bytes before the directory": (good_with(ending=Ending(gap=b"hidden")), "hidden bytes"),
    "hidden bytes after the directory": (good_with(ending=Ending(between=b"hidden")), "bytes"),
    "entry not in the directory": (good_with(ending=Ending(gap=raw_zip([named("ghost.py")])[:40])), "hidden"),
    "no local record": (good_with(Raw(b"ghost.py", b"x", local=False)), "no record|ends inside|two different"),
    "offset past the end": (lying(offset=0x7FFFFFF0), "overlapping"),
    "count too high": (good_with(ending=Ending(count=3)), "ends too early"),
    "count too low": (good_with(named("a.txt"), ending=Ending(count=2)), "belong to no entry"),
    "count huge": (good_with(ending=Ending(count=0xFFFF)), "65535 entries"),
    "directory size lies": (good_with(ending=Ending(directory_size=10)), "before its first entry"),
    "directory offset lies": (good_with(ending=Ending(directory_offset=3)), "before its first entry"),
    "several disks": (good_with(ending=Ending(disk=1)), "several files"),
    "entry on another disk": (lying(disk=4), "several files"),
    "zip64 extra": (lying(extra=struct.pack("<HHQQ", 1, 16, 1000, 30)), "zip64"),
    "zip64 sizes": (lying(size=0xFFFFFFFF, local_size=0xFFFFFFFF), "limit|zip64"),
    "zip64 offset": (good_with(ending=Ending(directory_offset=0xFFFFFFFF)), "zip64"),
    "zip64 locator": (
        good_with(ending=Ending(between=struct.pack("<4sIQI", b"PK\x06\x07", 0, 0, 1))),
        "zip64",
    ),
    "entry of the directory without its mark": (
        good_with(ending=Ending(edit=lambda content: content.replace(b"PK\x01\x02", b"PK\x01\x00", 1))),
        "broken central directory",
    ),
    "cut in half": (GOOD_ZIP[: len(GOOD_ZIP) // 2], "not a zip"),
    "first half missing": (GOOD_ZIP[len(GOOD_ZIP) // 2 :], "bytes before"),
}


def test_there_are_at_least_thirty_kinds() -> None:
    assert len(HOSTILE) >= 80
    assert len({content for content, _ in HOSTILE.values()}) == len(HOSTILE)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    content, fault = HOSTILE[kind]
    archive = write(tmp_path / "hostile.zip", content)
    target = tmp_path / "into" / "target"
    target.parent.mkdir()

    with pytest.raises(BundleRejected, match=fault):
        unpack(archive, target, SMALL)
    with pytest.raises(BundleRejected, match=fault):
        validate_bundle(archive, SMALL)

    assert list(target.parent.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.zip", "into"]


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(BundleRejected, match="not a regular file"):
        validate_bundle(tmp_path / "pipe.zip")


def test_a_flipped_byte_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    """Every single-byte change ends in a domain error or in the same files: never a crash, never other content."""
    reference = validate_bundle(write(tmp_path / "good.zip", GOOD_ZIP))
    accepted = 0
    for at in range(len(GOOD_ZIP)):
        for flip in (0x01, 0x80):
            changed = bytearray(GOOD_ZIP)
            changed[at] ^= flip
            try:
                assert validate_bundle(write(tmp_path / "changed.zip", bytes(changed))) == reference
            except InvalidInput:
                continue
            accepted += 1
    # Only what no reader acts on may change unseen: times, version numbers, permission bits, internal attributes.
    assert accepted < len(GOOD_ZIP) * 2 * 0.15


def test_every_cut_is_refused(tmp_path: Path) -> None:
    for length in range(len(GOOD_ZIP)):
        with pytest.raises(BundleRejected):
            validate_bundle(write(tmp_path / "cut.zip", GOOD_ZIP[:length]))


def test_a_refusal_never_repeats_a_long_name(tmp_path: Path) -> None:
    archive = write(tmp_path / "long.zip", good_with(named("/".join(["\u00e9" * 100] * 5) + "/..")))
    with pytest.raises(BundleRejected) as refused:
        validate_bundle(archive)
    assert len(refused.value.message) < 400
