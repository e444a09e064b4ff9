"""One contract for every ArtifactStore: the MinIO adapter on a real S3 server, and its in-memory twin."""

import asyncio
import hashlib
import os
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from pydantic import SecretStr

from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.config import MinioSettings, Settings
from hotswap.domain.errors import ArtifactCorrupt, ArtifactMissing, ArtifactTooLarge, InvalidInput, Unavailable
from hotswap.domain.ids import artifact_key

MIB = 1024 * 1024


class Subject:
    """A store under test, and a way to change an object behind its back."""

    def __init__(self, store: Any, tamper: Callable[[str, bytes], Awaitable[None]]) -> None:
        self.store = store
        self.tamper = tamper


@pytest.fixture
def minio_settings(request: pytest.FixtureRequest) -> MinioSettings:
    settings: Settings = request.getfixturevalue("settings")
    return settings.minio.model_copy(update={"bucket": f"contract-{uuid.uuid4().hex[:12]}"})


@pytest.fixture(params=["memory", pytest.param("minio", marks=pytest.mark.stack)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryArtifactStore()

        async def change(key: str, content: bytes) -> None:
            memory.objects[key] = content

        yield Subject(memory, change)
        return
    settings: MinioSettings = request.getfixturevalue("minio_settings")
    store = MinioArtifactStore(settings)
    await store.ensure_bucket()
    client = raw_client(settings)

    async def tamper(key: str, content: bytes) -> None:
        await asyncio.to_thread(client.put_object, settings.bucket, key, BytesIO(content), len(content))

    yield Subject(store, tamper)
    await store.close()
    client._http.clear()


def raw_client(settings: MinioSettings) -> Minio:
    return Minio(
        settings.endpoint,
        access_key=settings.access_key.get_secret_value(),
        secret_key=settings.secret_key.get_secret_value(),
        secure=settings.tls,
    )


def artifact(tmp_path: Path, content: bytes | None = None) -> tuple[str, Path, str]:
    """Key, file and digest of a fresh artifact."""
    content = os.urandom(1000) if content is None else content
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / f"{digest[:8]}.zip"
    path.write_bytes(content)
    return artifact_key("shout", digest), path, digest


def left_behind(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


async def test_what_was_put_is_fetched_and_verified(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path)
    await subject.store.put(key, source, digest)
    await subject.store.fetch(key, tmp_path / "out.zip", digest, MIB)

    assert (tmp_path / "out.zip").read_bytes() == source.read_bytes()
    assert await subject.store.verify(key, digest, MIB) == 1000
    assert left_behind(tmp_path) == []


async def test_an_artifact_of_several_parts_survives_the_way(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path, os.urandom(MIB) * 34 + b"tail")
    await subject.store.put(key, source, digest)
    assert await subject.store.verify(key, digest, 64 * MIB) == 34 * MIB + 4


async def test_an_empty_artifact_is_stored_too(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path, b"")
    await subject.store.put(key, source, digest)
    assert await subject.store.verify(key, digest, MIB) == 0


async def test_putting_the_same_again_is_fine(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path)
    for _ in range(2):
        await subject.store.put(key, source, digest)
    await asyncio.gather(*(subject.store.put(key, source, digest) for _ in range(4)))
    assert await subject.store.verify(key, digest, MIB) == 1000


async def test_a_lying_digest_stores_nothing(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path)
    source.write_bytes(b"other bytes")
    with pytest.raises(ArtifactCorrupt, match=digest):
        await subject.store.put(key, source, digest)
    with pytest.raises(ArtifactMissing):
        await subject.store.verify(key, digest, MIB)


async def test_a_lying_digest_is_refused_also_when_the_key_is_there_already(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path)
    await subject.store.put(key, source, digest)
    source.write_bytes(os.urandom(1000))
    with pytest.raises(ArtifactCorrupt):
        await subject.store.put(key, source, digest)
    assert await subject.store.verify(key, digest, MIB) == 1000


async def test_a_missing_artifact_is_named(subject: Subject, tmp_path: Path) -> None:
    key, _, digest = artifact(tmp_path)
    with pytest.raises(ArtifactMissing, match=key):
        await subject.store.fetch(key, tmp_path / "out.zip", digest, MIB)
    with pytest.raises(ArtifactMissing, match=key):
        await subject.store.verify(key, digest, MIB)
    assert not (tmp_path / "out.zip").exists()
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("change", [lambda b: b"X" + b[1:], lambda b: b[:-1], lambda b: b + b"!", lambda b: b""])
async def test_bytes_changed_in_the_store_are_never_handed_out(
    subject: Subject, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    key, source, digest = artifact(tmp_path, b"A" * 5000)
    await subject.store.put(key, source, digest)
    await subject.tamper(key, change(b"A" * 5000))

    with pytest.raises(ArtifactCorrupt, match=digest):
        await subject.store.verify(key, digest, MIB)
    with pytest.raises(ArtifactCorrupt, match=digest):
        await subject.store.fetch(key, tmp_path / "out.zip", digest, MIB)
    assert not (tmp_path / "out.zip").exists()
    assert left_behind(tmp_path) == []


async def test_putting_again_mends_changed_bytes(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path, b"A" * 5000)
    await subject.store.put(key, source, digest)
    await subject.tamper(key, b"B" * 5000)
    await subject.store.put(key, source, digest)
    assert await subject.store.verify(key, digest, MIB) == 5000


async def test_a_failed_fetch_leaves_the_earlier_file(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path, b"A" * 5000)
    await subject.store.put(key, source, digest)
    await subject.tamper(key, b"B" * 5000)
    (tmp_path / "out.zip").write_bytes(b"earlier")
    with pytest.raises(ArtifactCorrupt):
        await subject.store.fetch(key, tmp_path / "out.zip", digest, MIB)
    assert (tmp_path / "out.zip").read_bytes() == b"earlier"


async def test_the_size_limit_is_exact(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path)
    await subject.store.put(key, source, digest)
    assert await subject.store.verify(key, digest, 1000) == 1000
    with pytest.raises(ArtifactTooLarge, match="999"):
        await subject.store.verify(key, digest, 999)
    with pytest.raises(ArtifactTooLarge, match="999"):
        await subject.store.fetch(key, tmp_path / "out.zip", digest, 999)
    assert not (tmp_path / "out.zip").exists()
    assert left_behind(tmp_path) == []


async def test_deleting_is_absolute(subject: Subject, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path)
    await subject.store.put(key, source, digest)
    for _ in range(2):
        await subject.store.delete(key)
    with pytest.raises(ArtifactMissing):
        await subject.store.verify(key, digest, MIB)


GOOD_DIGEST = hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    "key",
    [
        "",
        "artifacts",
        f"artifacts/shout/{GOOD_DIGEST}",
        f"artifacts//{GOOD_DIGEST}.zip",
        f"artifacts/../{GOOD_DIGEST}.zip",
        f"artifacts/Shout/{GOOD_DIGEST}.zip",
        f"artifacts/-shout/{GOOD_DIGEST}.zip",
        f"artifacts/{'a' * 64}/{GOOD_DIGEST}.zip",
        f"artifacts/shout/x/{GOOD_DIGEST}.zip",
        f"artifacts/shout/{GOOD_DIGEST.upper()}.zip",
        f"artifacts/shout/{GOOD_DIGEST[:-1]}.zip",
        f"artifacts/shout/{GOOD_DIGEST}.zip\n",
        f"/artifacts/shout/{GOOD_DIGEST}.zip",
    ],
)
async def test_only_content_addressed_keys_pass(subject: Subject, tmp_path: Path, key: str) -> None:
    source = tmp_path / "empty.zip"
    source.touch()
    with pytest.raises(InvalidInput, match="not an artifact key"):
        await subject.store.put(key, source, GOOD_DIGEST)
    with pytest.raises(InvalidInput, match="not an artifact key"):
        await subject.store.fetch(key, tmp_path / "out.zip", GOOD_DIGEST, MIB)
    with pytest.raises(InvalidInput, match="not an artifact key"):
        await subject.store.verify(key, GOOD_DIGEST, MIB)
    with pytest.raises(InvalidInput, match="not an artifact key"):
        await subject.store.delete(key)


async def test_a_key_of_another_digest_is_refused(subject: Subject, tmp_path: Path) -> None:
    key, _, _ = artifact(tmp_path)
    _, other, digest = artifact(tmp_path)
    with pytest.raises(InvalidInput, match="digest"):
        await subject.store.put(key, other, digest)


async def test_a_store_that_answers_is_ready_and_its_bucket_can_be_made_again(subject: Subject) -> None:
    await asyncio.gather(*(subject.store.ensure_bucket() for _ in range(3)))
    await subject.store.ready()


async def test_a_twin_switched_off_is_unavailable(tmp_path: Path) -> None:
    store = MemoryArtifactStore()
    store.reachable = False
    await all_calls_are_unavailable(store, tmp_path)


# -- only a real server can do these -----------------------------------------------------------------------------


async def all_calls_are_unavailable(store: Any, tmp_path: Path) -> None:
    key, source, digest = artifact(tmp_path)
    target = tmp_path / "out.zip"
    for call in (
        lambda: store.ready(),
        lambda: store.ensure_bucket(),
        lambda: store.put(key, source, digest),
        lambda: store.fetch(key, target, digest, MIB),
        lambda: store.verify(key, digest, MIB),
        lambda: store.delete(key),
    ):
        with pytest.raises(Unavailable):
            await call()
    assert not target.exists()
    assert left_behind(tmp_path) == []


def settings_of(endpoint: str) -> MinioSettings:
    return MinioSettings(
        endpoint=endpoint, access_key=SecretStr("access"), secret_key=SecretStr("secret-of-test"), bucket="plugins"
    )


async def test_a_server_that_is_gone_is_unavailable_soon(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        store = MinioArtifactStore(settings_of(f"127.0.0.1:{taken.getsockname()[1]}"))
        async with asyncio.timeout(20):
            await all_calls_are_unavailable(store, tmp_path)
        await store.close()


class _Scripted(BaseHTTPRequestHandler):
    """An S3 server that answers every object read with what the test put on the server object."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        self.rfile.read(length)
        self.server.calls += 1  # type: ignore[attr-defined]
        if "location" in self.path:
            body = b'<?xml version="1.0"?><LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'
            status, headers = 200, {"content-type": "application/xml"}
        else:
            status, headers, body = self.server.script  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def scripted() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Scripted)
    server.calls = 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [500, 503])
async def test_server_errors_are_unavailable_after_few_attempts(scripted: Any, status: int, tmp_path: Path) -> None:
    scripted.script = (status, {"retry-after": "3600"}, b"down")
    store = MinioArtifactStore(settings_of(f"127.0.0.1:{scripted.server_port}"))
    async with asyncio.timeout(20):
        await all_calls_are_unavailable(store, tmp_path)
    assert scripted.calls <= 6 * 2 * 3 + 6
    await store.close()


async def test_a_refusal_is_unavailable_and_says_why(scripted: Any) -> None:
    body = b"<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><Message>wrong key</Message></Error>"
    scripted.script = (403, {"content-type": "application/xml"}, body)
    store = MinioArtifactStore(settings_of(f"127.0.0.1:{scripted.server_port}"))
    with pytest.raises(Unavailable, match="SignatureDoesNotMatch"):
        await store.verify(artifact_key("shout", GOOD_DIGEST), GOOD_DIGEST, MIB)
    await store.close()


async def test_an_answer_cut_short_is_unavailable(scripted: Any, tmp_path: Path) -> None:
    scripted.script = (200, {"content-length": "100000"}, b"A" * 500)
    store = MinioArtifactStore(settings_of(f"127.0.0.1:{scripted.server_port}"))
    with pytest.raises(Unavailable):
        await store.fetch(artifact_key("shout", GOOD_DIGEST), tmp_path / "out.zip", GOOD_DIGEST, MIB)
    assert list(tmp_path.iterdir()) == []
    await store.close()


async def test_an_answer_of_unknown_length_is_stopped_at_the_limit(scripted: Any, tmp_path: Path) -> None:
    scripted.script = (200, {"content-length": None}, b"A" * (5 * MIB))
    store = MinioArtifactStore(settings_of(f"127.0.0.1:{scripted.server_port}"))
    with pytest.raises(ArtifactTooLarge):
        await store.fetch(artifact_key("shout", GOOD_DIGEST), tmp_path / "out.zip", GOOD_DIGEST, MIB)
    assert list(tmp_path.iterdir()) == []
    await store.close()


@pytest.mark.stack
async def test_the_bucket_is_versioned_and_an_equal_put_adds_no_version(
    minio_settings: MinioSettings, tmp_path: Path
) -> None:
    store, client = MinioArtifactStore(minio_settings), raw_client(minio_settings)
    await store.ensure_bucket()
    key, source, digest = artifact(tmp_path)
    await store.put(key, source, digest)
    await store.put(key, source, digest)

    assert (await asyncio.to_thread(client.get_bucket_versioning, minio_settings.bucket)).status == "Enabled"
    listed = await asyncio.to_thread(
        lambda: list(client.list_objects(minio_settings.bucket, recursive=True, include_version=True))
    )
    assert [item.object_name for item in listed] == [key]
    await store.close()
    client._http.clear()


@pytest.mark.stack
async def test_a_missing_bucket_is_unavailable_not_a_missing_artifact(
    minio_settings: MinioSettings, tmp_path: Path
) -> None:
    store = MinioArtifactStore(minio_settings)
    key, source, digest = artifact(tmp_path)
    with pytest.raises(Unavailable, match="does not exist"):
        await store.ready()
    with pytest.raises(Unavailable):
        await store.fetch(key, tmp_path / "out.zip", digest, MIB)
    with pytest.raises(Unavailable):
        await store.put(key, source, digest)
    await store.close()


@pytest.mark.stack
async def test_wrong_credentials_are_unavailable_and_never_shown(minio_settings: MinioSettings) -> None:
    wrong = minio_settings.model_copy(update={"secret_key": SecretStr("not-the-secret-of-this-server")})
    store = MinioArtifactStore(wrong)
    with pytest.raises(Unavailable) as refused:
        await store.ready()
    assert "not-the-secret" not in refused.value.message
    await store.close()
