"""An object store that takes connections and never says a word: whoever waits for it is told so before their own patience ends."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3
from pydantic import SecretStr

from api.services.store_patience import PATIENCE_SECONDS
from hotswap.adapters import minio_artifacts
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.config import MinioSettings
from tests.http.bundles import bundle
from tests.http.site import API, Site, error_of
from tests.unit.node_fakes import eventually

VERSIONS = f"{API}/plugins/greeter/versions"


class Listener:
    """Accepts, reads, and never answers, until it hangs up. `asked`: how many requests came, each on a connection of its own."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.asked = 0
        self.gone = False

    def hang_up(self) -> None:
        self.gone = True
        for writer in self.writers:
            writer.transport.abort()

    async def swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        if self.gone:
            writer.transport.abort()
        while received := await reader.read(65536):
            self.asked += received.count(b" HTTP/1.1\r\n")


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def hung(listener: Listener) -> AsyncIterator[MinioArtifactStore]:

    server = await asyncio.start_server(listener.swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    secret = SecretStr("secret-key")
    store = MinioArtifactStore(MinioSettings(endpoint=f"127.0.0.1:{port}", access_key=secret, secret_key=secret))
    yield store
    server.close()
    listener.hang_up()
    await store.close()


@pytest.fixture
async def shipped(site: Site) -> Site:
    await site.ship("greeter")
    return site


async def refused(site: Site, upload: bool) -> str:
    if upload:
        binary = {"binary": ("plugin.zip", bundle("greeter", "1.1.0"), "application/zip")}
        answer = await site.admin.post(VERSIONS, data={"version": "1.1.0"}, files=binary)
    else:
        answer = await site.viewer.get(f"{VERSIONS}/1.0.0/download")
    assert int(answer.headers["Retry-After"]) > 0
    message: str = error_of(answer, 503, "SERVICE_UNAVAILABLE")["message"]
    assert site.leftovers() == []
    assert (await site.admin.get(VERSIONS)).json()["total"] == 1
    return message


@pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])
async def test_a_silent_store_is_given_up_after_one_patience_and_not_three(
    shipped: Site, hung: MinioArtifactStore, listener: Listener, upload: bool
) -> None:
    hung._pool.connection_pool_kw["timeout"] = urllib3.Timeout(connect=2.0, read=1.0)
    shipped.container.versions._artifacts = hung
    message = await refused(shipped, upload)
    assert "the object store at 127.0.0.1:" in message
    assert "does not answer: ReadTimeoutError" in message
    assert "bring it back, then try again" in message
    assert listener.asked == 1


@pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])
async def test_whatever_the_store_does_a_client_is_told_before_it_gives_up(
    shipped: Site, hung: MinioArtifactStore, upload: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.services.store_patience.PATIENCE_SECONDS", 0.5)
    shipped.container.versions._artifacts = hung
    message = await refused(shipped, upload)
    what = "take greeter 1.1.0" if upload else "give greeter 1.0.0"
    assert message.startswith(f"the object store did not {what} within")
    assert "hotswap doctor" in message


async def test_many_that_wait_for_a_hung_store_hold_up_nobody_else(
    shipped: Site, hung: MinioArtifactStore, listener: Listener
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    shipped.container.versions._artifacts = hung
    downloads = [asyncio.create_task(shipped.viewer.get(f"{VERSIONS}/1.0.0/download")) for _ in range(50)]
    await eventually(lambda: listener.asked >= 4)
    work = asyncio.create_task(asyncio.to_thread(lambda: "done"))
    await asyncio.wait({work, *downloads}, return_when=asyncio.FIRST_COMPLETED)
    assert (work.done(), [one for one in downloads if one.done()]) == (True, [])
    listener.hang_up()
    assert {(await one).status_code for one in downloads} == {503}


def test_each_patience_ends_before_that_of_who_waits_for_it() -> None:
    read = minio_artifacts._TIMEOUT.read_timeout
    assert isinstance(read, float)
    assert read < PATIENCE_SECONDS < 30
