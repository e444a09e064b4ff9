"""One contract for routes, pins and nodes: PostgreSQL and its in-memory twin."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import InvalidInput, NotFound, StaleGeneration
from hotswap.domain.registry import Page
from hotswap.domain.routes import DesiredRoute, RouteOrder, RouteRecord, RouteState
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import make_node, make_plugin, make_ref, make_route, make_version

DEV, PROD = "Development", "Production"
PLUGIN = "exporter"
FIRST = make_route(PLUGIN)
CANARY = make_route(PLUGIN, "1.0.0", "2.0.0", 1000)


@pytest.fixture
async def registered(unit_of_work: UnitOfWorkFactory) -> UnitOfWorkFactory:
    """PLUGIN is registered with two versions."""
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        await uow.versions.add(make_version(PLUGIN, "1.0.0"))
        await uow.versions.add(make_version(PLUGIN, "2.0.0"))
        await uow.commit()
    return unit_of_work


async def write(
    unit_of_work: UnitOfWorkFactory, expected: int, state: RouteState, deployment: str, environment: str = DEV
) -> RouteRecord:
    async with unit_of_work() as uow:
        record = await uow.routes.write(environment, PLUGIN, expected, state, deployment)
        await uow.commit()
    return record


async def test_generations_count_up_from_one(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        assert await uow.routes.current(DEV, PLUGIN) is None
        before = await uow.now()
    first = await write(registered, 0, FIRST, "dep_1")
    second = await write(registered, 1, CANARY, "dep_2")
    assert (first.generation, first.state, first.deployment_id) == (1, FIRST, "dep_1")
    assert (second.generation, second.state, second.plugin, second.environment) == (2, CANARY, PLUGIN, DEV)
    assert before <= first.written_at <= second.written_at
    async with registered() as uow:
        assert await uow.routes.current(DEV, PLUGIN) == second
        assert await uow.routes.current(PROD, PLUGIN) is None
        assert await uow.routes.history(DEV, PLUGIN, Page()) == ([second, first], 2)
        assert await uow.routes.history(DEV, PLUGIN, Page(limit=1, offset=1)) == ([first], 2)
        assert await uow.routes.history(DEV, PLUGIN, Page(offset=2)) == ([], 2)


async def test_a_repeated_write_returns_the_row_of_the_first_time(registered: UnitOfWorkFactory) -> None:
    first = await write(registered, 0, FIRST, "dep_1")
    assert await write(registered, 0, FIRST, "dep_1") == first
    await write(registered, 1, CANARY, "dep_1")
    assert await write(registered, 0, FIRST, "dep_1") == first
    async with registered() as uow:
        assert (await uow.routes.history(DEV, PLUGIN, Page()))[1] == 2


@pytest.mark.parametrize(
    ("expected", "state", "deployment"),
    [(0, FIRST, "dep_2"), (0, CANARY, "dep_1"), (2, CANARY, "dep_1"), (9, CANARY, "dep_1"), (-1, FIRST, "dep_1")],
)
async def test_a_write_on_another_generation_is_stale(
    registered: UnitOfWorkFactory, expected: int, state: RouteState, deployment: str
) -> None:
    held = await write(registered, 0, FIRST, "dep_1")
    async with registered() as uow:
        with pytest.raises(StaleGeneration, match=rf"expected at generation {expected}, but generation 1 of .* dep_1"):
            await uow.routes.write(DEV, PLUGIN, expected, state, deployment)
        assert await uow.routes.history(DEV, PLUGIN, Page()) == ([held], 1)
        # The refusal leaves the unit usable.
        await uow.routes.write(DEV, PLUGIN, 1, CANARY, "dep_2")
        await uow.commit()


async def test_environments_count_apart(registered: UnitOfWorkFactory) -> None:
    await write(registered, 0, FIRST, "dep_1")
    assert (await write(registered, 0, FIRST, "dep_1", PROD)).generation == 1


async def test_of_twenty_concurrent_writers_one_wins(registered: UnitOfWorkFactory) -> None:
    async def attempt(number: int) -> RouteRecord | None:
        try:
            return await write(registered, 0, FIRST, f"dep_{number}")
        except StaleGeneration:
            return None

    won = [record for record in await asyncio.gather(*(attempt(number) for number in range(20))) if record]
    assert len(won) == 1
    async with registered() as uow:
        assert await uow.routes.history(DEV, PLUGIN, Page()) == (won, 1)


async def test_twenty_concurrent_repeats_of_one_write_all_get_its_row(registered: UnitOfWorkFactory) -> None:
    records = await asyncio.gather(*(write(registered, 0, FIRST, "dep_1") for _ in range(20)))
    assert all(record == records[0] for record in records)
    async with registered() as uow:
        assert (await uow.routes.history(DEV, PLUGIN, Page()))[1] == 1


async def test_an_abandoned_write_lets_the_waiting_one_through(registered: UnitOfWorkFactory) -> None:
    async with registered() as abandoned:
        await abandoned.routes.write(DEV, PLUGIN, 0, FIRST, "dep_1")
        waiting = asyncio.create_task(write(registered, 0, CANARY, "dep_2"))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
    assert (await waiting).deployment_id == "dep_2"


async def test_a_route_names_only_what_is_registered(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        for environment, plugin, state in (
            (DEV, "ghost", RouteState()),
            ("Moon", PLUGIN, FIRST),
            (DEV, PLUGIN, make_route(PLUGIN, "3.0.0")),
            (DEV, PLUGIN, make_route(PLUGIN, "1.0.0", "3.0.0", 1)),
        ):
            with pytest.raises(NotFound, match="not registered"):
                await uow.routes.write(environment, plugin, 0, state, "dep")
        assert (await uow.routes.write(DEV, PLUGIN, 0, FIRST, "dep")).generation == 1
        assert await uow.routes.current("Moon", PLUGIN) is None
        assert await uow.routes.desired("Moon") == []


async def test_desired_is_the_latest_route_of_each_plugin_with_its_pins(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        for name in ("another", "empty", "elsewhere", "unrouted"):
            await uow.plugins.add(make_plugin(name))
            await uow.versions.add(make_version(name))
            await uow.pins.pin("t-0", name, "1.0.0", "admin")
        warm = RouteState(warm=(make_ref("another"),))
        await uow.routes.write(DEV, PLUGIN, 0, FIRST, "dep")
        await uow.routes.write(DEV, PLUGIN, 1, CANARY, "dep")
        await uow.routes.write(DEV, "another", 0, warm, "dep")
        await uow.routes.write(DEV, "empty", 0, make_route("empty"), "dep")
        await uow.routes.write(DEV, "empty", 1, RouteState(seed="kept"), "dep")
        await uow.routes.write(PROD, "elsewhere", 0, make_route("elsewhere"), "dep")
        await uow.pins.pin("t-1", PLUGIN, "1.0.0", "admin")
        await uow.commit()
        assert await uow.routes.desired(DEV) == [
            DesiredRoute(
                order=RouteOrder(plugin="another", generation=1, state=warm), pins={"t-0": make_ref("another")}
            ),
            DesiredRoute(order=RouteOrder(plugin=PLUGIN, generation=2, state=CANARY), pins={"t-1": make_ref(PLUGIN)}),
        ]
        assert [route.order.plugin for route in await uow.routes.desired(PROD)] == ["elsewhere"]
        assert await uow.routes.desired("QA") == []


async def test_a_pin_can_be_set_moved_and_taken_away(registered: UnitOfWorkFactory) -> None:
    async def pin(tenant: str, version: str | None) -> dict[str, str]:
        async with registered() as uow:
            await uow.pins.pin(tenant, PLUGIN, version, "admin")
            await uow.commit()
            return {tenant: ref.version for tenant, ref in (await uow.pins.pins(PLUGIN)).items()}

    assert await pin("t-1", "1.0.0") == {"t-1": "1.0.0"}
    assert await pin("t-2", "2.0.0") == {"t-1": "1.0.0", "t-2": "2.0.0"}
    assert await pin("t-1", "2.0.0") == {"t-1": "2.0.0", "t-2": "2.0.0"}
    assert await pin("t-1", None) == {"t-2": "2.0.0"}
    assert await pin("t-1", None) == {"t-2": "2.0.0"}
    assert await pin("never", None) == {"t-2": "2.0.0"}
    async with registered() as uow:
        assert await uow.pins.pins(PLUGIN) == {"t-2": make_ref(PLUGIN, "2.0.0")}
        assert await uow.pins.pins("ghost") == {}


async def test_a_pin_names_only_what_is_registered(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        for plugin, version in ((PLUGIN, "9.0.0"), ("ghost", "1.0.0")):
            with pytest.raises(NotFound, match=f"version {version} of plugin '{plugin}'"):
                await uow.pins.pin("t", plugin, version, "admin")
        await uow.pins.pin("t", PLUGIN, "1.0.0", "admin")
        await uow.commit()
        assert await uow.pins.pins(PLUGIN) == {"t": make_ref(PLUGIN)}


async def test_a_node_that_registers_again_replaces_itself(unit_of_work: UnitOfWorkFactory) -> None:
    first = make_node("node-1")
    again = make_node(
        "node-1", environment=Environment.PRODUCTION, router_url="http://127.0.0.1:9", sandbox_tier="none"
    )
    async with unit_of_work() as uow:
        await uow.nodes.register(first)
        assert await uow.nodes.list(None, None) == [first]
        await uow.nodes.register(again)
        assert await uow.nodes.list(None, None) == [again]
        assert not await uow.nodes.beat("node-1", first.boot_id)
        assert await uow.nodes.beat("node-1", again.boot_id)
        assert not await uow.nodes.beat("node-2", again.boot_id)
        await uow.nodes.remove("node-1", first.boot_id)  # the one that was replaced leaves: not its row any more
        assert [node.boot_id for node in await uow.nodes.list(None, None)] == [again.boot_id]
        await uow.nodes.remove("node-1", again.boot_id)
        await uow.nodes.remove("node-1", again.boot_id)
        assert await uow.nodes.list(None, None) == []


async def test_a_beat_counts_by_the_servers_clock(unit_of_work: UnitOfWorkFactory) -> None:
    node = make_node(last_seen_at=datetime(2020, 1, 1, tzinfo=UTC))
    async with unit_of_work() as uow:
        await uow.nodes.register(node)
        assert await uow.nodes.list(None, timedelta(minutes=1)) == []
        before = await uow.now()
        assert await uow.nodes.beat(node.node_id, node.boot_id)
        (alive,) = await uow.nodes.list(None, timedelta(minutes=1))
        assert before <= alive.last_seen_at <= await uow.now()
        assert await uow.nodes.list(None, timedelta(0)) == []


async def test_a_node_whose_clock_is_ahead_is_not_alive_for_longer(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.nodes.register(make_node(last_seen_at=datetime(2100, 1, 1, tzinfo=UTC)))
        (node,) = await uow.nodes.list(None, timedelta(minutes=1))
        assert node.last_seen_at <= await uow.now()


async def test_nodes_are_listed_by_id_and_environment(unit_of_work: UnitOfWorkFactory) -> None:
    rows = [make_node(node_id) for node_id in ("n-2", "n-10", "n-1")]
    elsewhere = make_node("a", environment=Environment.PRODUCTION)
    async with unit_of_work() as uow:
        for row in (*rows, elsewhere):
            await uow.nodes.register(row)
        assert [node.node_id for node in await uow.nodes.list(DEV, None)] == ["n-1", "n-10", "n-2"]
        assert await uow.nodes.list(PROD, None) == [elsewhere]
        assert await uow.nodes.list("Moon", None) == []
        assert len(await uow.nodes.list(None, None)) == 4


async def test_the_servers_clock_moves_within_a_unit(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        instants = [await uow.now() for _ in range(50)]
    assert instants[0].tzinfo is not None
    assert instants == sorted(instants)
    assert instants[-1] > instants[0]


async def test_what_cannot_be_stored_is_named(registered: UnitOfWorkFactory) -> None:
    nul, long = "a\0", "l" * 256
    async with registered() as uow:
        attempts = [
            ("environment", lambda: uow.routes.current(nul, PLUGIN)),
            ("plugin", lambda: uow.routes.current(DEV, nul)),
            ("environment", lambda: uow.routes.desired(nul)),
            ("plugin", lambda: uow.routes.history(DEV, nul, Page())),
            ("seed", lambda: uow.routes.write(DEV, PLUGIN, 0, RouteState(seed=nul), "dep")),
            ("deploymentId", lambda: uow.routes.write(DEV, PLUGIN, 0, FIRST, long)),
            ("tenant", lambda: uow.pins.pin(long, PLUGIN, "1.0.0", "admin")),
            ("tenant", lambda: uow.pins.pin(nul, PLUGIN, None, "admin")),
            ("by", lambda: uow.pins.pin("t", PLUGIN, "1.0.0", nul)),
            ("version", lambda: uow.pins.pin("t", PLUGIN, nul, "admin")),
            ("plugin", lambda: uow.pins.pins(nul)),
            ("nodeId", lambda: uow.nodes.register(make_node(long))),
            ("adminUrl", lambda: uow.nodes.register(make_node(admin_url=nul))),
            ("bootId", lambda: uow.nodes.beat("n", nul)),
            ("nodeId", lambda: uow.nodes.remove(nul, "b")),
            ("bootId", lambda: uow.nodes.remove("n", nul)),
            ("environment", lambda: uow.nodes.list(nul, None)),
        ]
        for field, attempt in attempts:
            with pytest.raises(InvalidInput) as caught:
                await attempt()
            assert [fault.field for fault in caught.value.faults] == [field]
        assert await uow.routes.current(DEV, PLUGIN) is None
