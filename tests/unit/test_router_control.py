"""The channel between a node and its router processes, and how limits are shared out among them. No process is started."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from hotswap.node.control import ControlChannel, Message
from hotswap.node.limits import RouterLimits
from hotswap.node.router_setup import share
from tests.unit.node_fakes import eventually


@dataclass
class End:
    heard: list[Message] = field(default_factory=list)
    descriptors: list[list[int]] = field(default_factory=list)
    ended: int = 0
    channel: ControlChannel = None  # type: ignore[assignment]

    def open(self, end: socket.socket) -> "End":
        self.channel = ControlChannel(end, self._hear, self._end)
        return self

    def _hear(self, message: Message, descriptors: list[int]) -> None:
        self.heard.append(message)
        self.descriptors.append(descriptors)

    def _end(self) -> None:
        self.ended += 1


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    ours, theirs = socket.socketpair()
    made = End().open(ours), End().open(theirs)
    yield made
    for end in made:
        end.channel.close()


def _pipe_with(text: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    return reader


async def test_messages_keep_their_order_and_their_descriptors(ends: tuple[End, End]) -> None:
    here, there = ends
    for number in range(200):
        here.channel.send({"number": number})
    for number in range(200, 240):
        here.channel.send({"number": number}, [_pipe_with(b"%d" % number), _pipe_with(b"again")])
    await eventually(lambda: len(there.heard) == 240)
    assert [message["number"] for message in there.heard] == list(range(240))
    assert all(not got for got in there.descriptors[:200])
    for number, (first, second) in enumerate(there.descriptors[200:], 200):
        assert os.read(first, 100) == b"%d" % number
        assert os.read(second, 100) == b"again"
        assert not os.get_inheritable(first)
        os.close(first)
        os.close(second)


async def test_what_does_not_fit_the_socket_waits_and_keeps_its_descriptors(ends: tuple[End, End]) -> None:
    here, there = ends
    large = "x" * 700_000
    for number in range(5):
        here.channel.send({"number": number, "large": large}, [_pipe_with(b"%d" % number)])
    await eventually(lambda: len(there.heard) == 5)
    for number, (descriptor,) in enumerate(there.descriptors):
        assert os.read(descriptor, 100) == b"%d" % number
        os.close(descriptor)
    assert all(message["large"] == large for message in there.heard)


async def test_both_ends_talk_and_the_end_of_one_is_told_once(ends: tuple[End, End]) -> None:
    here, there = ends
    there.channel.send({"from": "there"})
    here.channel.send({"from": "here"})
    await eventually(lambda: here.heard and there.heard)
    here.channel.close()
    await eventually(lambda: there.ended == 1)
    there.channel.send({"to": "nobody"}, [_pipe_with(b"closed by send")])
    await asyncio.sleep(0)
    assert (here.ended, there.ended) == (0, 1)


async def test_the_last_words_of_a_peer_that_has_ended_are_read() -> None:
    ours, theirs = socket.socketpair()
    here = End().open(ours)
    there = End().open(theirs)
    for number in range(10):
        there.channel.send({"number": number})
    there.channel.close()
    here.channel.read_rest()
    assert [message["number"] for message in here.heard] == list(range(10))
    assert here.ended == 1


def test_routers_hold_a_nodes_limits_together() -> None:
    whole = RouterLimits()
    half = share(whole, 2)
    assert (half.queued, half.waiting, half.in_flight_per_host) == (2000, 500, 500)
    assert whole.connections / 2 < half.connections < whole.connections / 2 * 1.1
    assert (half.body_bytes, half.idle_seconds) == (whole.body_bytes, whole.idle_seconds)
    small = share(RouterLimits(connections=10, connections_per_address=3, queued=0, in_flight_per_host=1), 8)
    assert (small.connections, small.connections_per_address) == (6, 3)
    assert (small.queued, small.in_flight_per_host) == (0, 1)


async def test_a_message_whose_descriptors_could_not_be_received_ends_the_channel() -> None:
    """As when the process may open no more: what follows would get the wrong ones."""
    ours, theirs = socket.socketpair()
    end = End().open(ours)
    with theirs:
        reader, writer = os.pipe()
        socket.send_fds(theirs, [b"\0\0\0\2\1{}"], [reader, writer] * 8)
        await eventually(lambda: end.ended == 1)
        os.close(reader)
        os.close(writer)
    assert end.heard == []
