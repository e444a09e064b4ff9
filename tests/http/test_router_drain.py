"""How a router ends: who is connected is answered and told to go, who is just sending or connecting too."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.http.router_client import Bench, bench, request
from tests.http.test_router import figures
from tests.unit.node_fakes import eventually, order


@pytest.fixture
async def served() -> AsyncIterator[Bench]:
    async with bench() as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        yield made


async def test_draining_answers_what_is_here_and_takes_no_more(served: Bench) -> None:
    busy, idle = await served.wire(), await served.wire()
    await idle.send(request())
    assert (await idle.receive()).status == 200
    await busy.send(request("hold"), request("echo"))
    await eventually(lambda: served.launcher.hosts[0].held)
    draining = asyncio.create_task(served.router.drain(timedelta(seconds=5)))
    assert await idle.ended()
    with pytest.raises(ConnectionError):
        await served.wire()
    served.launcher.hosts[0].release()
    assert (await busy.receive()).status == 200
    last = await busy.receive()
    assert (last.status, last.headers["connection"]) == (200, "close")
    await busy.close()
    assert await draining


async def test_draining_lets_an_idle_client_send_once_more(served: Bench) -> None:
    idle, quiet = await served.wire(), await served.wire()
    for wire in (idle, quiet):
        await wire.send(request())
        assert (await wire.receive()).status == 200
    draining = asyncio.create_task(served.router.drain(timedelta(seconds=5), idle=timedelta(seconds=30)))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionError):
        await served.wire()
    await idle.send(request())
    last = await idle.receive()
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert await quiet.ended()  # as any connection that is idle for too long
    await idle.close()
    assert await draining


async def test_who_is_sent_away_may_come_back_until_nobody_listens(served: Bench) -> None:
    staying = await served.wire()
    await staying.send(request())
    assert "connection" not in (await staying.receive()).headers
    served.router.send_away()
    await staying.send(request())
    assert (await staying.receive()).headers["connection"] == "close"
    assert await staying.ended()
    again = await served.call()
    assert (again.status, again.headers["connection"]) == (200, "close")


def connected_unseen(made: Bench, *parts: bytes) -> socket.socket:
    """A client whose connection and request only the kernel knows of: the loop has had no turn."""
    client = socket.create_connection(("127.0.0.1", made.port), timeout=10)
    client.sendall(b"".join(parts))
    return client


async def test_a_client_that_has_just_connected_is_answered_although_nobody_listens_any_more(served: Bench) -> None:
    with connected_unseen(served, request()) as client:
        draining = asyncio.create_task(served.router.drain(timedelta(seconds=5), idle=timedelta(seconds=5)))
        answer = await asyncio.to_thread(client.recv, 65536)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\nconnection: close\r\n" in answer
    assert await draining


async def test_draining_is_not_over_before_who_waits_to_be_accepted_was_taken(
    served: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, take = await served.wire(), served.router.listening._take
    await eventually(lambda: served.router.connections == 1)

    async def take_when_the_last_client_has_left(connected: socket.socket) -> None:
        leaving.reset()
        await eventually(lambda: served.router.connections == 0)
        await take(connected)

    monkeypatch.setattr(served.router.listening, "_take", take_when_the_last_client_has_left)
    with connected_unseen(served, request("hold")) as client:
        draining = asyncio.create_task(served.router.drain(timedelta(seconds=5), idle=timedelta(seconds=5)))
        await eventually(lambda: served.launcher.hosts[0].held)
        assert not draining.done()
        served.launcher.hosts[0].release()
        assert await draining
        assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 200 OK")


async def test_a_request_that_only_the_kernel_has_is_answered_before_its_connection_is_closed(served: Bench) -> None:
    with connected_unseen(served, request()) as client:
        assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 200 OK")
        client.sendall(request())
        served.router.clients.close_idle()
        assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 200 OK")
        served.router.clients.close_idle()
        assert await asyncio.to_thread(client.recv, 65536) == b""


async def test_a_connection_whose_last_answer_is_out_ends_when_its_client_has_read_it(served: Bench) -> None:
    served.router.send_away()
    with connected_unseen(served, request()) as client:
        await eventually(lambda: figures(served).requests == 1)
        served.router.clients.close_idle()  # with what the client may still send this would be a reset
        for _ in range(5):
            await asyncio.sleep(0)
        assert served.router.connections == 1
        assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 200 OK")
    await eventually(lambda: served.router.connections == 0)


async def test_draining_gives_up_when_the_grace_is_over(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"))
    await eventually(lambda: served.launcher.hosts[0].held)
    assert not await served.router.drain(timedelta(seconds=0.05))
    served.launcher.hosts[0].release()
