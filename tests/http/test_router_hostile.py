"""The router against clients that break HTTP, send too much, too slowly, or all at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from hotswap.node.quotas import UNLIMITED, Meters
from tests.http.router_client import QUICK, Bench, bench, request
from tests.http.router_contract import *  # noqa: F403 - the tests that several routers pass too
from tests.http.router_contract import QUEUED
from tests.unit.node_fakes import eventually, order


@pytest.fixture
async def served() -> AsyncIterator[Bench]:
    limits = replace(QUICK, connections=1000, queued=QUEUED)
    async with bench(limits, meters=Meters(UNLIMITED, asyncio.get_running_loop().time)) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        yield made


def calls(made: Bench) -> int:
    return len(made.launcher.hosts[0].calls)


async def test_pipelined_requests_are_executed_and_answered_in_order(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(*(request(body=b'{"n":%d}' % n) for n in range(200)))
    for n in range(200):
        assert (await wire.receive()).json()["echo"] == {"n": n}
    assert [body for _, _, body in served.launcher.hosts[0].calls] == [b'{"n":%d}' % n for n in range(200)]


async def test_a_pipelined_request_does_not_begin_before_the_one_ahead_has_ended(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"), request("echo"), request("nothing"))
    await eventually(lambda: served.launcher.hosts[0].held)
    assert calls(served) == 1
    served.launcher.hosts[0].release()
    assert [(await wire.receive()).status for _ in range(3)] == [200, 200, 404]


async def test_quiet_before_a_request_is_not_held_against_it(served: Bench) -> None:
    wire = await served.wire()
    await asyncio.sleep(QUICK.read_seconds * 1.2)  # quiet, but not yet for the idle time
    whole = request()
    await wire.send(whole[:-1])
    await asyncio.sleep(QUICK.sweep_seconds * 2)  # looked at in the middle
    await wire.send(whole[-1:])
    assert (await wire.receive()).status == 200


async def test_a_client_that_does_not_read_its_answers_is_cut(served: Bench) -> None:
    wire = await served.wire()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    body = b'{"a":"' + b"x" * 60_000 + b'"}'
    for _ in range(400):
        wire.writer.write(request(body=body))
    await eventually(lambda: served.router.connections == 0)
    assert calls(served) < 400  # reading stopped long before: nothing piles up for it


async def test_quiet_connections_are_closed_after_a_while(served: Bench) -> None:
    silent, used = await served.wire(), await served.wire()
    await used.send(request())
    assert (await used.receive()).status == 200
    assert await silent.ended()
    assert await used.ended()


async def test_a_host_may_take_longer_than_the_idle_time(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"))
    await eventually(lambda: served.launcher.hosts[0].held)
    waited = asyncio.create_task(wire.receive())
    done, _ = await asyncio.wait({waited}, timeout=QUICK.idle_seconds * 2)
    assert not done
    served.launcher.hosts[0].release()
    assert (await waited).status == 200


async def test_a_half_closed_client_gets_its_answer(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"), request())
    wire.writer.write_eof()
    await eventually(lambda: served.launcher.hosts[0].held)
    served.launcher.hosts[0].release()
    assert (await wire.receive()).status == 200
    last = await wire.receive()
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert await wire.ended()
