"""init and build: what goes in, what stays out, and always the same bytes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from hotswap.domain.errors import BundleRejected, HotSwapError, InvalidInput, ManifestInvalid
from hotswap.runtime.build import build_plugin, init_plugin
from hotswap.runtime.bundle import digest_file, unpack, validate_bundle
from tests.unit.build_wheels import write_wheel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    folder = tmp_path / "plugin"
    init_plugin(folder, "release-notes")
    return folder


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all pip can see: no index, no configuration of this machine."""
    place = tmp_path / "wheels"
    place.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return place


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return opened.namelist()


def require(plugin: Path, *lines: str) -> None:
    (plugin / "requirements.txt").write_text("".join(f"{line}\n" for line in lines))


# -- init --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["release-notes", "json", "3d-print", "x", "a--b", "class"])
def test_a_fresh_plugin_builds_and_passes_its_own_smoke_test(name: str, tmp_path: Path) -> None:
    init_plugin(tmp_path / "p", name)
    result = build_plugin(tmp_path / "p")
    unpack(result.path, tmp_path / "out")
    (test,) = result.manifest.smoke_tests
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            "import importlib, json, sys\n"
            "from hotswap_plugin.context import Context\n"
            "from hotswap_plugin.settings import TenantView\n"
            "root, entry, method, parameters, defaults = sys.argv[1:]\n"
            "context = Context('t', 'p', '1.0.0', 0.0, view=TenantView(0, json.loads(defaults), None))\n"
            "sys.path[:0] = [root, root + '/vendor']\n"
            "module, _, name = entry.partition(':')\n"
            "plugin = getattr(importlib.import_module(module), name)()\n"
            "print(json.dumps([plugin.health(), getattr(plugin, method)(json.loads(parameters), context)]))",
            str(tmp_path / "out"),
            result.manifest.entry_point,
            test.method,
            json.dumps(test.parameters),
            json.dumps(result.manifest.config_defaults()),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [True, test.expected]
    assert result.manifest.name == name


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "-a", "a-", "a" * 64, "../x", "a.b", "a b", "é"])
def test_init_refuses_a_name_that_is_none_and_writes_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a plugin name"):
        init_plugin(tmp_path / "p", name)
    assert not (tmp_path / "p").exists()


def test_init_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    for folder in (tmp_path, tmp_path / "precious.txt"):
        with pytest.raises(InvalidInput, match="not empty"):
            init_plugin(folder, "notes")
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


# -- the same bytes ----------------------------------------------------------------------------------------------


def test_building_twice_gives_one_digest(plugin: Path, tmp_path: Path) -> None:
    first = build_plugin(plugin)
    second = build_plugin(plugin, tmp_path / "elsewhere" / "second.zip")
    assert first.digest == second.digest == digest_file(first.path) == digest_file(second.path)
    assert first.size_bytes == first.path.stat().st_size
    assert first.path == plugin / "dist" / "release-notes-0.1.0.zip"


def test_another_umask_time_zone_locale_directory_age_order_and_mode_give_the_same_digest(
    plugin: Path, wheels: Path, tmp_path: Path
) -> None:
    write_wheel(wheels, "lib-one", "1.0", requires=("lib-two>=2",), scripts="lib-one = lib_one:main")
    write_wheel(wheels, "lib-two", "2.1")
    require(plugin, "lib-one==1.0", "lib-two==2.1")
    (plugin / "data").mkdir()
    for name in ("b.txt", "a.txt", "ü.txt"):
        (plugin / "data" / name).write_text(name)
    reference = build_plugin(plugin).digest

    # The same files, made in another order, with other modes and times, at another place.
    copy = tmp_path / "other place" / "copy"
    copy.mkdir(parents=True)
    for path in sorted((path for path in plugin.rglob("*") if path.is_file()), reverse=True):
        if "dist" not in path.parts:
            place = copy / path.relative_to(plugin)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
            place.chmod(0o700)
            os.utime(place, (1, time.time() - 10**7))
    script = (
        "import os, sys, time; os.umask(int(sys.argv[2], 8)); os.chdir(sys.argv[3]); from pathlib import Path\n"
        "from hotswap.runtime.build import build_plugin; print(build_plugin(Path(sys.argv[1])).digest)"
    )
    for umask, zone, locale, seed in (("077", "Asia/Tokyo", "C", "1"), ("000", "America/Lima", "C.UTF-8", "2")):
        environment = {**os.environ, "TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", script, str(copy), umask, str(wheels)],
            env={**environment, "HOME": str(tmp_path), "TMPDIR": str(copy.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == reference


def test_a_changed_byte_changes_the_digest(plugin: Path) -> None:
    before = build_plugin(plugin).digest
    code = plugin / "release_notes_plugin.py"
    code.write_text(code.read_text().replace("greeting", "saluting"))
    assert build_plugin(plugin).digest != before


def test_an_archive_carries_nothing_of_who_made_it_and_when(plugin: Path) -> None:
    (plugin / "release_notes_plugin.py").chmod(0o777)
    with zipfile.ZipFile(build_plugin(plugin).path) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    for entry in entries:
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        assert (entry.external_attr >> 16, entry.create_system, entry.extra) == (0o100644, 3, b"")


def test_a_compressed_bundle_is_smaller_and_holds_the_same(plugin: Path, tmp_path: Path) -> None:
    plain = build_plugin(plugin, tmp_path / "plain.zip")
    small = build_plugin(plugin, tmp_path / "small.zip", compress=True)
    assert small.size_bytes < plain.size_bytes
    assert names(small.path) == names(plain.path)
    assert validate_bundle(small.path) == plain.manifest


# -- what goes in ------------------------------------------------------------------------------------------------


def test_tests_hidden_files_bytecode_and_earlier_builds_stay_out(plugin: Path) -> None:
    expected = [*names(build_plugin(plugin).path), "data/dist/kept.txt"]
    for name in (
        "tests/test_it.py",
        ".git/config",
        ".env",
        ".venv/bin/python",
        "venv/x.py",
        "__pycache__/x.cpython-311.pyc",
        "data/__pycache__/y.pyc",
        "data/stale.pyc",
        "data/.DS_Store",
        "build/lib/x.py",
        "release_notes.egg-info/PKG-INFO",
        "node_modules/x/index.js",
        "older.zip",
        "data/dist/kept.txt",
    ):
        (plugin / name).parent.mkdir(parents=True, exist_ok=True)
        (plugin / name).write_text("x")
    assert sorted(names(build_plugin(plugin).path)) == sorted(expected)
    inside = plugin / "data" / "out.zip"
    build_plugin(plugin, inside)
    assert sorted(names(build_plugin(plugin, inside).path)) == sorted(expected)


@pytest.mark.parametrize("where", ["secret.txt", "data/secret.txt", "linked"])
def test_a_link_is_refused_by_name_instead_of_packing_what_is_behind_it(
    where: str, plugin: Path, tmp_path: Path
) -> None:
    (plugin / "data").mkdir()
    (plugin / where).symlink_to(tmp_path if where == "linked" else "/etc/hostname")
    with pytest.raises(InvalidInput, match=where):
        build_plugin(plugin)


def test_a_plugin_without_requirements_may_bring_its_own_vendor_directory(plugin: Path) -> None:
    (plugin / "vendor").mkdir()
    (plugin / "vendor" / "mine.py").write_text("X = 1\n")
    assert "vendor/mine.py" in names(build_plugin(plugin).path)
    require(plugin, "lib-one==1.0")
    with pytest.raises(InvalidInput, match="in the way"):
        build_plugin(plugin)


def test_libraries_are_vendored_importable_and_stripped(plugin: Path, wheels: Path, tmp_path: Path) -> None:
    write_wheel(wheels, "lib-one", "1.0", scripts="lib-one = lib_one:main")
    write_wheel(wheels, "lib-two", "2.1", {"space/two/__init__.py": b"", "lib_two.pyc": b"stale"})
    write_wheel(wheels, "lib-three", "3.0", {"space/three/__init__.py": b""})
    require(plugin, "lib-one==1.0", "lib-two == 2.1  # a comment", "", "lib_three[plus]==3.0")
    result = build_plugin(plugin)
    inside = [name for name in names(result.path) if name.startswith("vendor/")]

    assert {"vendor/lib_one.py", "vendor/space/two/__init__.py", "vendor/space/three/__init__.py"} <= set(inside)
    assert "vendor/lib_one-1.0.dist-info/METADATA" in inside
    for part in ("RECORD", "INSTALLER", "REQUESTED", "direct_url", "/bin/", ".pyc"):
        assert not any(part in name for name in inside), part
    unpack(result.path, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import lib_one, space.three\n"
         "from importlib.metadata import version; print(lib_one.VERSION, version('lib-two'))", str(tmp_path / "out/vendor")],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1.0", "2.1"]


def test_pins_with_hashes_are_held_to_them(plugin: Path, wheels: Path) -> None:
    one, two = write_wheel(wheels, "lib-one", "1.0"), write_wheel(wheels, "lib-two", "2.1")
    digest_one, digest_two = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in (one, two))
    require(
        plugin,
        f"lib-one==1.0 --hash=sha256:{digest_one}",
        "lib-two==2.1 \\",
        f"    --hash=sha256:{'0' * 64} \\",
        f"    --hash=sha256:{digest_two}",
    )
    build_plugin(plugin)
    require(plugin, f"lib-one==1.0 --hash=sha256:{digest_one}", f"lib-two==2.1 --hash=sha256:{digest_one}")
    with pytest.raises(InvalidInput, match=r"cannot vendor lib-two: .*another hash") as refused:
        build_plugin(plugin)
    assert refused.value.faults[0].field == "requirements.txt:2"


# -- what is refused ---------------------------------------------------------------------------------------------

REQUIREMENT_FAULTS = {
    "lib-one": "not pinned",
    "lib-one>=1.0": "not pinned",
    "lib-one==1.*": "not pinned",
    "lib-one===1.0": "not pinned",
    "lib-one~=1.0": "not pinned",
    "lib-one==1.0,<2": "not pinned",
    "lib-one @ https://example.com/lib_one-1.0.whl": "fetched from a URL",
    "https://example.com/lib_one-1.0.whl": "not of the form",
    "git+https://example.com/lib-one": "not of the form",
    "./lib_one-1.0.whl": "not of the form",
    "lib-one==1.0; python_version < '3.12'": "marker",
    "-r other.txt": "options are not taken",
    "-e .": "options are not taken",
    "--pre": "options are not taken",
    "--find-links wheels": "options are not taken",
    "lib-one==1.0 --hash=md5:abc": "only --hash",
    "lib-one==1.0 --global-option=x": "only --hash",
    "lib-one==1.0\nLib_One==1.0": "pinned twice",
    f"lib-one==1.0 --hash=sha256:{'0' * 64}\nlib-two==2.0": "give all or none",
}


@pytest.mark.parametrize("text", REQUIREMENT_FAULTS)
def test_a_requirement_that_is_no_plain_pin_is_refused_with_its_line(text: str, plugin: Path) -> None:
    require(plugin, "# libraries", text)
    with pytest.raises(InvalidInput, match=REQUIREMENT_FAULTS[text]) as refused:
        build_plugin(plugin)
    assert refused.value.faults[0].field == f"requirements.txt:{2 + text.count(chr(10))}"
    assert list((plugin / "dist").glob("*")) == []


def test_every_wrong_line_is_named_at_once(plugin: Path) -> None:
    require(plugin, "lib-one", "lib-two==2.0", "-e .")
    with pytest.raises(InvalidInput) as refused:
        build_plugin(plugin)
    assert [fault.field for fault in refused.value.faults] == ["requirements.txt:1", "requirements.txt:3"]


@pytest.mark.parametrize(
    ("wheel", "fault"),
    [
        ({"tag": "cp311-cp311-manylinux_2_17_x86_64"}, "lib-one==1.0 has no pure-Python wheel"),
        ({"tag": "py3-none-win_amd64"}, "lib-one==1.0 has no pure-Python wheel"),
        ({"requires_python": ">=3.13"}, r"lib-one==1\.0 needs Python >=3\.13, but requires-python allows 3\.11"),
        ({"wheel_tag": "cp311-cp311-linux_x86_64"}, "lib-one is not pure Python"),
        ({"files": {"lib_one/__init__.py": b"", "lib_one/fast.so": b"\x7fELF"}}, "lib_one/fast.so"),
        ({"requires": ("lib-two>=2",)}, r"lib-one needs lib-two>=2; add it, pinned"),
        ({"requires": ("lib-three<3",)}, r"lib-one needs lib-three<3, but 3\.0 is pinned"),
        ({"requires": ("lib-two; python_version >= '3.13'",)}, "lib-one needs lib-two"),
        ({"requires": ("lib-two; extra == 'plus'",)}, "lib-one needs lib-two"),
    ],
    ids=["platform", "windows", "newer python", "lying tag", "native", "missing", "conflict", "some pythons", "extra"],
)
def test_a_library_that_cannot_be_vendored_is_named(
    wheel: dict[str, object], fault: str, plugin: Path, wheels: Path
) -> None:
    write_wheel(wheels, "lib-one", "1.0", **wheel)  # type: ignore[arg-type]
    write_wheel(wheels, "lib-three", "3.0")
    require(plugin, "lib-three==3.0", "lib-one[plus]==1.0")
    with pytest.raises(InvalidInput, match=fault) as refused:
        build_plugin(plugin)
    assert refused.value.faults[0].field.startswith("requirements.txt")
    assert list((plugin / "dist").glob("*")) == []
    assert not list(plugin.glob("vendor*"))


@pytest.mark.parametrize("marker", ["sys_platform == 'win32'", "python_version < '3.11'", "extra == 'other'"])
def test_what_no_node_needs_need_not_be_pinned(marker: str, plugin: Path, wheels: Path) -> None:
    write_wheel(wheels, "lib-one", "1.0", requires=(f"lib-two; {marker}",))
    require(plugin, "lib-one==1.0")
    build_plugin(plugin)


def test_the_plugins_python_decides_not_the_one_that_builds(plugin: Path, wheels: Path) -> None:
    write_wheel(wheels, "lib-one", "1.0", requires_python=">=3.13")
    require(plugin, "lib-one==1.0")
    manifest = plugin / "plugin.toml"
    manifest.write_text(manifest.read_text().replace('">=3.11"', '">=3.13"'))
    assert "vendor/lib_one.py" in names(build_plugin(plugin).path)
    manifest.write_text(manifest.read_text().replace('">=3.13"', '"<3.9"'))
    with pytest.raises(InvalidInput, match="allows none of"):
        build_plugin(plugin)


def test_a_version_that_does_not_exist_is_named(plugin: Path, wheels: Path) -> None:
    require(plugin, "no-such-lib==9.9")
    with pytest.raises(InvalidInput, match=r"no-such-lib==9\.9 has no pure-Python wheel"):
        build_plugin(plugin)


def test_a_failed_build_leaves_the_earlier_bundle_and_nothing_else(plugin: Path, wheels: Path) -> None:
    earlier = build_plugin(plugin)
    require(plugin, "no-such-lib==9.9")
    with pytest.raises(InvalidInput):
        build_plugin(plugin)
    assert [path.name for path in (plugin / "dist").iterdir()] == [earlier.path.name]
    assert digest_file(earlier.path) == earlier.digest


def test_what_the_api_would_refuse_is_not_built(plugin: Path) -> None:
    (plugin / "Data.txt").touch()
    (plugin / "data.txt").touch()
    with pytest.raises(BundleRejected, match="case"):
        build_plugin(plugin)
    assert list((plugin / "dist").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda folder: (folder / "plugin.toml").unlink(), "no plugin.json or plugin.toml"),
        (lambda folder: (folder / "plugin.json").write_text("{}"), "both"),
        (lambda folder: (folder / "plugin.toml").write_text("name = "), "cannot be read"),
        (lambda folder: (folder / "release_notes_plugin.py").unlink(), "release_notes_plugin:ReleaseNotes"),
        (lambda folder: shutil.rmtree(folder), "not a folder"),
    ],
    ids=["no manifest", "two manifests", "broken manifest", "no module", "no folder"],
)
def test_a_folder_that_is_no_plugin_is_refused(change: object, fault: str, plugin: Path) -> None:
    change(plugin)  # type: ignore[operator]
    with pytest.raises(HotSwapError, match=fault) as refused:
        build_plugin(plugin)
    assert isinstance(refused.value, ManifestInvalid | InvalidInput)
