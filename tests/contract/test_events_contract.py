"""One contract for every EventBus: Redis pub/sub on a real server, and its in-memory twin."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from hotswap.adapters.inbox import INBOX_MESSAGES
from hotswap.adapters.memory.events import MemoryEventBus
from hotswap.adapters.redis_events import RedisEventBus
from hotswap.config import RedisSettings, Settings
from hotswap.domain.errors import InvalidInput, Unavailable
from hotswap.ports.events import EventBus

SOON = 5
"""Seconds after which something that should have come counts as lost."""


class Subject:
    """A bus under test, a way to cut its subscriptions, and its count of lost messages."""

    def __init__(self, bus: EventBus, cut: Callable[[], Awaitable[None]], lost: Callable[[], int]) -> None:
        self.bus = bus
        self.cut = cut
        self.lost = lost


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.stack)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryEventBus()

        async def drop() -> None:
            memory.drop_subscribers()

        yield Subject(memory, drop, lambda: memory.lost)
        await memory.close()
        return
    settings: Settings = request.getfixturevalue("settings")
    name = f"bus-{uuid.uuid4().hex}"
    # A client name of this test's own, so that it cuts its own connections and nobody else's.
    url = f"{settings.redis.url.get_secret_value()}?client_name={name}"
    bus = RedisEventBus(RedisSettings(url=SecretStr(url)))
    admin = Redis.from_url(settings.redis.url.get_secret_value(), protocol=2)

    async def kill() -> None:
        for client in await admin.client_list(_type="pubsub"):
            if client["name"] == name:
                await admin.client_kill_filter(_id=client["id"])

    yield Subject(bus, kill, lambda: bus.lost)
    await bus.close()
    await admin.aclose()


@pytest.fixture(params=["memory", "redis"])
async def away(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """A bus whose server is not there."""

    async def nothing() -> None: ...

    if request.param == "memory":
        memory = MemoryEventBus()
        memory.go_away()
        yield Subject(memory, nothing, lambda: memory.lost)
        return
    bus = RedisEventBus(RedisSettings(url=SecretStr(f"redis://127.0.0.1:{free_port()}/0")))
    yield Subject(bus, nothing, lambda: bus.lost)
    await bus.close()


def topic() -> str:
    return f"deployment.{uuid.uuid4().hex}"


async def hear(messages: AsyncIterator[str], count: int) -> list[str]:
    async with asyncio.timeout(SOON):
        return [await anext(messages) for _ in range(count)]


async def test_a_subscriber_hears_what_is_published_from_then_on_in_order(subject: Subject) -> None:
    here = topic()
    await subject.bus.publish(here, "too early")
    async with subject.bus.subscribe(here) as messages:
        for number in range(50):
            await subject.bus.publish(here, f"message {number}")
        assert await hear(messages, 50) == [f"message {number}" for number in range(50)]


async def test_every_subscriber_of_a_topic_hears_and_no_other(subject: Subject) -> None:
    here, there = topic(), topic()
    async with (
        subject.bus.subscribe(here) as first,
        subject.bus.subscribe(here) as second,
        subject.bus.subscribe(there) as other,
    ):
        await subject.bus.publish(here, "here")
        await subject.bus.publish(there, "there")
        assert await hear(first, 1) == await hear(second, 1) == ["here"]
        assert await hear(other, 1) == ["there"]


@pytest.mark.parametrize("text", ["", "'; FLUSHALL\r\nPING\r\n", "grün 🚀", "a\0b", "x" * 200_000, "*%[]?\\"])
async def test_any_text_arrives_as_it_was_sent(subject: Subject, text: str) -> None:
    here = topic() + text[:100]
    async with subject.bus.subscribe(here) as messages:
        await subject.bus.publish(here, text)
        assert await hear(messages, 1) == [text]


async def test_half_a_character_still_wakes(subject: Subject) -> None:
    here = topic()
    async with subject.bus.subscribe(here) as messages:
        await subject.bus.publish(here, "a\ud800b")
        assert len(await hear(messages, 1)) == 1
    assert subject.lost() == 0


async def test_a_wait_that_is_given_up_loses_nothing(subject: Subject) -> None:
    here = topic()
    async with subject.bus.subscribe(here) as messages:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(messages), 0.02)
        await subject.bus.publish(here, "still there")
        assert await hear(messages, 1) == ["still there"]


async def test_a_watcher_that_does_not_look_keeps_the_newest(subject: Subject) -> None:
    here = topic()
    async with subject.bus.subscribe(here) as messages, subject.bus.subscribe(here) as eager:
        for number in range(INBOX_MESSAGES + 10):
            await subject.bus.publish(here, str(number))
            await hear(eager, 1)
        await subject.cut()
        async with asyncio.timeout(SOON):
            kept = [message async for message in messages]
    assert len(kept) <= INBOX_MESSAGES
    assert kept[-1] == str(INBOX_MESSAGES + 9)


async def test_a_lost_connection_ends_the_messages_and_a_new_subscription_works(subject: Subject) -> None:
    here = topic()
    async with subject.bus.subscribe(here) as messages:
        await subject.bus.publish(here, "before")
        assert await hear(messages, 1) == ["before"]
        await subject.cut()
        async with asyncio.timeout(SOON):
            assert [message async for message in messages] == []
    async with subject.bus.subscribe(here) as messages:
        await subject.bus.publish(here, "after")
        assert await hear(messages, 1) == ["after"]


async def test_leaving_by_an_error_or_a_cancellation_leaves_nothing_behind(subject: Subject) -> None:
    here = topic()
    entered = asyncio.Event()

    async def watch() -> None:
        async with subject.bus.subscribe(here) as messages:
            entered.set()
            async for _ in messages:
                pass

    task = asyncio.create_task(watch())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    names = {other.get_name() for other in asyncio.all_tasks()}
    assert not any(here in name for name in names)


async def test_a_bus_that_is_there_is_ready(subject: Subject) -> None:
    await subject.bus.ready()


async def test_publishing_to_a_bus_that_is_away_is_counted_and_no_error(away: Subject) -> None:
    await away.bus.publish("any", "lost")
    await away.bus.publish("any", "lost")
    assert away.lost() == 2


async def test_subscribing_to_a_bus_that_is_away_is_unavailable(away: Subject) -> None:
    with pytest.raises(Unavailable):
        async with away.bus.subscribe("any"):
            pass
    with pytest.raises(Unavailable):
        await away.bus.ready()


async def test_the_memory_bus_comes_back() -> None:
    bus = MemoryEventBus()
    bus.go_away()
    bus.come_back()
    async with bus.subscribe("t") as messages:
        await bus.publish("t", "back")
        assert await hear(messages, 1) == ["back"]


async def test_a_server_that_falls_silent_ends_the_messages() -> None:
    """A host that vanished sends no goodbye: the subscription asks, hears nothing, and ends."""
    held: list[asyncio.StreamWriter] = []

    async def confirm_and_say_no_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        answered = False
        while data := await reader.read(65536):
            if b"SUBSCRIBE" in data and not answered:
                channel = data.split(b"\r\n")[-2]
                writer.write(b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n" % (len(channel), channel))
                answered = True
            elif not answered:
                writer.write(b"+OK\r\n" * data.count(b"*"))
        writer.close()

    server = await asyncio.start_server(confirm_and_say_no_more, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = RedisSettings(url=SecretStr(f"redis://127.0.0.1:{port}/0"), timeout=timedelta(milliseconds=200))
    bus = RedisEventBus(settings, idle_seconds=0.1)
    try:
        async with asyncio.timeout(SOON), bus.subscribe("t") as messages:
            assert [message async for message in messages] == []
    finally:
        await bus.close()
        server.close()
        for writer in held:
            writer.close()
        await server.wait_closed()


async def test_a_server_that_does_not_confirm_is_unavailable() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = RedisSettings(url=SecretStr(f"redis://127.0.0.1:{port}/0"), timeout=timedelta(milliseconds=200))
    bus = RedisEventBus(settings)
    try:
        async with asyncio.timeout(SOON):
            with pytest.raises(Unavailable):
                async with bus.subscribe("t"):
                    pass
            await bus.publish("t", "lost")
            assert bus.lost == 1
    finally:
        await bus.close()
        server.close()
        await server.wait_closed()


@pytest.mark.stack
async def test_an_idle_subscription_asks_and_lives_on(settings: Settings) -> None:
    bus = RedisEventBus(settings.redis, idle_seconds=0.05)
    here = topic()
    async with bus.subscribe(here) as messages:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(messages), 0.3)
        await bus.publish(here, "alive")
        assert await hear(messages, 1) == ["alive"]
    await bus.close()


def test_a_wrong_url_names_its_setting_and_not_its_password() -> None:
    with pytest.raises(InvalidInput, match="HOTSWAP_REDIS__URL") as caught:
        RedisEventBus(RedisSettings(url=SecretStr("http://:secret@nowhere")))
    assert "secret" not in str(caught.value)
