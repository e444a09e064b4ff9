"""A thin asynchronous client of the HotSwap api: what the commands, the demo and the end-to-end tests speak through.

Neighbours: hotswap.cli.connection says where, hotswap.cli.follow watches a deployment, hotswap.cli.faults are the errors.
"""

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast
from urllib.parse import quote

import httpx

from hotswap.cli.connection import Connection
from hotswap.cli.faults import ApiError, ApiUnreachable, UsageFault

API = "/api/v1"
ATTEMPTS = 4
"""Tries of one call when the connection breaks: about 1.5 s in all, longer than an api takes to be replaced."""

Json = dict[str, Any]


class ReadProgress:
    """A binary file that tells how far it was read: what httpx streams an upload from."""

    def __init__(self, file: IO[bytes], told: Callable[[int], None]) -> None:
        self._file = file
        self._told = told

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._told(self._file.tell())
        return chunk


class ApiClient:
    """Use as `async with ApiClient(connection) as api`. Every method raises ApiError (the api said no) or ApiUnreachable.

    Calls that a repeat cannot harm (reads, and writes under an Idempotency-Key) are repeated when the connection breaks.
    """

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.connection = connection
        self._transport = transport
        self._http = self._open()

    def _open(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.connection.token}"} if self.connection.token else {}
        return httpx.AsyncClient(
            base_url=self.connection.url,
            headers=headers,
            timeout=httpx.Timeout(30.0, connect=3.0),
            transport=self._transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def _stay_logged_in(self) -> None:
        """Renew a profile's token that is about to expire. An api that does not answer is told by the call itself."""
        profile, profiles = self.connection.profile, self.connection.profiles
        if profile is None or profiles is None or not profile.is_due(datetime.now(UTC)):
            return
        try:
            renewed = await asyncio.to_thread(profiles.renew, profile)
        except httpx.TransportError:
            return
        self.connection = Connection.by(renewed, profiles)
        self._http.headers["Authorization"] = f"Bearer {renewed.token}"

    async def refind(self) -> None:
        """Look again where the api is (a restarted part may have moved) and connect there."""
        found = self.connection.again()
        if found.url != self.connection.url:
            await self._http.aclose()
            self.connection = found
            self._http = self._open()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        key: str | None = None,
        repeatable: bool = False,
        timeout: float | None = None,
        **query: Any,
    ) -> Any:
        """One call; the answer's JSON, or None for an empty one. `key` is the Idempotency-Key, `timeout` in seconds."""
        headers = {"Idempotency-Key": key} if key else {}
        params = {name: value for name, value in query.items() if value is not None}

        async def send() -> httpx.Response:
            patience = httpx.USE_CLIENT_DEFAULT if timeout is None else timeout
            return await self._http.request(method, path, json=body, headers=headers, params=params, timeout=patience)

        return _answer(await self._sent(send, repeatable=repeatable or method == "GET" or key is not None))

    async def _sent(self, send: Callable[[], Any], *, repeatable: bool) -> httpx.Response:
        await self._stay_logged_in()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return cast(httpx.Response, await send())
            except httpx.TransportError as fault:
                safe = repeatable or isinstance(fault, httpx.ConnectError | httpx.ConnectTimeout)
                if attempt == ATTEMPTS or not safe:
                    raise ApiUnreachable(self.connection.url, _why(fault)) from None
                await asyncio.sleep(0.2 * 2 ** (attempt - 1))
                await self.refind()
        raise AssertionError("unreachable: the loop returns or raises")

    # -- health ---------------------------------------------------------------------------------------------------

    async def health(self) -> Any:
        return await self.call("GET", "/health")

    async def ready(self) -> tuple[bool, Any]:
        """Whether everything behind the api answers, and what it says of each part."""
        response = await self._sent(lambda: self._http.get("/ready"), repeatable=True)
        try:
            return response.is_success, response.json()
        except ValueError:
            return response.is_success, {"status": response.text[:200]}

    # -- registry -------------------------------------------------------------------------------------------------

    async def plugins(self, **query: Any) -> Json:
        return _object(await self.call("GET", f"{API}/plugins", **query))

    async def plugin(self, name: str) -> Json:
        return _object(await self.call("GET", f"{API}/plugins/{_part(name)}"))

    async def register_plugin(self, body: Json) -> Json:
        return _object(await self.call("POST", f"{API}/plugins", body=body, key=f"register-{uuid.uuid4().hex}"))

    async def versions(self, plugin: str, **query: Any) -> Json:
        return _object(await self.call("GET", f"{API}/plugins/{_part(plugin)}/versions", **query))

    async def version(self, plugin: str, version: str) -> Json:
        return _object(await self.call("GET", f"{API}/plugins/{_part(plugin)}/versions/{_part(version)}"))

    async def upload(
        self,
        plugin: str,
        version: str,
        archive: Path,
        fields: Mapping[str, str],
        told: Callable[[int], None] = lambda read: None,
    ) -> Json:
        """Upload a version, streamed from disk, with the form's other fields. `told` hears the bytes read so far."""
        path = f"{API}/plugins/{_part(plugin)}/versions"
        data = {"version": version, **fields}
        key = f"upload-{uuid.uuid4().hex}"

        async def send() -> httpx.Response:
            with archive.open("rb") as file:
                binary = (archive.name, cast(IO[bytes], ReadProgress(file, told)), "application/zip")
                return await self._http.post(
                    path, data=data, files={"binary": binary}, headers={"Idempotency-Key": key}, timeout=300.0
                )

        return _object(_answer(await self._sent(send, repeatable=True)))

    async def download(self, plugin: str, version: str, target: Path, told: Callable[[int], None]) -> str:
        """Stream a version's zip into `target` (created whole or not at all); returns its SHA-256."""
        path = f"{API}/plugins/{_part(plugin)}/versions/{_part(version)}/download"
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        digest = hashlib.sha256()
        try:
            # The api checks the whole artifact before it sends the first byte; of a store that is in trouble it tells in 25 s.
            patience = httpx.Timeout(300.0, connect=3.0)
            async with self._http.stream("GET", path, timeout=patience) as response:
                if not response.is_success:
                    await response.aread()
                    _answer(response)
                with partial.open("xb") as file:
                    async for chunk in response.aiter_bytes():
                        digest.update(chunk)
                        file.write(chunk)
                        told(response.num_bytes_downloaded)
            partial.replace(target)
        except httpx.TransportError as fault:
            raise ApiUnreachable(self.connection.url, _why(fault)) from None
        finally:
            partial.unlink(missing_ok=True)
        return digest.hexdigest()

    @asynccontextmanager
    async def lines(self, path: str, **query: Any) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of an answer as they come. A connection that breaks in the middle is ApiUnreachable: nothing is repeated."""
        params = {name: value for name, value in query.items() if value is not None}
        try:
            async with self._http.stream("GET", path, params=params) as response:
                if not response.is_success:
                    await response.aread()
                    _answer(response)
                yield response.aiter_lines()
        except httpx.TransportError as fault:
            raise ApiUnreachable(self.connection.url, _why(fault)) from None

    # -- deployments ----------------------------------------------------------------------------------------------

    async def deploy(self, body: Json, key: str | None = None) -> Json:
        """Start a deployment; the answer is the deployment's JSON. A broken connection is repeated under one key."""
        return _object(
            await self.call("POST", f"{API}/deployments", body=body, key=key or f"deploy-{uuid.uuid4().hex}")
        )

    async def plan(self, body: Json) -> Json:
        """What that request would do; nothing is started."""
        return _object(await self.call("POST", f"{API}/deployments/plan", body=body, repeatable=True))

    async def deployment(self, deployment_id: str) -> Json:
        return _object(await self.call("GET", f"{API}/deployments/{_part(deployment_id)}"))

    async def deployments(self, **query: Any) -> Json:
        return _object(await self.call("GET", f"{API}/deployments", **query))

    async def command(self, deployment_id: str, verb: str, reason: str = "", plan_hash: str = "") -> Json:
        """approve, reject, pause, resume, promote, promote-full, abort, rollback or retry."""
        body: Json = {}
        if reason:
            body["reason"] = reason
        if plan_hash:
            body["planHash"] = plan_hash
        path = f"{API}/deployments/{_part(deployment_id)}/{verb}"
        return _object(await self.call("POST", path, body=body, key=f"{verb}-{uuid.uuid4().hex}"))

    async def nodes(self, environment: str | None = None) -> Json:
        return _object(await self.call("GET", f"{API}/nodes", environment=environment))

    async def environments(self) -> Json:
        return _object(await self.call("GET", f"{API}/environments"))

    async def drift(self, environment: str) -> Json:
        """What the nodes run now, compared with what the routes say."""
        return _object(await self.call("GET", f"{API}/environments/{_part(environment)}/drift"))

    async def repair_drift(self, environment: str, reason: str = "") -> Json:
        """Repeated when the connection breaks: a node that is right is left alone."""
        body: Json = {"reason": reason} if reason else {}
        path = f"{API}/environments/{_part(environment)}/drift/repair"
        return _object(await self.call("POST", path, body=body, repeatable=True))

    async def held_versions(self, environment: str, **query: Any) -> Json:
        return _object(await self.call("GET", f"{API}/environments/{_part(environment)}/held-versions", **query))

    @asynccontextmanager
    async def event_stream(self, deployment_id: str, after: int) -> AsyncIterator[httpx.Response]:
        """The raw SSE response of a deployment's events above sequence `after`. Raises httpx.TransportError too."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after:
            headers["Last-Event-ID"] = str(after)
        # 45 s: three times the heartbeat of the stream; silence longer than that is a dead connection.
        timeout = httpx.Timeout(45.0, connect=3.0)
        path = f"{API}/deployments/{_part(deployment_id)}/events"
        async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                await response.aread()
                _answer(response)
            yield response

    async def resolve(self, name: str) -> str:
        """A deployment's full id from itself, a unique prefix of it, or PLUGIN@ENVIRONMENT (the newest there).

        Raises UsageFault naming the candidates when it fits none or several.
        """
        if "@" in name:
            plugin, _, environment = name.partition("@")
            page = await self.deployments(pluginId=plugin, environment=_environment(environment), limit=1)
            if not page["items"]:
                raise UsageFault(f"{plugin} was never deployed to {environment}", "`hotswap list` shows what was")
            return str(page["items"][0]["deploymentId"])
        if len(name.removeprefix("dep_")) == 32:
            return name
        prefix = name if name.startswith("dep_") else f"dep_{name}"
        found = [item async for item in self._every_deployment() if item.startswith(prefix)]
        if not found:
            raise UsageFault(f"no deployment begins with '{name}'", "`hotswap list` shows them")
        if len(found) > 1:
            raise UsageFault(
                f"'{name}' fits {len(found)} deployments: {', '.join(found[:5])}", "write more digits of it"
            )
        return found[0]

    async def _every_deployment(self, most: int = 1000) -> AsyncIterator[str]:
        """Ids, newest first, the `most` newest: an abbreviation is for what one has just seen."""
        offset = 0
        while offset < most:
            page = await self.deployments(limit=100, offset=offset)
            for item in page["items"]:
                yield str(item["deploymentId"])
            if not page.get("hasMore"):
                return
            offset += 100


def environment_name(name: str) -> str:
    """`staging` -> `Staging`. Raises UsageFault naming the known ones."""
    return _environment(name)


def _environment(name: str) -> str:
    known = ("Development", "QA", "Staging", "Production")
    for one in known:
        if one.lower() == name.lower():
            return one
    raise UsageFault(f"'{name}' is not an environment", f"known: {', '.join(known)}")


def _part(text: str) -> str:
    """One path segment: nothing typed can reach another path."""
    return quote(text, safe="")


def _why(fault: httpx.TransportError) -> str:
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__


def _object(answer: Any) -> Json:
    if not isinstance(answer, dict):
        raise ApiError(200, "BAD_ANSWER", f"the api answered {type(answer).__name__} where an object was expected")
    return answer


def _answer(response: httpx.Response) -> Any:
    """The JSON of a good answer. Raises ApiError with everything the envelope says."""
    try:
        document: Any = response.json() if response.content else None
    except ValueError:
        document = None
        if response.is_success:
            raise ApiError(
                response.status_code, "BAD_ANSWER", f"{response.request.url} does not speak JSON: is it a HotSwap api?"
            ) from None
    if response.is_success:
        return document
    raise _refusal(response, document)


def _refusal(response: httpx.Response, document: Any) -> ApiError:
    envelope: Mapping[str, Any] = {}
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        envelope = document["error"]
    details = envelope.get("details")
    faults = [
        (str(item.get("field", "")), str(item.get("message", "")))
        for item in (details if isinstance(details, list) else [])
        if isinstance(item, dict)
    ]
    return ApiError(
        response.status_code,
        str(envelope.get("code") or f"HTTP_{response.status_code}"),
        str(envelope.get("message") or f"{response.status_code} {response.reason_phrase}: {response.text[:200]}"),
        faults,
        str(envelope.get("traceId") or ""),
        response.headers.get("Retry-After", "") if response.status_code == 429 else "",
    )
