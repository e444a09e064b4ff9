"""Calls to a plugin host: answers, faults with their names, deadlines, bounds, both event loops."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from hotswap.domain.errors import HostFailed, NotFound, PluginError
from hotswap.domain.manifest import Resources
from hotswap.runtime import channel as channel_module
from hotswap.runtime.handle import ZygoteHost
from hotswap.runtime.host import MAX_POOL_THREADS
from tests.integration.host_lab import SOON, Replies, ask, launched, spec_of, spec_of_source, until


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def worker() -> AsyncIterator[ZygoteHost]:
    async with launched(spec_of("worker", max_reply_bytes=1_000_000)) as host:
        yield host


async def test_a_loaded_host_says_what_it_is(worker: ZygoteHost) -> None:
    assert worker.alive
    assert worker.sandbox_tier == "standard"
    assert worker.load_ms > 0
    resident = worker.memory_bytes()
    assert resident > 1_000_000
    assert worker.peak_memory_bytes() >= resident  # in this order: it may still grow
    print(f"load {worker.load_ms:.1f} ms, resident {worker.memory_bytes() / 2**20:.1f} MiB")


@pytest.mark.parametrize("method", ["echo", "echo_async"])
async def test_the_result_is_the_plugins_json(worker: ZygoteHost, method: str) -> None:
    assert await worker.invoke(method, "t", '{"é":[1,null,"ü\\n"]}'.encode(), SOON) == '{"é":[1,null,"ü\\n"]}'.encode()


async def test_a_method_learns_its_context(worker: ZygoteHost) -> None:
    tenant, plugin, version, left = await ask(worker, "context", timeout=timedelta(seconds=9))
    assert (tenant, plugin, version) == ("tenant-1", "worker", "1.0.0")
    assert 5 < left <= 9


async def test_a_plugins_exception_has_its_name(worker: ZygoteHost) -> None:
    with pytest.raises(PluginError) as caught:
        await ask(worker, "fail", message="no such invoice")
    assert (caught.value.kind, caught.value.message) == ("Refused", "no such invoice")


async def test_even_system_exit_is_only_an_answer(worker: ZygoteHost) -> None:
    with pytest.raises(PluginError) as caught:
        await ask(worker, "fail_async", message="bye")
    assert caught.value.kind == "SystemExit"
    assert worker.alive


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_fault_whose_own_message_raises_is_only_an_answer(tmp_path: Path, kind: str) -> None:
    """It cost a thread of the pool, or the whole host, and the caller its answer."""
    source = f"""
        class Evil(BaseException):
            def __str__(self):
                raise KeyboardInterrupt

        class Plugin:
            {kind} hello(self, parameters, context):
                raise Evil
    """
    async with launched(spec_of_source(tmp_path, source, methods=("hello",))) as host:
        for _ in range(2 * MAX_POOL_THREADS):
            with pytest.raises(PluginError) as caught:
                await ask(host, "hello")
            assert (caught.value.kind, caught.value.message) == ("Evil", "<its message raised KeyboardInterrupt>")
        assert host.alive


async def test_a_message_is_bounded(worker: ZygoteHost) -> None:
    with pytest.raises(PluginError) as caught:
        await ask(worker, "fail", message="\x1b[31m" + "x" * 100_000)
    assert len(caught.value.message) <= 2000
    assert "\x1b" not in caught.value.message


async def test_only_declared_methods_can_be_called(tmp_path: Path) -> None:
    source = """
        class Plugin:
            def shown(self, parameters, context): return 1
            def hidden(self, parameters, context): return 2
            def _private(self, parameters, context): return 3
    """
    async with launched(spec_of_source(tmp_path, source, methods=("shown",))) as host:
        assert await ask(host, "shown") == 1
        for method in ("hidden", "_private", "__init__", "", "ä", "x" * 200):
            with pytest.raises(NotFound):
                await ask(host, method)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"null", b'"x"', b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_the_senders_fault(worker: ZygoteHost, body: bytes) -> None:
    replies = Replies()
    worker.submit("echo", "t", body, 5.0, replies)
    (reply,) = await replies.wait(1)
    assert (reply.ok, reply.invalid, reply.limit, reply.kind) == (False, True, "", "")


@pytest.mark.parametrize(("method", "tenant"), [("x" * 300, "t"), ("echo", "t" * 300), ("echo", "\ud800")])
async def test_names_that_fit_no_frame_are_refused_before_they_are_sent(
    worker: ZygoteHost, method: str, tenant: str
) -> None:
    replies = Replies()
    worker.submit(method, tenant, b"{}", 5.0, replies)
    (reply,) = await replies.wait(1)
    assert (reply.ok, reply.invalid, reply.started) == (False, True, False)
    assert worker.in_flight == 0


async def test_no_timeout_at_all_is_no_fault(worker: ZygoteHost) -> None:
    replies = Replies()
    worker.submit("echo", "t", b"{}", float("inf"), replies)
    assert (await replies.wait(1))[0].ok


@pytest.mark.parametrize("what", ["object", "nan", "coroutine"])
async def test_a_result_that_is_no_json_is_a_bad_reply(worker: ZygoteHost, what: str) -> None:
    with pytest.raises(HostFailed) as caught:
        await ask(worker, "reply", what=what)
    assert caught.value.limit == "BAD_REPLY"
    assert worker.alive


async def test_the_largest_reply_passes_and_one_byte_more_does_not(worker: ZygoteHost) -> None:
    assert len(await ask(worker, "reply", what="", bytes=1_000_000 - 2)) == 1_000_000 - 2
    with pytest.raises(HostFailed) as caught:
        await ask(worker, "reply", what="", bytes=1_000_000 - 1)
    assert caught.value.limit == "REPLY_TOO_LARGE"
    assert worker.alive


@pytest.mark.parametrize("method", ["sleep", "sleep_async"])
async def test_a_late_call_times_out_and_its_late_answer_is_dropped(worker: ZygoteHost, method: str) -> None:
    with pytest.raises(HostFailed) as caught:
        await ask(worker, method, timeout=timedelta(milliseconds=50), seconds=0.3)
    assert caught.value.limit == "TIMEOUT"
    await until(lambda: not worker._in_flight.abandoned)  # the host answered after all
    assert worker.alive
    assert await ask(worker, "echo", a=1) == {"a": 1}
    replies = Replies()
    worker.submit(method, "t", b'{"seconds": 0.5}', 0.2, replies)
    [late] = await replies.wait(1)
    assert (late.limit, late.begun) == ("TIMEOUT", True)


async def test_200_concurrent_calls_each_get_their_own_answer(worker: ZygoteHost) -> None:
    async def call(number: int) -> None:
        method = ("echo", "echo_async", "sleep_async")[number % 3]
        parameters: dict[str, Any] = {"seconds": 0.01, "number": number}
        expected = "slept" if method == "sleep_async" else parameters
        assert await ask(worker, method, **parameters) == expected

    await asyncio.gather(*(call(number) for number in range(200)))
    assert worker.in_flight == 0


async def test_async_methods_run_on_the_loop_and_others_in_a_bounded_pool(tmp_path: Path) -> None:
    source = """
        import threading, time
        class Plugin:
            def where(self, parameters, context):
                time.sleep(0.02)
                return threading.current_thread().name
            async def where_async(self, parameters, context):
                return threading.current_thread().name
    """
    async with launched(spec_of_source(tmp_path, source)) as host:
        pool = set(await asyncio.gather(*(ask(host, "where") for _ in range(40))))
        assert pool <= {f"call-{number}" for number in range(MAX_POOL_THREADS)}
        assert len(pool) > 1
        assert {await ask(host, "where_async") for _ in range(3)} == {"MainThread"}


async def test_sync_methods_run_beside_each_other(worker: ZygoteHost) -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(*(ask(worker, "sleep", seconds=0.3) for _ in range(8)))
        assert asyncio.get_running_loop().time() - begun < 8 * 0.3


async def test_drain_waits_for_what_is_in_flight(worker: ZygoteHost) -> None:
    call = asyncio.create_task(ask(worker, "sleep_async", seconds=0.2))
    await until(lambda: worker.in_flight == 1)
    assert not await worker.drain(timedelta(milliseconds=10))
    assert await worker.drain(SOON)
    assert worker.in_flight == 0
    assert await call == "slept"
    assert await worker.drain(timedelta(0))


async def test_a_callback_that_raises_costs_nobody_else(worker: ZygoteHost) -> None:
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    replies = Replies()

    def raising(reply: object) -> None:
        raise ValueError("the router's own fault")

    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    try:
        worker.submit("echo_async", "t", b"{}", 5.0, raising)
        worker.submit("echo_async", "t", b"{}", 5.0, replies)
        (reply,) = await replies.wait(1)
    finally:
        loop.set_exception_handler(None)
    assert reply.ok
    assert [type(fault) for fault in faults] == [ValueError]


async def test_a_probe_asks_the_plugins_health(tmp_path: Path) -> None:
    source = """
        class Plugin:
            well = True
            def health(self):
                if self.well is None:
                    raise RuntimeError("lost my database")
                return self.well
            async def become(self, parameters, context):
                self.well = parameters["well"]
    """
    async with launched(spec_of_source(tmp_path, source)) as host:
        assert await host.ping(SOON) > 0
        await ask(host, "become", well=False)
        with pytest.raises(PluginError, match="unhealthy"):
            await host.ping(SOON)
        await ask(host, "become", well=None)
        with pytest.raises(PluginError, match="lost my database") as caught:
            await host.ping(SOON)
        assert caught.value.kind == "RuntimeError"
        await ask(host, "become", well=True)
        assert await host.ping(SOON) > 0


async def test_a_probe_of_a_blocked_host_times_out(tmp_path: Path) -> None:
    source = """
        import time
        class Plugin:
            async def block(self, parameters, context):
                time.sleep(0.5)
    """
    async with launched(spec_of_source(tmp_path, source)) as host:
        call = asyncio.create_task(ask(host, "block"))
        await until(lambda: host.in_flight == 1)
        with pytest.raises(HostFailed) as caught:
            await host.ping(timedelta(milliseconds=50))
        assert caught.value.limit == "TIMEOUT"
        await call
        assert await host.ping(SOON) > 0


async def test_a_probe_says_when_every_thread_is_stuck() -> None:
    async with launched(spec_of("worker", resources=Resources(processes=2))) as host:
        calls = [ask(host, "sleep", timeout=timedelta(milliseconds=200), seconds=60) for _ in range(2)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [getattr(outcome, "limit", "") for outcome in outcomes] == ["TIMEOUT", "TIMEOUT"]
        with pytest.raises(HostFailed, match="threads are held"):
            await host.ping(SOON)


async def test_a_host_that_does_not_keep_up_is_refused_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "MAX_IN_FLIGHT", 10)
    async with launched(spec_of("worker")) as host:
        replies = Replies()
        for _ in range(12):
            host.submit("sleep_async", "t", b'{"seconds": 0.2}', 10.0, replies)
        got = await replies.wait(12)
        refused = [reply for reply in got if not reply.ok]
        assert len(refused) == 2
        assert all(not reply.started and b"backlog" in reply.body for reply in refused)


async def test_a_host_that_reads_nothing_does_not_grow_the_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(channel_module, "WRITE_BUFFER_BYTES", 1024 * 1024)
    source = """
        import time
        class Plugin:
            async def block(self, parameters, context):
                time.sleep(1)
            async def take(self, parameters, context):
                return 1
    """
    async with launched(spec_of_source(tmp_path, source)) as host:
        replies = Replies()
        host.submit("block", "t", b"{}", 30.0, replies)
        body = json.dumps({"x": "y" * 200_000}).encode()
        for _ in range(40):
            host.submit("take", "t", body, 30.0, replies)
        got = await replies.wait(41)
        assert any(not reply.ok and not reply.started for reply in got)
        assert sum(reply.ok for reply in got) >= 6  # what was accepted is served
        assert await ask(host, "take") == 1


def test_it_works_on_uvloop_and_on_plain_asyncio() -> None:
    async def story() -> None:
        async with launched(spec_of("worker")) as host:
            assert await ask(host, "echo", a=1) == {"a": 1}
            with pytest.raises(HostFailed):
                await ask(host, "sleep", timeout=timedelta(milliseconds=20), seconds=0.1)
            assert len(await ask(host, "reply", what="", bytes=3_000_000)) == 3_000_000
            await host.ping(SOON)
            with pytest.raises(HostFailed):
                await ask(host, "leave", how="exit")

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(story())


HOG = """
    import time

    class Plugin:
        async def hog(self, parameters, context):
            open_until = time.monotonic() + parameters["seconds"]
            while time.monotonic() < open_until:
                pass
            return "done"

        async def quick(self, parameters, context):
            return "done"
"""


async def test_the_backlog_is_what_a_host_has_not_begun(tmp_path: Path, worker: ZygoteHost) -> None:
    async with launched(spec_of_source(tmp_path / "hog", HOG)) as host:
        replies = Replies()
        host.submit("hog", "t", b'{"seconds": 1}', 20, replies)
        await until(lambda: host.unbegun() == 0)  # it has begun
        for _ in range(3):
            host.submit("quick", "t", b"{}", 20, replies)
        host.submit("no_such_method", "t", b"{}", 20, replies)
        host.submit("quick", "t", b"no JSON", 20, replies)
        assert host.unbegun() == 5
        await replies.wait(6)
        assert host.unbegun() == 0
    replies = Replies()
    for _ in range(MAX_POOL_THREADS + 4):
        worker.submit("sleep", "t", b'{"seconds": 1}', 20, replies)
    await until(lambda: worker.unbegun() == 4)  # as many as there are threads have begun
    await replies.wait(MAX_POOL_THREADS + 4)
    assert worker.unbegun() == 0


async def test_a_call_that_times_out_tells_whether_a_thread_had_begun_it() -> None:
    async with launched(spec_of("worker", resources=Resources(processes=2))) as host:
        begun, waited = Replies(), Replies()
        for _ in range(2):
            host.submit("sleep", "t", b'{"seconds": 1}', 0.3, begun)
        for _ in range(4):
            host.submit("sleep", "t", b'{"seconds": 0}', 0.2, waited)
        got = [*await begun.wait(2), *await waited.wait(4)]
        assert [(reply.limit, reply.begun) for reply in got] == [("TIMEOUT", True)] * 2 + [("TIMEOUT", False)] * 4


async def test_a_call_that_times_out_before_it_begins_is_still_owed_and_paid(tmp_path: Path) -> None:
    """CALL and CANCEL arrive together: a task cancelled before its first step would end without a word."""
    async with launched(spec_of_source(tmp_path / "hog", HOG)) as host:
        replies = Replies()
        host.submit("hog", "t", b'{"seconds": 1}', 20, replies)
        await until(lambda: host.unbegun() == 0)
        for _ in range(10):
            host.submit("quick", "t", b"{}", 0.05, replies)
        got = await replies.wait(11)
        assert [reply.limit for reply in got] == ["TIMEOUT"] * 10 + [""]
        assert [reply.begun for reply in got] == [False] * 10 + [True]
        await until(lambda: len(host._in_flight) == 0)
        assert host.unbegun() == 0
        assert await ask(host, "quick") == "done"
