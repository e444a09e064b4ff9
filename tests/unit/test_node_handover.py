"""What the two processes of a node that is being replaced make of each other, whatever the other one does."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from hotswap.domain.errors import HandoverFailed
from hotswap.node import handover
from hotswap.node.figures import ToldCounter
from hotswap.node.handover import Door, Predecessor, Successor
from hotswap.node.handover_link import Counted, Link, Word, connect
from tests.unit.node_fakes import eventually

COUNTED = Counted(
    plugin="invoice",
    version="1.0.0",
    crashes=2,
    told=ToldCounter(seconds=[(7.0, 3, 1, 0, [12, 3])], minutes=[(0.0, 3, 1, 0, [12, 3])]),
)


class Old:
    """The process that serves: a door, two listeners, and what it was told to do."""

    def __init__(self, folder: Path) -> None:
        self.door = Door(folder, "node-1", "QA")
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.did: list[str] = []
        self.successors: list[Successor] = []
        self.stand_back_lasts: Awaitable[object] | None = None

    async def stand_back(self) -> None:
        self.did.append("stand back")
        if self.stand_back_lasts is not None:
            await self.stand_back_lasts

    async def serve(self) -> None:
        router, admin = ([one.fileno()] for one in self.listeners)
        self.successors.append(
            await self.door.replaced(router, admin, self.stand_back, lambda: self.did.append("go on"))
        )


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Old]:
    old = Old(folder)
    old.door.open()
    task = asyncio.create_task(old.serve())
    try:
        yield old
    finally:
        task.cancel()
        await asyncio.wait({task})
        for successor in old.successors:
            await successor.gone([])
        await old.door.close()
        for one in old.listeners:
            one.close()


async def find(folder: Path, node: str = "node-1") -> Predecessor:
    found = await Predecessor.find(folder, node, "QA")
    assert found is not None
    return found


async def taken(before: Predecessor, hear: Callable[[Counted], None] = lambda _: None) -> None:
    await before.ready()
    await before.taken(hear)


def close(before: Predecessor) -> None:
    for one in (*before.router, *before.admin):
        one.close()


async def test_the_sockets_of_the_old_process_are_heard_in_the_new_one(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30)  # its path alone is longer than the address of a unix socket may be
    async with serving(folder) as old:
        assert stat.S_IMODE((folder / "replace.sock").stat().st_mode) == 0o600
        before = await find(folder)
        assert not any(os.get_inheritable(one.fileno()) for one in (*before.router, *before.admin))
        addresses = [one.getsockname() for one in old.listeners]
        assert [one.getsockname() for one in (*before.router, *before.admin)] == addresses
        heard: list[Counted] = []
        end = asyncio.create_task(taken(before, heard.append))
        await eventually(lambda: old.successors)
        assert old.did == ["stand back"]
        await old.successors[0].released([COUNTED])
        await end
        for one in old.listeners:
            one.close()
        with socket.create_connection(addresses[0]):
            before.router[0].accept()[0].close()
        await old.successors.pop().gone([COUNTED, COUNTED])
        await before.until_gone(heard.append)
        assert heard == [COUNTED] * 3
        await before.close()
        close(before)


async def test_where_nobody_serves_there_is_nobody_to_replace(tmp_path: Path) -> None:
    assert await Predecessor.find(tmp_path, "node-1", "QA") is None
    assert await Predecessor.find(tmp_path / "nothing", "node-1", "QA") is None
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / "replace.sock"))
    assert await Predecessor.find(tmp_path, "node-1", "QA") is None
    async with serving(tmp_path) as old:
        before = await find(tmp_path)
        await before.close()
        close(before)
        await old.door.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_directory_of_another_node_is_refused_by_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as old:
        with pytest.raises(
            HandoverFailed, match=r"HOTSWAP_NODE__DATA_DIR belongs to node-1 in QA, not to node-2 in QA"
        ):
            await Predecessor.find(tmp_path, "node-2", "QA")
        await eventually(lambda: not old.door.busy)
        before = await find(tmp_path)  # and it is free again for the right one
        await before.close()
        close(before)


async def test_one_replacement_at_a_time(tmp_path: Path) -> None:
    async with serving(tmp_path):
        first = await find(tmp_path)
        with pytest.raises(HandoverFailed, match="another process is about to take its place already"):
            await Predecessor.find(tmp_path, "node-1", "QA")
        await first.close()
        close(first)


@pytest.mark.parametrize("until", ["it has the sockets", "it is ready"])
async def test_a_new_process_that_ends_too_early_leaves_the_old_one_serving(tmp_path: Path, until: str) -> None:
    async with serving(tmp_path) as old:
        first = await find(tmp_path)
        if until == "it is ready":
            await first.ready()
        await first.close()
        close(first)
        if until == "it is ready":
            await eventually(lambda: old.did == ["stand back", "go on"])
        await eventually(lambda: not old.door.busy)
        second = await find(tmp_path)
        end = asyncio.create_task(taken(second))
        await eventually(lambda: old.successors)
        assert old.did[-1] == "stand back"
        await old.successors[0].released([])
        await end
        await second.close()
        close(second)


async def test_a_new_process_that_takes_too_long_must_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "PATIENCE", timedelta(0))
    async with serving(tmp_path) as old:
        old.stand_back_lasts = asyncio.Event().wait()
        before = await find(tmp_path)
        with pytest.raises(HandoverFailed, match="the process before this one serves on: it was not ready to serve"):
            await before.ready()
        assert old.did == ["stand back", "go on"]
        await before.close()
        close(before)


async def test_a_new_process_goes_on_when_the_old_one_dies(tmp_path: Path) -> None:
    async with serving(tmp_path) as old:
        before = await find(tmp_path)
        address = old.listeners[0].getsockname()
    await before.ready()
    await before.taken(lambda _: None)
    await before.until_gone(lambda _: None)
    with socket.create_connection(address):  # the sockets live as long as anybody has them
        before.router[0].accept()[0].close()
    await before.close()
    close(before)


async def test_another_user_gets_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as old:
        monkeypatch.setattr(handover, "uid_of", lambda _: os.geteuid() + 1)
        connection = await connect(tmp_path)
        assert connection is not None
        assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""
        connection.close()
        assert not old.door.busy
        with pytest.raises(HandoverFailed, match="is answered by another user"):
            await Predecessor.find(tmp_path, "node-1", "QA")


async def test_a_process_that_speaks_another_language_is_not_followed(tmp_path: Path) -> None:
    async with serving(tmp_path) as old:
        connection = await connect(tmp_path)
        assert connection is not None
        link = await Link.over(connection)
        connection.send(b'{"kind": "please"}\n')
        await eventually(lambda: not old.door.busy)
        await link.close()
        assert old.did == []
        other = await connect(tmp_path)
        assert other is not None
        impatient = await Link.over(other)
        await impatient.say(Word(kind="taken"))  # before it was asked to
        await eventually(lambda: not old.door.busy)
        await impatient.close()
        assert (old.did, old.successors) == ([], [])


async def test_a_process_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "ANSWER_PATIENCE", timedelta(seconds=0.05))
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "replace.sock"))
        mute.listen()
        with pytest.raises(HandoverFailed, match=r"does not answer at .*; if it hangs, kill it first"):
            await Predecessor.find(tmp_path, "node-1", "QA")
