"""Routers in processes of their own: what one router promises holds for all of them together, and when one is killed."""

import asyncio
import logging
import os
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotswap.domain.errors import HotSwapError
from hotswap.domain.quota import Quota
from hotswap.node import router_pool
from hotswap.node.eviction import EvictionPolicy, Evictor
from hotswap.node.limits import RouterLimits
from hotswap.node.metrics import render
from hotswap.node.router_pool import RouterPool
from hotswap.node.usage import CpuShares
from hotswap.ports.tenant_settings import TenantSettings
from tests.http.router_client import QUICK, Response, Wire, request
from tests.http.router_contract import *  # noqa: F403 - what one router within the node passes too
from tests.http.router_contract import QUEUED
from tests.integration.host_lab import leaves_nothing
from tests.integration.node_bench import order, traffic
from tests.integration.routers_lab import LONG, ManyRouters, Site, ask, executions, routers
from tests.unit.node_fakes import eventually

QUOTA = Quota(requests_per_minute=100_000_000, concurrent=3, execution_seconds=60, memory_mb=1024)
LIMITS = RouterLimits(
    head_bytes=QUICK.head_bytes,
    body_bytes=QUICK.body_bytes,
    read_seconds=QUICK.read_seconds,
    linger_seconds=QUICK.linger_seconds,
    wait_seconds=LONG.total_seconds(),
    sweep_seconds=QUICK.sweep_seconds,
    queued=QUEUED,
)


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Two routers, for all tests that kill none of them."""
    async with routers(tmp_path_factory.mktemp("routers"), quota=QUOTA, limits=LIMITS, standby=("spared",)) as made:
        yield made


@pytest.fixture(scope="module")
async def invoice(site: Site) -> None:
    await site.stage(order(1, await site.version("1.0.0", "invoice")))


@pytest.fixture
async def served(site: Site, invoice: None) -> AsyncIterator[ManyRouters]:
    del invoice  # it is served
    made = ManyRouters(site)
    await made.begin()
    yield made
    await made.close()


@pytest.fixture
async def both(site: Site) -> AsyncIterator[list[Wire]]:
    wires = await site.wires()
    yield wires
    for wire in wires:
        await wire.close()


async def everywhere(wires: list[Wire], method: str, plugin: str, body: bytes = b"{}") -> list[Response]:
    return [await ask(wire, method, plugin, body) for wire in wires]


async def test_an_order_is_done_when_every_router_serves_by_it(site: Site, both: list[Wire]) -> None:
    old, new = await site.version("1.0.0", "orders"), await site.version("2.0.0", "orders")
    await site.stage(order(1, old))
    await site.stage(order(2, old, new))
    for generation in range(3, 23):
        await site.supervisor.apply(order(generation, old, new, 10_000 * (generation % 2)))
        served = [answer.headers["x-hotswap-version"] for answer in await everywhere(both, "echo", "orders")]
        assert served == ["2.0.0" if generation % 2 else "1.0.0"] * 2
    await site.supervisor.retire(order(23, new), LONG)
    assert [answer.json()["version"] for answer in await everywhere(both, "echo", "orders")] == ["2.0.0"] * 2


async def test_switches_lose_no_request_and_figures_are_what_clients_counted(site: Site) -> None:
    since = datetime.now(UTC)
    plugin = "switched"
    old, new = await site.version("1.0.0", plugin), await site.version("2.0.0", plugin)
    await site.stage(order(1, old))
    async with traffic(f"http://127.0.0.1:{site.port}", plugin) as seen:
        generation = 1
        for _ in range(5):
            for begin, end in ((old, new), (new, old)):
                await site.stage(order(generation + 1, begin, end, 5000))
                await site.supervisor.retire(order(generation + 2, end), LONG)
                generation += 2
                enough = seen.requests + 10
                await eventually(lambda enough=enough: seen.requests >= enough, within=30)
    assert seen.refused == []
    assert set(seen.versions) == {"1.0.0", "2.0.0"}
    await site.pool.refresh()
    figures = site.supervisor.figures(plugin, since).versions
    assert {each.version: each.requests for each in figures} == dict(seen.versions)
    assert {each.version: sum(each.latency_buckets.values()) for each in figures} == dict(seen.versions)
    assert sum(each.errors for each in figures) == 0


async def test_errors_and_what_callers_did_wrong_are_counted_too(site: Site, both: list[Wire]) -> None:
    await site.stage(order(1, await site.version("1.0.0", "counted")))
    for method, status in (("boom", 500), ("missing", 404), ("echo", 200)):
        assert [answer.status for answer in await everywhere(both, method, "counted")] == [status] * 2
    await site.pool.refresh()
    page = b"".join(
        [piece async for piece in render("QA", site.supervisor, site.book, site.pool, CpuShares())]
    ).decode()
    for outcome, count in (("ok", 2), ("error", 2), ("failure", 0), ("rejected", 2)):
        line = f'{{environment="QA",outcome="{outcome}",plugin="counted",version="1.0.0"}} {count}.0'
        assert f"plugin_invocations_total{line}" in page
    assert f"hotswap_router_connections {site.pool.connections}.0" in page
    assert site.pool.connections >= 2
    assert "hotswap_routers 2.0" in page


async def test_calls_at_once_are_limited_over_all_routers(site: Site, both: list[Wire]) -> None:
    await site.stage(order(1, await site.version("1.0.0", "limited")))
    held = [*both, *await site.wires()]
    for wire in held[:3]:
        await wire.send(request("hold", plugin="limited"))
    await eventually(lambda: sum(host.in_flight for host in site.supervisor.hosts() if host.plugin == "limited") == 3)
    refused = await ask(held[3], "echo", "limited")
    assert (refused.status, refused.json()["error"]["details"][0]["field"]) == (429, "concurrent")
    assert "3 calls" in refused.json()["error"]["message"]
    assert (await ask(held[3], "free", "limited", tenant="globex")).status == 200
    assert [(await wire.receive()).status for wire in held[:3]] == [200] * 3
    assert (await ask(held[3], "echo", "limited")).status == 200
    await site.pool.refresh()
    assert site.pool.refused["concurrent"] == 1
    for wire in held[2:]:
        await wire.close()


async def test_tenants_settings_reach_every_router_and_secrets_no_log(
    site: Site, both: list[Wire], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "s3cr3t-of-acme"
    made = await site.version("1.0.0", "secretive", permissions=("secrets.read",))
    site.tenants.rows["secretive"] = {"acme": TenantSettings(1, {"rate": 7}, {"key": secret})}
    await site.stage(order(1, made))
    told = await everywhere(both, "tell", "secretive")
    assert [answer.json()["told"] for answer in told] == [{"rate": 7}] * 2
    assert len({answer.json()["pid"] for answer in told}) == 1
    site.tenants.rows["secretive"] = {"acme": TenantSettings(2, {"rate": 8}, {"key": secret})}
    site.pool.tell_tenants()
    await site.pool.spread("secretive")
    assert [answer.json()["told"] for answer in await everywhere(both, "tell", "secretive")] == [{"rate": 8}] * 2
    shown = await everywhere(both, "tell", "secretive", b'{"secret": true}')
    assert [answer.json()["told"] for answer in shown] == [{"key": secret}] * 2
    with caplog.at_level(logging.INFO):
        failed = await everywhere(both, "leak", "secretive")
        await eventually(lambda: caplog.text.count("the secret is") == 2)
    assert [answer.status for answer in failed] == [500] * 2
    assert all(b"could not use ***" in answer.body for answer in failed)
    assert secret not in caplog.text + "".join(answer.body.decode() for answer in failed)
    site.tenants.rows["secretive"] = {}
    site.tenants.disabled.add(("globex", "secretive"))
    site.pool.tell_tenants()
    await site.pool.spread("secretive")
    assert [answer.json()["told"] for answer in await everywhere(both, "tell", "secretive")] == [{}] * 2
    for wire in both:
        await wire.send(request("tell", tenant="globex", plugin="secretive"))
        assert (await wire.receive()).status == 403


async def test_traced_calls_of_every_router_become_spans_of_the_node(site: Site, both: list[Wire]) -> None:
    await site.stage(order(1, await site.version("1.0.0", "traced")))
    traces = ["0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319d"]
    for wire, trace in zip(both, traces, strict=True):
        caller = f"traceparent: 00-{trace}-b7ad6b7169203331-01\r\n".encode()
        await wire.send(request(plugin="traced", extra=caller))
        assert (await wire.receive()).json()["trace"] == trace
    await eventually(lambda: len(site.spans) == 2)
    assert sorted(f"{span.context.trace_id:032x}" for span in site.spans) == traces
    assert {span.attributes["http.response.status_code"] for span in site.spans if span.attributes} == {200}
    assert {span.name for span in site.spans} == {"plugin.execute"}


async def test_an_evicted_version_is_loaded_for_whichever_router_is_asked_for_it(site: Site, both: list[Wire]) -> None:
    await site.stage(order(1, await site.version("1.0.0", "sleepy")))
    moment = timedelta(microseconds=1)
    evictor = Evictor(site.supervisor, EvictionPolicy(idle_after=moment, in_use=moment))
    for reloads, wire in enumerate((*both, *both), 1):
        await site.pool.refresh()  # nothing is in flight, as the evictor should know
        await evictor.look()
        await site.pool.spread("sleepy")  # until a router hears of it, it may use the process that is on its way out
        host = site.supervisor.routes["sleepy"].hosts["1.0.0"]
        assert getattr(host, "evicted")  # noqa: B009 - the router's view of it does not say
        before = site.supervisor.tally.reloads
        assert (await ask(wire, "echo", "sleepy")).status == 200
        assert site.supervisor.tally.reloads == before + 1, reloads


async def test_a_hosts_standby_takes_over_in_every_router_and_nobody_runs_twice(site: Site, both: list[Wire]) -> None:
    await site.stage(order(1, await site.version("1.0.0", "spared")))
    first = await _ready(site, "spared", 2)
    died = await everywhere(both, "die", "spared")  # each kills the process it meets
    assert [answer.status for answer in died] == [502] * 2
    assert all("HOST_FAILED" in answer.code and "code 3" in answer.body.decode() for answer in died)
    assert [answer.status for answer in await everywhere(both, "echo", "spared")] == [200] * 2
    assert not set(await _ready(site, "spared", 2)) & set(first)


@pytest.mark.parametrize(("method", "word"), [("forge", "BAD_REPLY: the host broke the protocol"), ("shut", "SIGKILL")])
async def test_a_host_that_forges_or_shuts_a_routers_line_is_ended(
    site: Site, both: list[Wire], method: str, word: str
) -> None:
    await site.stage(order(1, await site.version("1.0.0", method)))
    answer = await ask(both[1], method, method)
    assert (answer.status, answer.code) == (502, "HOST_FAILED")
    assert word in answer.json()["error"]["message"]
    assert [answer.status for answer in await everywhere(both, "echo", method)] == [200] * 2
    await eventually(lambda: [host.crashes for host in site.supervisor.hosts() if host.plugin == method] == [1])


async def _ready(site: Site, plugin: str, count: int) -> list[int]:
    def pids() -> list[int]:
        hosts = [host for host in site.supervisor.hosts() if host.plugin == plugin]
        return [host.pid for host in hosts if host.state in ("Ready", "Standby") and host.pid]

    await eventually(lambda: len(pids()) == count, within=30)
    return pids()


async def test_a_host_killed_under_load_fails_only_what_it_had_begun(site: Site) -> None:
    """Three kills under four callers. Each time a request of each router is in the process's line, unread, when it dies."""
    await site.stage(order(1, await site.version("1.0.0", "killed")))
    answers: dict[int, Response] = {}
    unread: list[Response] = []
    with executions() as ran:
        wires, late = [*await site.wires(), *await site.wires()], await site.wires()
        going = True

        async def caller(first: int, wire: Wire) -> None:
            number = first
            while going:
                await wire.send(request("count", f"tenant-{first}", b'{"id": %d}' % number, plugin="killed"))
                answers[number] = await wire.receive()
                number += len(wires)

        callers = [asyncio.create_task(caller(number, wire)) for number, wire in enumerate(wires)]
        for _ in range(3):
            enough = len(answers) + 40
            await eventually(lambda enough=enough: len(answers) >= enough, within=30)
            (victim,) = await _ready(site, "killed", 1)
            os.kill(victim, signal.SIGSTOP)
            unanswered = [asyncio.create_task(ask(wire, "echo", "killed", tenant="late")) for wire in late]
            await eventually(lambda victim=victim: _in_flight(site, victim) == len(wires) + len(late), within=30)
            os.kill(victim, signal.SIGKILL)
            unread += [await task for task in unanswered]
        enough = len(answers) + 40
        await eventually(lambda: len(answers) >= enough, within=30)
        going = False
        await asyncio.gather(*callers)
        ok = {number for number, answer in answers.items() if answer.status == 200}
        await eventually(lambda: ok <= set(ran.times))
    for wire in (*wires, *late):
        await wire.close()
    assert [answer.status for answer in unread] == [200] * 6
    failed = {number: answer for number, answer in answers.items() if answer.status != 200}
    assert 0 < len(failed) <= 3 * len(wires)
    assert [a.body for a in failed.values() if not re.search(rb"HOST_FAILED.*SIGKILL.*it may have run", a.body)] == []
    assert max(ran.times.values()) == 1


def _in_flight(site: Site, pid: int) -> int:
    return sum(host.in_flight for host in site.supervisor.hosts() if host.pid == pid)


async def test_a_taken_port_is_noticed(site: Site) -> None:
    other = RouterPool(site.setup, 2, {}, site.book)
    with pytest.raises(OSError, match="in use"):
        await other.bind("127.0.0.1", site.port)
    await other.close()


async def test_a_killed_router_fails_only_its_own_and_another_knows_everything_before_it_listens(
    tmp_path: Path,
) -> None:
    answers: dict[int, int] = {}
    cut: list[int] = []
    began = datetime.now(UTC)
    with leaves_nothing(), executions() as ran:
        async with routers(tmp_path) as site:
            await site.stage(order(1, await site.version("1.0.0")))
            victim, other = site.pool.live
            first, second = await site.wires()
            await first.send(request("hold"))
            going = True

            async def caller(start: int) -> None:
                number = start
                while going:
                    try:
                        wire = Wire(*await asyncio.open_connection("127.0.0.1", site.port))
                    except (
                        ConnectionResetError
                    ):  # it stood in the queue of the router that was killed: nothing was sent
                        continue
                    try:
                        while going:
                            await wire.send(request("count", body=b'{"id": %d}' % number))
                            answers[number] = (await wire.receive()).status
                            number += 4
                    except (EOFError, ConnectionError):  # its router was killed: nobody may try that one again
                        cut.append(number)
                        number += 4
                    finally:
                        await wire.close()

            callers = [asyncio.create_task(caller(start)) for start in range(4)]
            await eventually(lambda: len(answers) >= 40, within=30)
            os.kill(victim.pid, signal.SIGKILL)
            assert await first.ended()
            await victim.ended.wait()
            # What happens while it is away is known to the one that takes its place, which has never heard of it.
            await site.stage(order(2, await site.version("2.0.0")))
            enough = len(answers) + 40
            await eventually(lambda: len(answers) >= enough, within=30)
            assert (await ask(second, "echo")).headers["x-hotswap-version"] == "2.0.0"
            await eventually(lambda: len(site.pool.live) == 2, within=60)
            going = False
            await asyncio.gather(*callers)
            assert other in site.pool.live
            await site.pool.refresh()
            figures = site.supervisor.figures("invoice", began).versions
            again, also = await site.wires()
            assert (await ask(again, "echo")).headers["x-hotswap-version"] == "2.0.0"
            for wire in (again, also, first, second):
                await wire.close()
    assert set(answers.values()) == {200}
    assert len(cut) <= 8  # the one it was cut with, and one that came to the dying listener
    assert max(ran.times.values()) == 1
    assert set(answers) <= set(ran.times) <= set(answers) | set(cut)
    counted = sum(each.requests for each in figures)  # with what the dead one had not told yet, and the second's echo
    assert len(answers) + 1 <= counted <= len(answers) + 1 + len(cut)
    assert counted == sum(sum(each.latency_buckets.values()) for each in figures)


async def test_hosts_that_have_no_line_left_are_replaced_and_a_router_that_hangs_holds_up_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_pool, "SPARE_LINES", 0)
    async with routers(tmp_path) as site:
        old = await site.version("1.0.0")
        await site.stage(order(1, old))
        (before,) = site.supervisor.hosts()
        async with traffic(f"http://127.0.0.1:{site.port}", "invoice", callers=2) as seen:
            await eventually(lambda: seen.requests > 10, within=30)
            killed, kept = site.pool.live
            os.kill(killed.pid, signal.SIGKILL)
            await eventually(lambda: killed.gone and len(site.pool.live) == 2, within=60)
        assert [fault for fault in seen.refused if fault[0].isdigit()] == []  # cut with their router, never refused
        (after,) = [host for host in site.supervisor.hosts() if host.state == "Ready"]
        assert after.pid != before.pid
        assert after.crashes == 0
        wires = await site.wires()
        assert [answer.status for answer in await everywhere(wires, "echo", "invoice")] == [200] * 2
        for wire in wires:
            await wire.close()
        monkeypatch.setattr(router_pool, "ACK_PATIENCE", 0.3)
        os.kill(kept.pid, signal.SIGSTOP)
        await site.stage(order(2, old, await site.version("2.0.0"), 10_000))
        assert kept.gone
        await eventually(lambda: len(site.pool.live) == 2, within=60)
        wires = await site.wires()
        served = [answer.headers["x-hotswap-version"] for answer in await everywhere(wires, "echo", "invoice")]
        assert served == ["2.0.0"] * 2
        for wire in wires:
            await wire.close()


async def test_routers_that_cannot_serve_say_why(site: Site) -> None:
    other = RouterPool(site.setup, 1, {}, site.book)
    try:
        await other.bind("127.0.0.1", 0)
        await eventually(lambda: other.processes)
        other.processes[0].kill()
        with pytest.raises(HotSwapError, match=r"router process 0 cannot serve: \(pid \d+\) was killed by signal 9"):
            await other.serve()
    finally:
        await other.close()
