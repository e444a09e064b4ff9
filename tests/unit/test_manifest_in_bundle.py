"""Manifest faults as an uploader meets them: each names the key, and nothing is unpacked."""

import json
from pathlib import Path
from typing import Any

import pytest

from hotswap.domain.errors import BundleRejected, ManifestInvalid
from hotswap.domain.manifest import MAX_MANIFEST_BYTES, MAX_NESTING, Manifest
from hotswap.runtime.bundle import read_manifest, unpack, validate_bundle
from tests.unit.bundle_archives import CODE, GOOD, MANIFEST, plain_zip, write

BASE: dict[str, Any] = {
    "name": "shout",
    "version": "1.0.0",
    "entryPoint": "shout_plugin:Shout",
    "methods": [{"name": "shout"}],
}
GONE = object()

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"name": GONE}, "name"),
    ({"name": "Shout"}, "name"),
    ({"name": "a/b"}, "name"),
    ({"name": "a" * 64}, "name"),
    ({"name": 7}, "name"),
    ({"version": GONE}, "version"),
    ({"version": "1.0"}, "version"),
    ({"version": "01.0.0"}, "version"),
    ({"version": "v1.0.0"}, "version"),
    ({"version": "1.0.0-" + "a" * 60}, "version"),
    ({"entryPoint": GONE}, "entryPoint"),
    ({"entryPoint": "shout_plugin"}, "entryPoint"),
    ({"entryPoint": "../x:Y"}, "entryPoint"),
    ({"entryPoint": "shout-plugin:Shout"}, "entryPoint"),
    ({"entryPoint": "other:Shout"}, "entryPoint"),
    ({"runtime": "wasm"}, "runtime"),
    ({"requires-python": "three"}, "requires-python"),
    ({"type": "Gadget"}, "type"),
    ({"colour": "red"}, "colour"),
    ({"methods": GONE}, "methods"),
    ({"methods": []}, "methods"),
    ({"methods": [{"name": "Shout"}]}, "methods.0.name"),
    ({"methods": [{"name": "__init__"}]}, "methods.0.name"),
    ({"methods": [{"name": "shout"}, {"name": "shout"}]}, "methods"),
    ({"methods": [{"name": "shout", "parameters": {"type": "objekt"}}]}, "methods.0.parameters"),
    ({"methods": [{"name": "shout", "result": {"required": "x"}}]}, "methods.0.result"),
    ({"methods": [{"name": "shout", "retry": True}]}, "methods.0.retry"),
    ({"resources": {"memoryMb": 1}}, "resources.memoryMb"),
    ({"resources": {"memoryMb": 10**9}}, "resources.memoryMb"),
    ({"resources": {"cpu": 1}}, "resources.cpu"),
    ({"smokeTests": [{"method": "whisper"}]}, "smokeTests.0.method"),
    ({"smokeTests": [{"method": "shout", "parameters": []}]}, "smokeTests.0.parameters"),
    ({"smokeTests": [{"method": "shout", "expectedSchema": {"type": 1}}]}, "smokeTests.0.expectedSchema"),
    ({"dependencies": [{"name": "x"}]}, "dependencies.0.versionConstraint"),
    ({"dependencies": [{"name": "x", "versionConstraint": "1", "type": "Crate"}]}, "dependencies.0.type"),
    ({"configurationSchema": {"type": "nope"}}, "configurationSchema"),
    ({"minPlatformVersion": "soon"}, "minPlatformVersion"),
    ({"entryPoint": "shout_plugin:Shout\n"}, "entryPoint"),
    ({"description": "a\0b"}, "description"),
    ({"configurationSchema": {"a\0": 1}}, "configurationSchema"),
    ({"configurationSchema": {"minimum": float("inf")}}, "configurationSchema.minimum"),
    ({"smokeTests": [{"method": "shout", "parameters": {"x": float("nan")}}]}, "smokeTests.0.parameters.x"),
]


def bundle(tmp_path: Path, manifest: dict[str, Any]) -> Path:
    document = {key: value for key, value in manifest.items() if value is not GONE}
    files = {"plugin.json": json.dumps(document).encode(), "shout_plugin.py": CODE}
    return write(tmp_path / "a.zip", plain_zip(files))


@pytest.mark.parametrize(("change", "field"), FAULTS, ids=[f"{i}-{field}" for i, (_, field) in enumerate(FAULTS)])
def test_a_manifest_fault_names_its_key(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    archive = bundle(tmp_path, {**BASE, **change})
    with pytest.raises(ManifestInvalid) as refused:
        validate_bundle(archive)
    assert field in [fault.field for fault in refused.value.faults]
    assert all(fault.message for fault in refused.value.faults)
    with pytest.raises(ManifestInvalid):
        unpack(archive, tmp_path / "v1")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("levels", [MAX_NESTING, 200, 900])
def test_a_manifest_too_deep_to_be_read_back_is_refused(levels: int, tmp_path: Path) -> None:
    """One that the upload took and the registry could not read again made every list of its plugin fail."""
    deep: dict[str, Any] = {}
    for _ in range(levels):
        deep = {"properties": deep}
    with pytest.raises(ManifestInvalid, match="levels deep") as refused:
        validate_bundle(bundle(tmp_path, {**BASE, "configurationSchema": deep}))
    assert refused.value.faults[0].field.startswith("configurationSchema.properties")


def test_the_deepest_manifest_can_be_read_back(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_NESTING - 3):
        deep = {"x": deep}
    manifest = validate_bundle(bundle(tmp_path, {**BASE, "configurationSchema": {"default": deep}}))
    assert Manifest.model_validate_json(manifest.model_dump_json(by_alias=True)) == manifest


def test_the_unchanged_manifest_is_fine(tmp_path: Path) -> None:
    assert validate_bundle(bundle(tmp_path, BASE)).name == "shout"


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        read_manifest(bundle(tmp_path, {**BASE, "version": "x", "colour": "red", "type": "Gadget"}))
    assert {fault.field for fault in refused.value.faults} == {"version", "colour", "type"}


def test_what_is_within_a_list_is_not_told_of_the_list_too(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        read_manifest(bundle(tmp_path, {**BASE, "methods": [{"name": "shout", "idempotnt": True}]}))
    assert [fault.field for fault in refused.value.faults] == ["methods.0.idempotnt"]
    with pytest.raises(ManifestInvalid) as refused:
        read_manifest(bundle(tmp_path, {**BASE, "methods": []}))
    assert [fault.field for fault in refused.value.faults] == ["methods"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Shout Loud"}, "name: is not spelt as it must be; use 1 to 63 lower-case letters"),
        ({"methods": [{"name": "Shout"}]}, "methods.0.name: is not spelt as it must be; use 1 to 64 lower-case"),
        ({"methods": {"name": "shout"}}, "methods: must be a list"),
    ],
)
def test_a_fault_is_told_without_a_regular_expression_or_a_type_of_pythons(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        read_manifest(bundle(tmp_path, {**BASE, **change}))
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"shout_plugin.py": CODE}, "no manifest"),
        ({"inner/plugin.toml": MANIFEST, "shout_plugin.py": CODE}, "no manifest"),
        ({"vendor/plugin.toml": MANIFEST, "shout_plugin.py": CODE}, "no manifest"),
        ({"plugin.toml/x": MANIFEST, "shout_plugin.py": CODE}, "no manifest"),
        ({"plugin.toml": MANIFEST, "plugin.json": b"{}", "shout_plugin.py": CODE}, "two manifests"),
        ({"plugin.toml": b"name = ", "shout_plugin.py": CODE}, "cannot be read"),
        ({"plugin.toml": b"\xff\xfe", "shout_plugin.py": CODE}, "cannot be read"),
        ({"plugin.toml": b"", "shout_plugin.py": CODE}, "is required"),
        ({"plugin.json": b"[]", "shout_plugin.py": CODE}, "not a valid manifest"),
        ({"plugin.json": b"null", "shout_plugin.py": CODE}, "not a valid manifest"),
        ({"plugin.json": b"[" * 200_000, "shout_plugin.py": CODE}, "cannot be read"),
        ({"plugin.toml": b"#" * (MAX_MANIFEST_BYTES + 1), "shout_plugin.py": CODE}, "over 262144 bytes"),
        ({"plugin.toml": MANIFEST + b"[extra]\nx = 1\n", "shout_plugin.py": CODE}, "extra"),
        ({"plugin.toml": MANIFEST + b"[configurationSchema]\nx = 2026-01-31\n", "shout_plugin.py": CODE}, "is a date"),
        ({"plugin.toml": MANIFEST + b"[configurationSchema]\nx = nan\n", "shout_plugin.py": CODE}, "not a finite"),
    ],
)
def test_a_missing_doubled_or_unreadable_manifest_is_refused(
    files: dict[str, bytes], fault: str, tmp_path: Path
) -> None:
    archive = write(tmp_path / "a.zip", plain_zip(files))
    for door in (read_manifest, validate_bundle, lambda path: unpack(path, tmp_path / "v1")):
        with pytest.raises(ManifestInvalid, match=fault) as refused:
            door(archive)
        assert refused.value.faults
    assert not (tmp_path / "v1").exists()


def test_a_hostile_archive_is_refused_before_its_manifest_is_read(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.zip", plain_zip({**GOOD, "../x": b"", "plugin.json": b"broken"}))
    with pytest.raises(BundleRejected):
        read_manifest(archive)
