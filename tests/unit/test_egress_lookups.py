"""Names that nobody answers for hold up the plugin that asked for them, and no other."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hotswap.domain.permissions import network_grants
from hotswap.runtime import egress
from hotswap.runtime.egress import EgressGate, EgressPolicy

STUCK = "stuck.example.com"
PATIENCE = 10.0


class NameServer:
    """Answers for every name but those that are stuck, until `release`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.stuck = threading.Semaphore(0)

    def look_up(self, host: str, port: int, **kind: Any) -> list[Any]:
        del kind
        if host.endswith(STUCK):
            self.stuck.release()
            self.released.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.look_up)
    yield server
    server.released.set()


@contextmanager
def gate() -> Iterator[socket.socket]:
    """The host's end of one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    grants = network_grants(["network.http:*.example.com"])
    opened = EgressGate(ours, grants, EgressPolicy(), "invoice", "1.0.0", asyncio.get_running_loop())
    with theirs:
        yield theirs
        opened.close()


async def ask(channel: socket.socket, number: int, host: str) -> None:
    text = json.dumps({"id": number, "host": host, "port": 443, "timeout": PATIENCE})
    await asyncio.get_running_loop().sock_sendall(channel, text.encode())


async def answer(channel: socket.socket) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        said: dict[str, Any] = json.loads(await asyncio.get_running_loop().sock_recv(channel, 4096))
    return said


async def test_other_plugins_names_are_looked_up_meanwhile(names: NameServer) -> None:
    with gate() as hostile, gate() as decent:
        for number in range(egress.MAX_ASKING):
            await ask(hostile, number, f"n{number}.{STUCK}")
        for _ in range(egress.LOOKUPS_EACH):
            assert await asyncio.to_thread(names.stuck.acquire, timeout=PATIENCE)

        await ask(decent, 1, "api.example.com")

        assert "no public address" in (await answer(decent))["message"]
        assert not names.stuck.acquire(blocking=False), "a host has more threads than its share"


async def test_its_own_names_have_their_turn_when_a_thread_is_free_again(names: NameServer) -> None:
    with gate() as channel:
        for number in range(egress.LOOKUPS_EACH):
            await ask(channel, number, f"n{number}.{STUCK}")
        await ask(channel, 7, "api.example.com")

        names.released.set()

        assert {(await answer(channel))["id"] for _ in range(egress.LOOKUPS_EACH + 1)} == {0, 1, 7}
