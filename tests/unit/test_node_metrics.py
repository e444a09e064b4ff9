"""The page for Prometheus: the right numbers in the right format, and no step of making it that a request would notice."""

import asyncio
import gc
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hotswap.node import metrics
from hotswap.node.exposition import Limits, labels
from hotswap.node.figures import FigureBook, Result
from hotswap.node.hosts import Tally
from hotswap.node.router import Router
from hotswap.node.standing import VERSIONS_A_TURN, Standing
from hotswap.node.usage import CpuShares
from tests.unit.node_fakes import FakeLauncher, make_supervisor, order


async def page(book: FigureBook, supervisor: Any, router: Any) -> str:
    return b"".join([piece async for piece in metrics.render("QA", supervisor, book, router, CpuShares())]).decode()


async def test_every_number_is_where_prometheus_finds_it() -> None:
    book = FigureBook(lambda: 100.0)
    counter = book.counter("invoice", "1.0.0")
    for milliseconds, result in ((4, Result.OK), (40, Result.OK), (400, Result.ERROR), (0, Result.FAILURE)):
        counter.record(100.0, milliseconds / 1000, result)
    counter.rejected = 7
    counter.loaded(15)
    supervisor = make_supervisor(FakeLauncher(), book=book)
    await supervisor.stage(order(4, "1.0.0"))
    router = Router("node-t", supervisor.routes, "secret", timedelta(seconds=1))
    router.refused["overload"] = 3
    families = {family.name: family for family in text_string_to_metric_families(await page(book, supervisor, router))}

    def value(name: str, **wanted: str) -> float:
        [sample] = [
            sample
            for family in families.values()
            for sample in family.samples
            if sample.name == name and wanted.items() <= sample.labels.items()
        ]
        return sample.value

    outcomes = {"ok": 2, "error": 1, "failure": 1, "rejected": 7}
    for outcome, count in outcomes.items():
        assert value("plugin_invocations_total", outcome=outcome, environment="QA", version="1.0.0") == count
    seconds = "plugin_execution_duration_seconds"
    assert [value(f"{seconds}_bucket", le=le) for le in ("0.0025", "0.005", "0.05", "0.5", "+Inf")] == [0, 1, 2, 3, 3]
    assert value(f"{seconds}_count") == 3
    assert value(f"{seconds}_sum") == pytest.approx(0.444, rel=0.02)
    assert value("plugin_load_duration_seconds_count", plugin="invoice") == 2  # the fake one's and ours
    assert value("hotswap_route_generation", plugin="invoice") == 4
    assert value("hotswap_hosts", state="Ready") == 1
    assert value("plugin_memory_bytes", plugin="invoice") == supervisor.hosts()[0].memory_bytes > 0
    assert value("plugin_host_crashes_total", plugin="invoice") == 0
    assert value("plugins_active") == 1
    assert value("hotswap_router_refused_total", reason="overload") == 3
    assert value("hotswap_router_refused_total", reason="concurrent") == 0
    assert {families[name].type for name in ("plugin_invocations", "hotswap_router_refused")} == {"counter"}
    assert families[seconds].type == "histogram"
    await supervisor.close()
    await router.close()


async def test_two_thousand_groups_are_written_in_steps_of_a_few() -> None:
    """Deterministic: how much is done between two turns of the loop, not how long it took."""
    book = FigureBook(lambda: 100.0)
    touched = 0

    def counter(plugin: str, version: str, look_up: Any = book.counter) -> Any:
        nonlocal touched
        touched += 1
        return look_up(plugin, version)

    for number in range(2000):
        book.counter(f"plugin-{number:04}", "1.0.0").record(100.0, 0.01, Result.OK)
    book.counter = counter  # type: ignore[method-assign]
    reports = 0

    def report() -> Any:
        nonlocal reports
        reports += 1
        return [SimpleNamespace(state="Ready", plugin=f"p{reports}", version="1", memory_bytes=1, crashes=0, pid=None)]

    hosts = {str(number): SimpleNamespace(reports=report) for number in range(2000)}
    supervisor: Any = Standing("node-t", book)
    supervisor._lanes = {"p": SimpleNamespace(hosts=hosts, draining={})}
    supervisor.routes, supervisor.tally = {}, Tally()
    router = Router("node-t", {}, "secret", timedelta(seconds=1))
    making = asyncio.create_task(page(book, supervisor, router))
    longest, before, turns = 0, 0, 0
    while not making.done():
        await asyncio.sleep(0)
        longest, before, turns = max(longest, touched + reports - before), touched + reports, turns + 1
    assert touched + reports == 4000
    assert longest <= metrics.GROUPS_A_STEP == VERSIONS_A_TURN
    assert turns > 4000 / metrics.GROUPS_A_STEP
    assert (await making).count("plugin_execution_duration_seconds_count") == 2000
    await router.close()
    gc.collect()


def test_labels_are_escaped_and_sorted() -> None:
    assert labels(b='a"b\\c\nd', a="1") == 'a="1",b="a\\"b\\\\c\\nd"'


def test_a_histogram_without_observations_is_all_zero() -> None:
    rows, count, total = Limits(0.1, 1.0).cumulative({})
    assert (list(rows), count, total) == ([("0.1", 0), ("1.0", 0), ("+Inf", 0)], 0, 0.0)
