"""Small plugin zips for the facade's tests, right and wrong ones."""

import hashlib
import io
import json
import zipfile
from typing import Any

SOURCE = "class Plugin:\n    def greet(self, parameters, context):\n        return {'hello': parameters.get('name')}\n"


def manifest(name: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "entryPoint": "greeter:Plugin",
        "methods": [{"name": "greet"}],
        **more,
    }


def bundle(name: str, version: str = "1.0.0", padding: int = 0, **more: Any) -> bytes:
    """A zip that hotswap.runtime.bundle accepts, the same bytes every time. `padding` adds incompressible ones."""
    noise = b"".join(hashlib.sha256(str(index).encode()).digest() for index in range(padding // 32 + 1))
    files = {"plugin.json": json.dumps(manifest(name, version, **more)).encode(), "greeter.py": SOURCE.encode()}
    if padding:
        files["noise.bin"] = noise[:padding]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, date_time=(2026, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
