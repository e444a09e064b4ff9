"""What a node does with PostgreSQL's word: when it follows, when it waits, when it forgets, how it tells of itself."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import HostFailed, Unavailable
from hotswap.domain.quota import QuotaOverride, TenantQuota
from hotswap.domain.registry import NodeRecord
from hotswap.domain.routes import DesiredRoute
from hotswap.node import reconcile
from hotswap.node.reconcile import Reconciler
from hotswap.node.supervisor import NodeSupervisor
from tests.unit.node_fakes import FakeLauncher, eventually, make_supervisor, order, ref

TICK = timedelta(seconds=0.01)


class QuotaRows:
    """Tenants' own limits, in pages."""

    def __init__(self) -> None:
        self.rows: list[TenantQuota] = []
        self.pages = 0

    async def stamp(self) -> str:
        return str(hash(tuple(self.rows)))

    async def list(self, after: tuple[str, str] | None = None, limit: int = 500) -> Sequence[TenantQuota]:
        self.pages += 1
        rows = sorted(self.rows, key=lambda row: (row.tenant, row.plugin))
        return [row for row in rows if after is None or (row.tenant, row.plugin) > after][:limit]


class Record:
    """The three calls a node makes of PostgreSQL."""

    def __init__(self) -> None:
        self.wanted: list[DesiredRoute] = []
        self.boots: dict[str, str] = {}
        self.beats = 0
        self.fault: Exception | None = None
        self.quotas = QuotaRows()

    @property
    def routes(self) -> Self:
        return self

    @property
    def nodes(self) -> Self:
        return self

    async def desired(self, environment: str) -> Sequence[DesiredRoute]:
        assert environment == "QA"
        return list(self.wanted)

    async def beat(self, node_id: str, boot_id: str) -> bool:
        self.beats += 1
        return self.boots.get(node_id) == boot_id

    async def register(self, node: NodeRecord) -> None:
        self.boots[node.node_id] = node.boot_id

    async def remove(self, node_id: str, boot_id: str) -> None:
        if self.boots.get(node_id) == boot_id:
            del self.boots[node_id]

    async def commit(self) -> None: ...

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return self

    async def __aexit__(self, *_: object) -> None: ...


class Desk:
    def __init__(self) -> None:
        self.launcher = FakeLauncher()
        self.supervisor: NodeSupervisor = make_supervisor(self.launcher)
        self.record = Record()
        node = NodeRecord(
            node_id="node-t",
            environment=Environment.QA,
            boot_id="boot-1",
            router_url="http://127.0.0.1:1",
            admin_url="http://127.0.0.1:2",
            sandbox_tier="fake",
            last_seen_at=datetime.now(UTC),
        )
        self.quotas: list[Mapping[tuple[str, str], QuotaOverride]] = []
        factory: Any = lambda: self.record  # noqa: E731
        self.reconciler = Reconciler(self.supervisor, factory, node, TICK, TICK, self.quotas.append)

    def want(self, *orders: Any) -> None:
        self.record.wanted = [DesiredRoute(order=item) for item in orders]

    def serving(self) -> dict[str, int]:
        return {plugin: route.generation for plugin, route in self.supervisor.routes.items()}


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.supervisor.close()


async def test_restoring_waits_for_postgresql_and_then_serves_everything(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "RETRY_SECONDS", 0.01)
    desk.record.fault = Unavailable("PostgreSQL does not answer")
    desk.want(order(3, "1.0.0", plugin="one"), order(8, "2.0.0", plugin="two"))
    restoring = asyncio.create_task(desk.reconciler.restore())
    await asyncio.sleep(0.05)
    assert not restoring.done()
    desk.record.fault = None
    await restoring
    assert desk.serving() == {"one": 3, "two": 8}


async def test_a_plugin_that_cannot_load_does_not_keep_the_others_from_restoring(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.launcher.broken["6.6.6"] = HostFailed("cannot import", "LOAD_FAILED")
    desk.launcher.broken["7.7.7"] = ZeroDivisionError("a bug of ours")  # type: ignore[assignment]
    desk.want(order(1, "6.6.6", plugin="bad"), order(1, "7.7.7", plugin="bug"), order(1, "1.0.0", plugin="good"))
    await desk.reconciler.restore()
    assert desk.serving() == {"bad": 1, "good": 1}
    assert "bug" in caplog.text


async def test_a_new_generation_is_left_to_its_workflow_for_one_look(desk: Desk) -> None:
    desk.want(order(1, "1.0.0"))
    await desk.reconciler.restore()
    desk.want(order(2, "2.0.0"))
    await desk.reconciler.reconcile()
    assert desk.serving() == {"invoice": 1}
    await desk.reconciler.reconcile()
    assert desk.serving() == {"invoice": 2}


async def test_a_slow_look_undoes_nothing_that_was_ordered_meanwhile(desk: Desk) -> None:
    desk.want(order(1, "1.0.0"))
    await desk.reconciler.restore()
    await desk.supervisor.stage(order(5, "2.0.0"))
    await desk.reconciler.reconcile()
    await desk.reconciler.reconcile()
    assert desk.serving() == {"invoice": 5}


async def test_a_host_that_a_lost_order_left_is_unloaded_when_the_route_has_long_been_the_same(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The node was away when its workflow ordered the retirement."""
    desk.want(order(1, "1.0.0", "2.0.0"))
    await desk.reconciler.restore()
    desk.want(order(2, "2.0.0"))
    for _ in range(reconcile.SURPLUS_LOOKS):
        await desk.reconciler.reconcile()
        assert {host.version for host in desk.supervisor.hosts()} == {"1.0.0", "2.0.0"}, "its order may still come"
    await desk.reconciler.reconcile()
    await eventually(lambda: {host.version for host in desk.supervisor.hosts()} == {"2.0.0"})
    assert "does not name 1.0.0" in caplog.text


async def test_a_candidate_and_warm_versions_are_never_surplus(desk: Desk) -> None:
    desk.want(order(1, "1.0.0", "2.0.0"))
    await desk.reconciler.restore()
    for _ in range(3 * reconcile.SURPLUS_LOOKS):
        await desk.reconciler.reconcile()
    assert {host.version for host in desk.supervisor.hosts()} == {"1.0.0", "2.0.0"}


async def test_every_new_route_gives_its_workflow_the_whole_time_again(desk: Desk) -> None:
    desk.want(order(1, "1.0.0", "2.0.0"))
    await desk.reconciler.restore()
    for generation in (2, 3):
        desk.want(order(generation, "2.0.0"))
        for _ in range(reconcile.SURPLUS_LOOKS):
            await desk.reconciler.reconcile()
    assert {host.version for host in desk.supervisor.hosts()} == {"1.0.0", "2.0.0"}


class Tenants:
    """Counts how often it was asked to look again."""

    def __init__(self) -> None:
        self.refreshed = 0
        self.fault: Exception | None = None

    def current(self, tenant: str, plugin: str) -> None:
        """Nobody has settings."""

    async def ensure(self, plugin: str) -> None: ...

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.fault is not None:
            raise self.fault


async def test_tenants_settings_are_kept_fresh_and_their_outage_is_postgresqls(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    tenants = Tenants()
    desk.reconciler._tenants = tenants
    running = asyncio.create_task(desk.reconciler.run())
    await eventually(lambda: tenants.refreshed >= 2)
    assert "is away" not in caplog.text
    tenants.fault = Unavailable("no answer")
    await eventually(lambda: "PostgreSQL is away" in caplog.text)
    running.cancel()
    await asyncio.wait({running})


async def test_pins_are_followed_without_a_new_generation(desk: Desk) -> None:
    desk.want(order(1, "1.0.0"))
    await desk.reconciler.restore()
    desk.record.wanted = [DesiredRoute(order=order(1, "1.0.0"), pins={"vip": ref("0.9.0")})]
    await desk.reconciler.reconcile()
    assert desk.supervisor.routes["invoice"].pins == {"vip": ref("0.9.0")}
    assert {host.version for host in desk.supervisor.hosts()} == {"1.0.0", "0.9.0"}


async def test_word_of_a_tenants_change_brings_pins_at_once_and_no_new_generation(desk: Desk) -> None:
    desk.want(order(1, "1.0.0"))
    await desk.reconciler.restore()
    desk.record.wanted = [DesiredRoute(order=order(1, "1.0.0"), pins={"vip": ref("0.9.0")})]
    await desk.reconciler.tenants_changed()
    assert desk.supervisor.routes["invoice"].pins == {"vip": ref("0.9.0")}
    desk.record.wanted = [DesiredRoute(order=order(2, "2.0.0"), pins={})]
    for _ in range(3):
        await desk.reconciler.tenants_changed()
    assert desk.serving() == {"invoice": 1}, "that is its workflow's to bring"
    desk.record.fault = Unavailable("away")
    await desk.reconciler.tenants_changed()


async def test_what_nobody_wants_any_more_is_unloaded(desk: Desk) -> None:
    desk.want(order(1, "1.0.0"))
    await desk.reconciler.restore()
    desk.want()
    await desk.reconciler.reconcile()
    assert desk.serving() == {}
    await eventually(lambda: desk.launcher.live() == [])


async def test_an_order_that_comes_during_the_look_is_not_forgotten(desk: Desk) -> None:
    """The row was read before the workflow wrote it; the order arrived before the look was over."""

    async def late(environment: str) -> Sequence[DesiredRoute]:
        await desk.supervisor.stage(order(1, None, "1.0.0"))
        return []

    desk.record.desired = late  # type: ignore[method-assign]
    await desk.reconciler.reconcile()
    assert desk.serving() == {"invoice": 1}


async def test_a_node_registers_when_the_record_does_not_know_this_boot(desk: Desk) -> None:
    desk.record.boots["node-t"] = "boot-0"
    await desk.reconciler.beat()
    assert desk.record.boots == {"node-t": "boot-1"}
    await desk.reconciler.leave_now()
    assert desk.record.boots == {}


async def test_a_process_that_is_being_replaced_does_not_take_the_row_back(desk: Desk) -> None:
    await desk.reconciler.beat()
    desk.reconciler.stand_back(True)
    desk.record.boots["node-t"] = "boot-2"  # the next process
    await desk.reconciler.beat()
    await desk.reconciler.leave_now()
    assert desk.record.boots == {"node-t": "boot-2"}
    desk.reconciler.stand_back(False)  # which did not make it after all
    await desk.reconciler.beat()
    assert desk.record.boots == {"node-t": "boot-1"}


async def test_catching_up_follows_at_once_and_unloads_what_went_meanwhile(desk: Desk) -> None:
    desk.want(order(1, "1.0.0"), order(1, "1.0.0", plugin="other"), order(1, "1.0.0", plugin="third"))
    await desk.reconciler.restore()
    desk.launcher.broken = {"9.0.0": HostFailed("cannot import", "LOAD_FAILED")}
    desk.want(order(2, "2.0.0"), order(2, "9.0.0", plugin="third"), order(4, "4.0.0", plugin="new"))
    await desk.reconciler.catch_up()
    assert desk.serving() == {"invoice": 2, "third": 2, "new": 4}
    await eventually(lambda: {host.spec.version for host in desk.launcher.live()} == {"2.0.0", "4.0.0"})
    desk.record.fault = Unavailable("away")
    with pytest.raises(Unavailable):  # then the process before serves on
        await desk.reconciler.catch_up()


async def test_a_process_that_only_finishes_follows_without_waiting_for_a_second_look(desk: Desk) -> None:
    desk.want(order(1, "1.0.0"), order(1, "1.0.0", plugin="other"))
    await desk.reconciler.restore()
    desk.want(order(2, "2.0.0"))
    await desk.reconciler.follow_now()
    assert desk.serving() == {"invoice": 2}
    desk.record.fault = Unavailable("away")
    await desk.reconciler.follow_now()
    assert desk.serving() == {"invoice": 2}


async def test_outages_end_neither_serving_nor_trying_and_are_told_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    desk.want(order(1, "1.0.0"))
    await desk.reconciler.restore()
    running = asyncio.create_task(desk.reconciler.run())
    await eventually(lambda: desk.record.beats >= 3)
    desk.record.fault = Unavailable("PostgreSQL does not answer")
    await asyncio.sleep(0.1)
    desk.record.fault = RuntimeError("a bug of ours")
    await asyncio.sleep(0.05)
    desk.record.fault = None
    before = desk.record.beats
    await eventually(lambda: desk.record.beats > before)
    await eventually(lambda: "PostgreSQL is back" in caplog.text)
    assert desk.serving() == {"invoice": 1}
    assert caplog.text.count("PostgreSQL is away") == 1
    running.cancel()
    await asyncio.wait({running})


async def test_quotas_are_there_before_the_first_request_and_read_again_only_when_one_has_changed(desk: Desk) -> None:
    desk.record.quotas.rows = [
        TenantQuota(tenant=f"t{number:04}", plugin="invoice", override=QuotaOverride(concurrent=number + 1))
        for number in range(1200)
    ]
    await desk.reconciler.restore()
    [told] = desk.quotas
    assert len(told) == 1200
    assert told["t1199", "invoice"].concurrent == 1200
    pages = desk.record.quotas.pages
    running = asyncio.create_task(desk.reconciler.run())
    await eventually(lambda: desk.record.beats > 5)
    assert (len(desk.quotas), desk.record.quotas.pages) == (1, pages)
    desk.record.quotas.rows = []
    await eventually(lambda: desk.quotas[-1] == {})
    running.cancel()
    await asyncio.wait({running})


async def test_a_quota_that_cannot_be_used_is_named_once_and_spoils_no_other(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    good = TenantQuota(tenant="globex", plugin="invoice", override=QuotaOverride(concurrent=3))
    desk.record.quotas.rows = [TenantQuota.read("acme", "invoice", {"concurrent": "many"}), good]
    await desk.reconciler.restore()
    await desk.reconciler.restore()
    assert desk.quotas == [{("globex", "invoice"): QuotaOverride(concurrent=3)}]
    assert caplog.text.count("the quota of tenant acme for invoice cannot be used (concurrent: ") == 1
