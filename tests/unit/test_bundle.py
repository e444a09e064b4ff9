"""Unpacking a good bundle: whole or absent, importable, the same for everybody."""

import errno
import hashlib
import io
import os
import stat
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from hotswap.domain.errors import BundleRejected, ManifestInvalid
from hotswap.runtime import bundle
from hotswap.runtime.bundle import (
    digest_file,
    read_manifest,
    sweep_unfinished,
    unpack,
    unpacked_manifest,
    validate_bundle,
)
from tests.unit.bundle_archives import CODE, GOOD, MANIFEST, Raw, good_with, plain_zip, raw_zip, write


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def sources(root: Path) -> set[str]:
    return {name for name in tree(root) if "__pycache__" not in name and not name.startswith(".hotswap")}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write(tmp_path / "good.zip", plain_zip({**GOOD, "vendor/lib/__init__.py": b"X = 1\n", "data/a.txt": b"a"}))


def test_a_bundle_unpacks_to_its_files_and_manifest(archive: Path, tmp_path: Path) -> None:
    manifest = unpack(archive, tmp_path / "out" / "v1")

    assert (manifest.name, manifest.version, manifest.entry_point) == ("shout", "1.0.0", "shout_plugin:Shout")
    assert sources(tmp_path / "out" / "v1") == {*GOOD, "vendor/lib/__init__.py", "data/a.txt"}
    assert (tmp_path / "out" / "v1" / "shout_plugin.py").read_bytes() == CODE
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["v1"]


def test_reading_and_validating_agree_with_unpacking_and_write_nothing(archive: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert read_manifest(archive) == validate_bundle(archive)
    assert sorted(tmp_path.rglob("*")) == before
    assert unpack(archive, tmp_path / "v1") == read_manifest(archive)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_normalised_whatever_archive_and_umask_say(umask: int, tmp_path: Path) -> None:
    content = raw_zip(
        [
            Raw(b"plugin.toml", MANIFEST, mode=stat.S_IFREG | 0o000),
            Raw(b"shout_plugin.py", CODE, mode=stat.S_IFREG | 0o6777),
            Raw(b"bin/", b"", method=0, mode=stat.S_IFDIR | 0o1777),
            Raw(b"bin/tool", b"#!/bin/sh\n", mode=stat.S_IFREG | 0o755),
        ]
    )
    previous = os.umask(umask)
    try:
        unpack(write(tmp_path / "modes.zip", content), tmp_path / "v1")
    finally:
        os.umask(previous)
    for path in [tmp_path / "v1", *(tmp_path / "v1").rglob("*")]:
        assert stat.S_IMODE(path.lstat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_a_streamed_archive_with_descriptors_is_accepted(tmp_path: Path) -> None:
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, content: bytes) -> int:  # type: ignore[override]
            self.content += content
            return len(content)

    stream = Unseekable()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
    assert unpack(write(tmp_path / "streamed.zip", bytes(stream.content)), tmp_path / "v1").name == "shout"


def test_a_stored_archive_with_directories_and_a_comment_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "stored.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = b"made by a build server"
        archive.writestr("empty/", b"")
        for name, content in GOOD.items():
            archive.writestr(name, content)
    unpack(path, tmp_path / "v1")
    assert (tmp_path / "v1" / "empty").is_dir()


def test_a_second_unpack_does_no_work(archive: Path, tmp_path: Path) -> None:
    first = unpack(archive, tmp_path / "v1")
    stamp = (tmp_path / "v1" / "shout_plugin.py").stat().st_ino
    (tmp_path / "v1" / "data" / "a.txt").unlink()

    assert unpack(archive, tmp_path / "v1") == first
    assert (tmp_path / "v1" / "shout_plugin.py").stat().st_ino == stamp
    assert not (tmp_path / "v1" / "data" / "a.txt").exists()


def test_a_target_made_of_another_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    unpack(archive, tmp_path / "v1")
    other = write(tmp_path / "other.zip", plain_zip({**GOOD, "more.py": b""}))
    with pytest.raises(BundleRejected, match="another archive"):
        unpack(other, tmp_path / "v1")
    assert "more.py" not in tree(tmp_path / "v1")


def test_twelve_callers_at_once_share_one_whole_bundle(archive: Path, tmp_path: Path) -> None:
    gate = threading.Barrier(12)

    def one(_: int) -> str:
        gate.wait(10)
        return unpack(archive, tmp_path / "out" / "v1").version

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, range(12))) == ["1.0.0"] * 12
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["v1"]
    assert "shout_plugin.py" in tree(tmp_path / "out" / "v1")


def test_an_incomplete_directory_is_replaced(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "v1" / "vendor").mkdir(parents=True)
    (tmp_path / "v1" / "stale.py").write_text("old")
    (tmp_path / "v1" / bundle.MARKER).write_text("")  # what a power cut leaves

    unpack(archive, tmp_path / "v1")

    assert "stale.py" not in tree(tmp_path / "v1")
    assert unpacked_manifest(tmp_path / "v1") is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.zip", "v1"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_a_link_in_the_way_is_left_alone(kind: str, archive: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = tmp_path / "v1"
    target.symlink_to(elsewhere) if kind == "link" else target.write_text("mine")
    with pytest.raises(FileExistsError):
        unpack(archive, target)
    assert list(elsewhere.iterdir()) == []
    assert target.is_symlink() or target.read_text() == "mine"


def test_unpacked_manifest_needs_no_archive(archive: Path, tmp_path: Path) -> None:
    assert unpacked_manifest(tmp_path / "v1") is None
    manifest = unpack(archive, tmp_path / "v1")
    archive.unlink()
    assert unpacked_manifest(tmp_path / "v1") == manifest


def test_a_full_disk_leaves_nothing(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(root: Path, timeout: timedelta) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle, "compile_bundle", full)
    with pytest.raises(OSError, match="No space"):
        unpack(archive, tmp_path / "out" / "v1")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_work_in_progress_is_not(tmp_path: Path) -> None:
    for name, age in ((".v1.abc.unpacking", 7200), (".v2.def.unpacking", 10)):
        (tmp_path / name / "vendor").mkdir(parents=True)
        when = time.time() - age
        os.utime(tmp_path / name, (when, when))
    (tmp_path / "v0").mkdir()
    assert sweep_unfinished(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".v2.def.unpacking", "v0"]


# -- bytecode ----------------------------------------------------------------------------------------------------


def test_imports_use_the_bytecode_that_unpacking_wrote(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "v1"
    unpack(archive, root)
    # The bytecode alone must do: were it ignored, the emptied source would be imported instead.
    for source in (root / "shout_plugin.py", root / "vendor" / "lib" / "__init__.py"):
        source.write_text("")
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'vendor')!r}]\n"
            "import lib, shout_plugin; print(lib.X, shout_plugin.Shout().shout({'text': 'a'}, None))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1 {'text': 'A'}"


def test_source_that_is_not_python_does_not_stop_the_rest(tmp_path: Path) -> None:
    files = {
        **GOOD,
        "aaa_template.py": b"{{ not python }} def",
        "bad_encoding.py": b"# coding: nonsense\n",
        "nul.py": b"\0",
    }
    unpack(write(tmp_path / "mixed.zip", plain_zip(files)), tmp_path / "v1")
    assert any(name.startswith("__pycache__/shout_plugin.") for name in tree(tmp_path / "v1"))


@pytest.mark.parametrize(
    "source",
    [
        b"x = " + b"(" * 50_000,
        b"x = " + b"-" * 100_000 + b"1",
        b"x = " + b"[" * 150 + b"]" * 150 + b"." + b"a." * 90_000 + b"a",
        b"(1<<60)" + b"<<(1<<20)" * 2_000,
        b"f'" + b"{f'" * 5_000,
    ],
    ids=["nesting", "unary", "chain", "folding", "f-strings"],
)
def test_source_made_to_break_the_compiler_costs_only_its_bytecode(source: bytes, tmp_path: Path) -> None:
    archive = write(tmp_path / "bomb.zip", plain_zip({**GOOD, "zz_bomb.py": source}))
    started = time.monotonic()
    unpack(archive, tmp_path / "v1", compile_timeout=timedelta(seconds=5))
    assert time.monotonic() - started < 20
    assert "zz_bomb.py" in tree(tmp_path / "v1")


def test_bytecode_is_bounded_by_the_source_it_is_made_of(tmp_path: Path) -> None:
    """Folding turns 12 bytes of source into 4 KiB: 2 MB of an archive would be 700 MB on the disk."""
    folded = b"".join(b"'%04x'*1024\n" % number for number in range(8_000))
    kept = b"".join(b"x%d='%04x'*1024\n" % (number, number) for number in range(8_000))
    files = {**GOOD, **{f"a_bomb{number}.py": kept for number in range(4)}, "a_fold.py": folded}
    unpack(write(tmp_path / "bomb.zip", plain_zip(files)), tmp_path / "v1")
    source = sum(len(content) for content in files.values())
    made = sum(path.stat().st_size for path in (tmp_path / "v1").rglob("*.pyc"))
    assert made < 2 * source + 16 * 2**20
    assert not any("a_bomb" in path.name for path in (tmp_path / "v1").rglob("*.pyc*"))
    assert any(name.startswith("__pycache__/shout_plugin.") for name in tree(tmp_path / "v1"))


def test_compiling_is_bounded_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    huge = b"x = {" + b"".join(b"%d: [%d, '%d'], " % (i, i, i) for i in range(200_000)) + b"}\n"
    archive = write(tmp_path / "huge.zip", plain_zip({**GOOD, **{f"huge{i}.py": huge for i in range(12)}}))
    started = time.monotonic()
    unpack(archive, tmp_path / "v1", compile_timeout=timedelta(seconds=1))
    assert time.monotonic() - started < 15
    assert "imports from source" in caplog.text


# -- what must be inside -----------------------------------------------------------------------------------------


def doors() -> list[object]:
    return [validate_bundle, lambda path: unpack(path, path.parent / "v1")]


@pytest.mark.parametrize("door", doors(), ids=["validate", "unpack"])
@pytest.mark.parametrize("module", ["shout_plugin.py", "shout_plugin/__init__.py", "vendor/shout_plugin.py"])
def test_the_entry_point_may_be_a_module_a_package_or_vendored(door: object, module: str, tmp_path: Path) -> None:
    archive = write(tmp_path / "a.zip", plain_zip({"plugin.toml": MANIFEST, module: CODE}))
    assert door(archive).name == "shout"  # type: ignore[operator]


@pytest.mark.parametrize("door", doors(), ids=["validate", "unpack"])
@pytest.mark.parametrize(
    "module", ["shout_plugins.py", "shout_plugin/plugin.py", "lib/shout_plugin.py", "shout_plugin.so"]
)
def test_an_entry_point_that_is_not_in_the_bundle_is_named(door: object, module: str, tmp_path: Path) -> None:
    archive = write(tmp_path / "a.zip", plain_zip({"plugin.toml": MANIFEST, module: CODE}))
    with pytest.raises(ManifestInvalid, match="shout_plugin:Shout") as refused:
        door(archive)  # type: ignore[operator]
    assert [fault.field for fault in refused.value.faults] == ["entryPoint"]
    assert not (tmp_path / "v1").exists()


def test_a_dotted_entry_point_is_looked_up_in_its_package(tmp_path: Path) -> None:
    manifest = MANIFEST.replace(b"shout_plugin:Shout", b"pack.inner.shout:Shout")
    with pytest.raises(ManifestInvalid, match=r"pack\.inner\.shout"):
        validate_bundle(write(tmp_path / "a.zip", plain_zip({"plugin.toml": manifest, "pack/inner.py": CODE})))
    good = plain_zip({"plugin.toml": manifest, "pack/inner/shout.py": CODE})
    assert validate_bundle(write(tmp_path / "b.zip", good)).name == "shout"


def test_validation_reads_every_byte_and_read_manifest_only_the_manifest(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.zip", good_with(Raw(b"data.bin", b"0123456789" * 100, crc=1)))
    assert read_manifest(archive).name == "shout"
    with pytest.raises(BundleRejected, match="checksum"):
        validate_bundle(archive)


def test_a_digest_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    content = os.urandom(3 * 1024 * 1024 + 17)
    assert digest_file(write(tmp_path / "a", content)) == hashlib.sha256(content).hexdigest()
