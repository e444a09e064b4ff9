"""One contract for uploads past the facade: the MinIO adapter on a real S3 server, and its in-memory twin."""

import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.config import MinioSettings, Settings
from hotswap.domain.errors import ArtifactCorrupt, ArtifactMissing, InvalidInput
from hotswap.domain.ids import artifact_key, upload_key
from hotswap.ports.artifacts import PresignedPost
from tests.contract.test_artifacts_contract import raw_client

VALID = timedelta(minutes=5)
Send = Callable[[PresignedPost, bytes], Awaitable[int]]


class Subject:
    def __init__(self, store: Any, send: Send, versions: Callable[[str], int]) -> None:
        self.store, self.send, self.versions = store, send, versions


async def post(place: PresignedPost, content: bytes) -> int:
    """What curl -F does: the fields, then the file."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(place.url, data=place.fields, files={"file": ("plugin.zip", content)})
    return answer.status_code


@pytest.fixture(params=["memory", pytest.param("minio", marks=pytest.mark.stack)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryArtifactStore()

        async def put(place: PresignedPost, content: bytes) -> int:
            memory.objects[place.fields["key"]] = content
            return 204

        yield Subject(memory, put, lambda key: int(key in memory.objects))
        return
    settings: Settings = request.getfixturevalue("settings")
    own: MinioSettings = settings.minio.model_copy(update={"bucket": f"contract-{uuid.uuid4().hex[:12]}"})
    store = MinioArtifactStore(own)
    await store.ensure_bucket()
    client = raw_client(own)

    def versions(key: str) -> int:
        return len(list(client.list_objects(own.bucket, prefix=key, recursive=True, include_version=True)))

    yield Subject(store, post, versions)
    await store.close()
    client._http.clear()


def place() -> str:
    return upload_key("shout", f"upl_{uuid.uuid4().hex}")


async def test_what_was_sent_is_taken_once_its_digest_is_right(subject: Subject, tmp_path: Path) -> None:
    key, content = place(), b"a plugin"
    digest, target = hashlib.sha256(content).hexdigest(), tmp_path / "taken.zip"
    given = await subject.store.presign(key, len(content), VALID)
    with pytest.raises(ArtifactMissing, match="nothing was uploaded"):
        await subject.store.take(key, target, digest, len(content))
    assert await subject.send(given, content) in (200, 201, 204)
    with pytest.raises(ArtifactCorrupt):
        await subject.store.take(key, target, "0" * 64, len(content))
    assert not target.exists()
    await subject.store.take(key, target, digest, len(content))
    assert target.read_bytes() == content


async def test_a_purge_leaves_no_version_behind(subject: Subject, tmp_path: Path) -> None:
    key = place()
    for content in (b"one", b"two"):
        await subject.send(await subject.store.presign(key, 3, VALID), content)
    neighbour = key.replace(".zip", "0.zip")
    assert subject.versions(key) >= 1
    await subject.store.purge(key)
    await subject.store.purge(key)
    assert subject.versions(key) == 0
    file = tmp_path / "artifact.zip"
    file.write_bytes(b"kept")
    digest = hashlib.sha256(b"kept").hexdigest()
    await subject.store.put(artifact_key("shout", digest), file, digest)
    await subject.store.purge(artifact_key("shout", digest))
    assert subject.versions(artifact_key("shout", digest)) == 0
    with pytest.raises(InvalidInput):
        await subject.store.purge(neighbour)


@pytest.mark.parametrize("key", ["uploads/shout/x.zip", "artifacts/shout/" + "a" * 64 + ".zip", "uploads/../x.zip"])
async def test_only_upload_keys_are_presigned_and_taken(subject: Subject, tmp_path: Path, key: str) -> None:
    for attempt in (subject.store.presign(key, 1, VALID), subject.store.take(key, tmp_path / "x", "a" * 64, 1)):
        with pytest.raises(InvalidInput, match="not an upload key"):
            await attempt


@pytest.mark.parametrize("subject", [pytest.param("minio", marks=pytest.mark.stack)], indirect=True)
@pytest.mark.parametrize("change", ["longer", "shorter", "other key", "expired"])
async def test_the_server_holds_senders_to_the_conditions(subject: Subject, change: str) -> None:
    key, content = place(), b"12345"
    valid = timedelta(seconds=-5) if change == "expired" else VALID
    given = await subject.store.presign(key, len(content), valid)
    if change == "other key":
        given = PresignedPost(given.url, {**given.fields, "key": place()})
    sent = {"longer": b"123456", "shorter": b"1234"}.get(change, content)
    assert await subject.send(given, sent) in (400, 403)
    assert subject.versions(given.fields["key"]) == 0
