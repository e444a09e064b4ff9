"""What nodes run against what the routes say: every kind of difference, and none where there is none."""

from datetime import UTC, datetime, timedelta

import pytest

from hotswap.domain.deployment import Environment
from hotswap.domain.drift import (
    DriftItem,
    DriftKind,
    LoadedHost,
    NodeInventory,
    PluginInventory,
    differences,
)
from hotswap.domain.registry import NodeRecord
from hotswap.domain.routes import ArtifactRef, DesiredRoute, RouteOrder, RouteState
from tests.contract.factories import make_digest, make_ref

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def node(node_id: str = "node-1", silence: timedelta = timedelta(seconds=1)) -> NodeRecord:
    return NodeRecord(
        node_id=node_id,
        environment=Environment.DEVELOPMENT,
        boot_id="boot",
        router_url="http://r",
        admin_url="http://a",
        sandbox_tier="standard",
        last_seen_at=NOW - silence,
    )


def wanted(
    stable: str | None = "1.0.0",
    candidate: str | None = None,
    warm: tuple[str, ...] = (),
    pins: dict[str, str] | None = None,
    generation: int = 4,
) -> DesiredRoute:
    def ref(version: str) -> ArtifactRef:
        return make_ref("invoice", version)

    state = RouteState(
        stable=ref(stable) if stable else None,
        candidate=ref(candidate) if candidate else None,
        warm=tuple(ref(version) for version in warm),
    )
    order = RouteOrder(plugin="invoice", generation=generation, state=state)
    return DesiredRoute(order=order, pins={tenant: ref(version) for tenant, version in (pins or {}).items()})


def runs(
    *versions: str, generation: int = 4, state: str = "Ready", digest: str = "", plugin: str = "invoice"
) -> NodeInventory:
    hosts = tuple(
        LoadedHost(version=version, digest=digest or make_digest(plugin, version), state=state) for version in versions
    )
    part = PluginInventory(plugin=plugin, generation=generation, hosts=hosts)
    return NodeInventory(node_id="node-1", taken_at=NOW, plugins=(part,))


EMPTY = NodeInventory(node_id="node-1", taken_at=NOW)


def kinds(items: list[DriftItem]) -> list[tuple[str, str]]:
    return [(item.kind.value, item.version) for item in items]


@pytest.mark.parametrize(
    ("route", "inventory", "expected"),
    [
        (wanted(), runs("1.0.0"), []),
        (wanted(candidate="2.0.0", warm=("0.9.0",)), runs("1.0.0", "2.0.0", "0.9.0"), []),
        (wanted(pins={"acme": "0.9.0"}), runs("1.0.0", "0.9.0"), []),
        (wanted(), runs("1.0.0", state="Crashed"), []),  # health is the monitor's
        (wanted(), EMPTY, [("wrong-generation", ""), ("missing-host", "1.0.0")]),
        (wanted(pins={"acme": "0.9.0"}), runs("1.0.0"), [("missing-host", "0.9.0")]),
        (wanted(warm=("0.9.0",)), runs("1.0.0"), [("missing-host", "0.9.0")]),
        (wanted(), runs("1.0.0", "2.0.0"), [("extra-host", "2.0.0")]),
        (wanted(), runs("1.0.0", generation=3), [("wrong-generation", "")]),
        (wanted(), runs("1.0.0", generation=9), [("wrong-generation", "")]),
        (wanted(), runs("1.0.0", digest="a" * 64), [("wrong-digest", "1.0.0")]),
        (wanted(), runs("1.0.0", state="Draining"), [("missing-host", "1.0.0")]),
        (None, runs("1.0.0"), [("extra-host", "1.0.0")]),
        (None, runs("1.0.0", state="Draining"), []),
        (None, EMPTY, []),
    ],
)
def test_every_difference_is_named(
    route: DesiredRoute | None, inventory: NodeInventory, expected: list[tuple[str, str]]
) -> None:
    items = differences([route] if route else [], [node()], [inventory], NOW)
    assert kinds(items) == expected
    assert all(item.node_id == "node-1" and item.plugin == "invoice" for item in items)


@pytest.mark.parametrize(
    ("silence", "answers", "expected"),
    [
        (timedelta(seconds=1), True, []),
        (timedelta(seconds=14), True, []),
        (timedelta(seconds=16), True, ["stale-node"]),  # what it says is no news
        (timedelta(seconds=1), False, ["stale-node"]),
        (timedelta(hours=23), False, ["stale-node"]),
        (timedelta(hours=25), False, []),
    ],
)
def test_a_node_that_is_away_is_stale_and_not_compared(silence: timedelta, answers: bool, expected: list[str]) -> None:
    inventories = [runs("1.0.0")] if answers else []
    items = differences([wanted()], [node(silence=silence)], inventories, NOW)
    assert [item.kind.value for item in items] == expected


def test_the_difference_is_told_in_a_sentence() -> None:
    [item] = differences([wanted()], [node()], [runs("1.0.0", generation=3)], NOW)
    assert item.text == "node-1: wrong-generation of invoice: expected generation 4, found generation 3"
    assert item.key == "wrong-generation/node-1/invoice/"
    assert item.kind is DriftKind.WRONG_GENERATION


def test_each_node_is_compared_for_itself() -> None:
    two = NodeInventory(node_id="node-2", taken_at=NOW, plugins=runs("1.0.0").plugins)
    items = differences([wanted()], [node(), node("node-2")], [EMPTY, two], NOW)
    assert {item.node_id for item in items} == {"node-1"}
