"""The same router on uvloop, the loop of production: its transports differ (writing to a closed one raises)."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import uvloop

from tests.http.router_client import QUICK, Bench, Wire, bench, request
from tests.http.router_contract import MALFORMED
from tests.unit.node_fakes import order


class Elsewhere:
    """A bench in a thread of its own, on uvloop."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()))
        self.bench: Bench

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with bench() as self.bench:
            await self.bench.supervisor.stage(order(1, "1.0.0"))
            self._started.set()
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    elsewhere = Elsewhere()
    elsewhere.start()
    made = Wire(*await asyncio.open_connection("127.0.0.1", elsewhere.bench.port))
    yield made
    await made.close()
    elsewhere.stop()


async def test_pipelined_requests_and_keep_alive(wire: Wire) -> None:
    await wire.send(*(request(body=b'{"n":%d}' % n) for n in range(100)), request("boom"))
    for n in range(100):
        assert (await wire.receive()).json()["echo"] == {"n": n}
    assert (await wire.receive()).code == "PLUGIN_ERROR"


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_requests_end_the_connection(wire: Wire, name: str) -> None:
    await wire.send(request(), MALFORMED[name])
    assert (await wire.receive()).status == 200
    assert (await wire.receive()).status == 400
    assert await wire.ended()


async def test_oversized_bodies_and_slow_clients(wire: Wire) -> None:
    await wire.send(request(body=b"x" * (QUICK.body_bytes + 1)))
    assert (await wire.receive()).status == 413
    assert await wire.ended()


async def test_slow_clients_are_cut(wire: Wire) -> None:
    await wire.send(request()[:-1])
    assert (await wire.receive()).status == 408
    assert await wire.ended()


async def test_a_client_that_resets_in_the_middle_harms_nobody(wire: Wire) -> None:
    await wire.send(*(request() for _ in range(50)), request("hold"))
    wire.reset()
    # The fixture's end checks that the router still stops in order.
