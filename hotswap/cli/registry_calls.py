"""What the commands about versions ask of the api: moves, signatures, presigned uploads, dependencies, retention.

Functions over hotswap.cli.client.ApiClient; each raises what it raises.
"""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import httpx

from hotswap.cli.client import API, ApiClient, Json, ReadProgress
from hotswap.cli.faults import ApiError, ApiUnreachable


def version_path(plugin: str, version: str) -> str:
    return f"{API}/plugins/{quote(plugin, safe='')}/versions/{quote(version, safe='')}"


def _plugin_path(plugin: str) -> str:
    return f"{API}/plugins/{quote(plugin, safe='')}"


async def move(api: ApiClient, plugin: str, version: str, name: str, reason: str = "") -> Json:
    """`name`: submit, approve, deprecate, reinstate or archive."""
    body = {"reason": reason} if reason else None
    key = f"{name}-{uuid.uuid4().hex}"
    answer: Json = await api.call("POST", f"{version_path(plugin, version)}/{name}", body=body, key=key)
    return answer


async def advise(api: ApiClient, plugin: str, name: str, reason: str) -> Json:
    """`name`: deprecate or reinstate, of the plugin itself."""
    key = f"{name}-{uuid.uuid4().hex}"
    path = f"{_plugin_path(plugin)}/{name}"
    answer: Json = await api.call("POST", path, body={"reason": reason}, key=key)
    return answer


async def sign(api: ApiClient, plugin: str, version: str, signature: Json) -> Json:
    path = f"{version_path(plugin, version)}/sign"
    answer: Json = await api.call("POST", path, body=signature, repeatable=True)
    return answer


async def adoption(api: ApiClient, plugin: str, version: str) -> Json:
    answer: Json = await api.call("GET", f"{version_path(plugin, version)}/adoption")
    return answer


async def dependencies(api: ApiClient, plugin: str, version: str | None, environment: str | None) -> Json:
    path = f"{_plugin_path(plugin)}/dependencies"
    answer: Json = await api.call("GET", path, version=version, environment=environment)
    return answer


async def validate(api: ApiClient, plugin: str, version: str, environment: str) -> Json:
    path = f"{_plugin_path(plugin)}/validate-dependencies"
    body = {"version": version, "environment": environment}
    answer: Json = await api.call("POST", path, body=body, repeatable=True)
    return answer


async def publisher_keys(api: ApiClient, **query: Any) -> Json:
    answer: Json = await api.call("GET", f"{API}/publisher-keys", **query)
    return answer


async def register_key(api: ApiClient, body: Json) -> Json:
    answer: Json = await api.call("POST", f"{API}/publisher-keys", body=body)
    return answer


async def revoke_key(api: ApiClient, key_id: str, body: Json) -> Json:
    path = f"{API}/publisher-keys/{quote(key_id, safe='')}/revoke"
    answer: Json = await api.call("POST", path, body=body, repeatable=True)
    return answer


async def retention(api: ApiClient, apply: bool) -> Json:
    method, path = ("POST", f"{API}/retention/sweep") if apply else ("GET", f"{API}/retention")
    answer: Json = await api.call(method, path, repeatable=True)
    return answer


async def upload_past(
    api: ApiClient, plugin: str, version: str, archive: Path, fields: Json, told: Callable[[int], None]
) -> Json:
    """Send an archive that the api does not take itself to the object store, and have it judged there."""
    path = f"{_plugin_path(plugin)}/versions"
    size_bytes = (await asyncio.to_thread(archive.stat)).st_size
    body = {"version": version, "digest": fields["digest"], "sizeBytes": size_bytes}
    place: Json = await api.call("POST", f"{path}/presigned", body=body)
    await _send(place, archive, told)
    rest = {name: fields[name] for name in ("releaseNotes", "manifest", "signature", "keyId") if fields.get(name)}
    if fields.get("draft"):
        rest["draft"] = True
    key = f"complete-{uuid.uuid4().hex}"
    # Judging half a gigabyte takes longer than other calls.
    answer: Json = await api.call(
        "POST", f"{path}/complete", body={"uploadId": place["uploadId"], **rest}, key=key, timeout=300.0
    )
    return answer


async def _send(place: Json, archive: Path, told: Callable[[int], None]) -> None:
    """To the object store, with its own address and without our token."""
    try:
        async with httpx.AsyncClient(timeout=httpx.Timeout(300.0, connect=5.0), trust_env=False) as http:
            with archive.open("rb") as file:
                binary = (archive.name, cast(IO[bytes], ReadProgress(file, told)), "application/zip")
                answer = await http.post(place["url"], data=place["fields"], files={"file": binary})
    except httpx.TransportError as fault:
        raise ApiUnreachable(str(place["url"]), f"{type(fault).__name__}: {fault}") from None
    if not answer.is_success:
        raise ApiError(answer.status_code, "UPLOAD_REFUSED", f"the object store refused the file: {answer.text[:300]}")
