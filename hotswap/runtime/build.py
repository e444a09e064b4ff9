"""Packs a plugin's folder into the zip that gets uploaded: `hotswap plugin init` and `hotswap plugin build`.

The same input gives the same bytes, so the same digest, on any machine and as any user. Neighbours:
hotswap.runtime.vendoring fetches the libraries, hotswap.runtime.template writes a first plugin, hotswap.runtime.bundle
judges the result as the api will.
"""

import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from hotswap.domain.errors import FieldFault, InvalidInput, ManifestInvalid
from hotswap.domain.manifest import Manifest, parse_manifest
from hotswap.runtime.bundle import VENDOR, digest_file, validate_bundle
from hotswap.runtime.template import init_plugin
from hotswap.runtime.vendoring import PIP_TIMEOUT, REQUIREMENTS, read_pins, vendor

__all__ = ["BuildResult", "build_plugin", "init_plugin"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The zip format's first moment."""

_LEFT_OUT_ANYWHERE = {"__pycache__", "node_modules"}
_LEFT_OUT_AT_ROOT = {"tests", "test", "venv", "env", "build", "dist"}
_BYTECODE = {".pyc", ".pyo"}


@dataclass(frozen=True)
class BuildResult:
    """A finished bundle: where it is, its SHA-256, its size and what it says of itself."""

    path: Path
    digest: str
    size_bytes: int
    manifest: Manifest


def build_plugin(
    folder: Path, output: Path | None = None, *, compress: bool = False, pip_timeout: timedelta = PIP_TIMEOUT
) -> BuildResult:
    """Validate, vendor and pack `folder` into `output` (default: dist/<name>-<version>.zip inside it).

    Left out: hidden files, bytecode, tests, virtual environments, dist and build, zips at the root. `compress` makes a
    smaller file whose digest depends on this machine's zlib; without it the bytes are the same everywhere.

    Raises ManifestInvalid, InvalidInput (what to mend is named by file and line), BundleRejected when the result would be
    refused at upload. `output` appears whole or not at all.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder", [FieldFault("folder", "name the plugin's folder")])
    manifest = _read_manifest(folder)
    target = output or folder / "dist" / f"{manifest.name}-{manifest.version}.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hotswap-build-") as scratch:
        files = dict(_sources(folder, target))
        files.update(_vendored(folder, Path(scratch) / VENDOR, manifest, pip_timeout))
        work = _pack(files, target, zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED)
    try:
        validate_bundle(work)
        result = BuildResult(target, digest_file(work), work.stat().st_size, manifest)
        work.replace(target)
    finally:
        work.unlink(missing_ok=True)
    return result


def _read_manifest(folder: Path) -> Manifest:
    found = [folder / name for name in ("plugin.json", "plugin.toml") if (folder / name).is_file()]
    if len(found) != 1:
        fault = "has both plugin.json and plugin.toml; keep one" if found else "has no plugin.json or plugin.toml"
        raise ManifestInvalid(f"{folder} {fault}", [FieldFault("plugin.toml", "one manifest at the folder's root")])
    return parse_manifest(found[0].read_bytes(), found[0].name)


def _sources(folder: Path, target: Path) -> Iterator[tuple[str, Path]]:
    """The author's own files by their name in the bundle."""
    for path in _files(folder, folder):
        if path.resolve() != target.resolve() and not (path.parent == folder and path.suffix == ".zip"):
            yield path.relative_to(folder).as_posix(), path


def _files(directory: Path, root: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name in _LEFT_OUT_ANYWHERE or path.suffix in _BYTECODE:
            continue
        if directory == root and (path.name in _LEFT_OUT_AT_ROOT or path.suffix == ".egg-info"):
            continue
        kind = path.lstat().st_mode
        if stat.S_ISDIR(kind):
            yield from _files(path, root)
        elif stat.S_ISREG(kind):
            yield path
        else:
            # A link would pack whatever this machine has behind it.
            name = path.relative_to(root).as_posix()
            raise InvalidInput(
                f"{name} is a link or a special file", [FieldFault(name, "replace it by the file itself or remove it")]
            )


def _vendored(folder: Path, scratch: Path, manifest: Manifest, timeout: timedelta) -> dict[str, Path]:
    requirements = folder / REQUIREMENTS
    pins = read_pins(requirements) if requirements.is_file() else []
    if not pins:
        return {}
    if (folder / VENDOR).exists():
        raise InvalidInput(
            f"{folder / VENDOR} is in the way of the libraries that {REQUIREMENTS} names",
            [FieldFault(VENDOR, f"remove the directory (the build makes it), or empty {REQUIREMENTS}")],
        )
    vendor(pins, scratch, manifest.requires_python, timeout)
    return {f"{VENDOR}/{path.relative_to(scratch).as_posix()}": path for path in scratch.rglob("*") if path.is_file()}


def _pack(files: dict[str, Path], target: Path, method: int) -> Path:
    """Write the zip beside `target`: sorted names, one moment, one mode. Stored by default: zlib's output differs by build."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
    work = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", allowZip64=False) as archive:
            for entry_name in sorted(files, key=lambda item: item.encode()):
                entry = zipfile.ZipInfo(entry_name, _EPOCH)
                entry.create_system = 3
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                entry.compress_type = method
                archive.writestr(entry, files[entry_name].read_bytes(), compresslevel=9)
        work.chmod(0o644)
    except BaseException as fault:
        work.unlink(missing_ok=True)
        if isinstance(fault, zipfile.LargeZipFile | UnicodeEncodeError):
            raise InvalidInput(f"the folder cannot be packed: {fault}") from None
        raise
    return work
