"""From an uploaded zip to a directory a host can import: validate, unpack once, compile.

A bundle is a zip with plugin.json or plugin.toml, the plugin's code and vendor/ at its root. Everything about it is
hostile until shown otherwise. All functions block: call them in a thread. Neighbours: hotswap.runtime.archive reads the
zip, hotswap.runtime.build makes one, hotswap.runtime's launcher puts the directory and its vendor/ on sys.path.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from packaging.utils import canonicalize_name
from pydantic import ValidationError

from hotswap.domain.base import Model
from hotswap.domain.errors import BundleRejected, FieldFault, ManifestInvalid
from hotswap.domain.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from hotswap.runtime.archive import DEFAULT_LIMITS, StrictArchive, UnpackLimits
from hotswap.runtime.bytecode import COMPILE_TIMEOUT, compile_bundle

__all__ = [
    "DEFAULT_LIMITS",
    "VENDOR",
    "UnpackLimits",
    "digest_file",
    "read_manifest",
    "sweep_unfinished",
    "unpack",
    "unpacked_manifest",
    "validate_bundle",
    "vendored_versions",
]

VENDOR = "vendor"
"""Directory of third-party libraries inside a bundle."""

MARKER = ".hotswap-unpacked.json"
_MANIFEST_NAMES = ("plugin.json", "plugin.toml")
_CHUNK = 1024 * 1024
_WORK_SUFFIX = ".unpacking"
_PUBLISH_ATTEMPTS = 5


class _Marker(Model):
    """Written last into an unpacked bundle: it is complete, and made of exactly this archive."""

    archive_digest: str
    manifest: Manifest


def digest_file(path: Path) -> str:
    """SHA-256 of a file, 64 lower-case hex digits; memory stays at 1 MiB whatever its size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(archive: Path, limits: UnpackLimits = DEFAULT_LIMITS) -> Manifest:
    """The manifest inside an archive whose structure and names are checked, without unpacking the rest.

    Raises BundleRejected for a broken or hostile archive, ManifestInvalid for a missing, doubled or wrong manifest.
    """
    with StrictArchive(archive, limits) as opened:
        return _manifest_of(opened)


def validate_bundle(archive: Path, limits: UnpackLimits = DEFAULT_LIMITS) -> Manifest:
    """All that `unpack` would find wrong, with every byte decompressed and checked, and nothing written.

    Raises BundleRejected or ManifestInvalid; repeats cannot help.
    """
    with StrictArchive(archive, limits) as opened:
        manifest = _manifest_of(opened)
        _check_entry_point(opened, manifest)
        for entry in opened.entries:
            for _ in opened.read(entry):
                pass
        return manifest


def vendored_versions(archive: Path, limits: UnpackLimits = DEFAULT_LIMITS) -> dict[str, str]:
    """Versions of the libraries under vendor/ by normalised name, as their dist-info directories are called.

    Raises BundleRejected. A directory that names no version is left out.
    """
    found: dict[str, str] = {}
    with StrictArchive(archive, limits) as opened:
        for entry in opened.entries:
            top, _, rest = entry.name.partition("/")
            directory, _, file = rest.partition("/")
            name, _, version = directory.removesuffix(".dist-info").partition("-")
            if top == VENDOR and directory.endswith(".dist-info") and file and version:
                found[canonicalize_name(name)] = version
    return found


def unpack(
    archive: Path,
    target: Path,
    limits: UnpackLimits = DEFAULT_LIMITS,
    compile_timeout: timedelta = COMPILE_TIMEOUT,
) -> Manifest:
    """Make `target` the unpacked, compiled bundle and return its manifest. Safe to repeat and to run twice at once.

    The work happens in a fresh sibling directory that is renamed into place complete, so `target` is either absent or
    whole. Files become 0644 and directories 0755, whatever the archive or the umask say. A `target` that was already
    unpacked from the same bytes is left as it is; a directory there without the marker of completion is replaced.

    Raises BundleRejected or ManifestInvalid (a repeat cannot help), also when `target` was unpacked from other bytes;
    OSError when the disk refuses (a repeat may help). Whatever is raised, nothing is left behind.
    """
    with StrictArchive(archive, limits) as opened:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise FileExistsError(errno.EEXIST, "is in the way of a bundle's directory", str(target))
        before = _read_marker(target)
        if before is not None:
            return _agreed(before, _digest_of(opened), target)
        manifest = _manifest_of(opened)
        _check_entry_point(opened, manifest)
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", suffix=_WORK_SUFFIX, dir=target.parent))
        try:
            _write_tree(opened, work)
            compile_bundle(work, compile_timeout)
            marker = _Marker(archive_digest=_digest_of(opened), manifest=manifest)
            _write_file(work / MARKER, [marker.model_dump_json().encode()])
            work.chmod(0o755)
            return _publish(work, target, marker)
        finally:
            # Gone already when it was published. A tree of our own making: nothing in it can resist.
            shutil.rmtree(work, ignore_errors=True)


def unpacked_manifest(target: Path) -> Manifest | None:
    """The manifest of a directory that `unpack` completed, else None. The archive is not needed."""
    marker = _read_marker(target)
    return marker.manifest if marker else None


def sweep_unfinished(parent: Path, older_than: timedelta = timedelta(hours=1)) -> int:
    """Remove what processes killed in the middle of `unpack` left in `parent`; returns how many directories."""
    horizon = time.time() - older_than.total_seconds()
    swept = 0
    for work in parent.glob(f".*{_WORK_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            if work.lstat().st_mtime < horizon:
                shutil.rmtree(work)
                swept += 1
    return swept


def _manifest_of(archive: StrictArchive) -> Manifest:
    found = [entry for entry in archive.entries if entry.name in _MANIFEST_NAMES and not entry.is_dir]
    if not found:
        raise ManifestInvalid(
            "the archive has no manifest",
            [FieldFault("plugin.json", "put plugin.json or plugin.toml at the zip's root")],
        )
    if len(found) > 1:
        raise ManifestInvalid(
            "the archive has two manifests", [FieldFault("plugin.toml", "keep either plugin.json or plugin.toml")]
        )
    entry = found[0]
    if entry.size_bytes > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(
            f"{entry.name} is over {MAX_MANIFEST_BYTES} bytes", [FieldFault(entry.name, "make it shorter")]
        )
    return parse_manifest(b"".join(archive.read(entry)), entry.name)


def _check_entry_point(archive: StrictArchive, manifest: Manifest) -> None:
    module = manifest.entry_point.partition(":")[0].replace(".", "/")
    files = {entry.name for entry in archive.entries if not entry.is_dir}
    wanted = (f"{module}.py", f"{module}/__init__.py")
    if not any(name in files or f"{VENDOR}/{name}" in files for name in wanted):
        raise ManifestInvalid(
            f"entryPoint '{manifest.entry_point}' names a module that the archive does not hold",
            [FieldFault("entryPoint", f"the archive holds neither {wanted[0]} nor {wanted[1]}")],
        )


def _write_tree(archive: StrictArchive, root: Path) -> None:
    made: set[Path] = {root}
    for entry in archive.entries:
        place = root / entry.name
        _make_directory(place if entry.is_dir else place.parent, made)
        if not entry.is_dir:
            _write_file(place, archive.read(entry))


def _make_directory(directory: Path, made: set[Path]) -> None:
    if directory in made:
        return
    _make_directory(directory.parent, made)
    directory.mkdir()
    directory.chmod(0o755)
    made.add(directory)


def _write_file(place: Path, chunks: Iterable[bytes]) -> None:
    """Create `place` (it must not exist, links included) with mode 0644."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        os.fchmod(descriptor, 0o644)


def _publish(work: Path, target: Path, marker: _Marker) -> Manifest:
    """Rename the finished tree into place. Who comes second finds the first one's and uses it."""
    for _ in range(_PUBLISH_ATTEMPTS):
        try:
            work.rename(target)
        except OSError as fault:
            if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return marker.manifest
        before = _read_marker(target)
        if before is not None:
            return _agreed(before, marker.archive_digest, target)
        # A power cut can leave a renamed tree with an empty marker: it was never whole, so it is replaced.
        with contextlib.suppress(FileNotFoundError):
            aside = work / ".incomplete"
            target.rename(aside)
            shutil.rmtree(aside)
    raise OSError(errno.EBUSY, "others keep changing it", str(target))


def _agreed(before: _Marker, digest: str, target: Path) -> Manifest:
    if before.archive_digest != digest:
        raise BundleRejected(
            f"{target} was unpacked from another archive ({before.archive_digest[:12]}…, not {digest[:12]}…); "
            "give every digest its own directory"
        )
    return before.manifest


def _read_marker(target: Path) -> _Marker | None:
    try:
        return _Marker.model_validate_json((target / MARKER).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _digest_of(archive: StrictArchive) -> str:
    digest = hashlib.sha256()
    for chunk in archive.raw_chunks():
        digest.update(chunk)
    return digest.hexdigest()
