"""Writes small wheels, honest and otherwise, for a directory that pip searches instead of an index."""

import base64
import hashlib
import zipfile
from pathlib import Path


def write_wheel(
    place: Path,
    name: str,
    version: str,
    files: dict[str, bytes] | None = None,
    *,
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
    wheel_tag: str | None = None,
    requires_python: str = ">=3.8",
    scripts: str = "",
    metadata_version: str | None = None,
) -> Path:
    """A wheel of `files` (default: one module). `wheel_tag` and `metadata_version` let it contradict its file name."""
    package = name.replace("-", "_")
    info = f"{package}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {metadata_version or version}"]
    metadata += [f"Requires-Python: {requires_python}", *(f"Requires-Dist: {item}" for item in requires)]
    metadata += [f"Provides-Extra: {extra}" for extra in ("plus",)]
    content = {
        **(files if files is not None else {f"{package}.py": f"VERSION = '{version}'\n".encode()}),
        f"{info}/METADATA": ("\n".join(metadata) + "\n").encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {wheel_tag or tag}\n".encode(),
    }
    if scripts:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}\n".encode()
    record = "".join(f"{path},{_record_hash(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = place / f"{package}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file_name, data in content.items():
            wheel.writestr(file_name, data)
    return path


def _record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
