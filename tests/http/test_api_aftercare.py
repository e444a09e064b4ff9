"""The facade after a rollout: going back inside the window, held versions, drift and its repair."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from api.services.aftercare import DriftService
from hotswap.domain.deployment import Environment
from hotswap.domain.drift import NodeInventory
from hotswap.domain.errors import Unavailable
from hotswap.domain.holds import HeldVersion
from hotswap.domain.registry import NodeRecord, Page
from hotswap.domain.routes import ArtifactRef, RouteState
from hotswap.ports.inventory import Inventories
from tests.http.bundles import bundle, sha256
from tests.http.site import API, Site, error_of
from workflows.drift import DriftRepaired, RepairCommand

DRIFT = f"{API}/environments/Development/drift"


def ref(version: str) -> ArtifactRef:
    content = bundle("greeter", version)
    return ArtifactRef(plugin="greeter", version=version, digest=sha256(content), size_bytes=len(content))


async def put(site: Site, deployment_id: str, stable: str, *warm: str) -> None:
    """The routes as a deployment with a rollback window leaves them."""
    async with site.records.unit_of_work() as uow:
        current = await uow.routes.current("Development", "greeter")
        state = RouteState(stable=ref(stable), warm=tuple(ref(version) for version in warm))
        await uow.routes.write("Development", "greeter", current.generation if current else 0, state, deployment_id)
        await uow.commit()


async def deployed(site: Site, *versions: str, warm: int = 1) -> list[str]:
    """Each version deployed after the other and completed; the last `warm` ones before it stay warm."""
    ids = []
    for number, version in enumerate(versions):
        answer = await site.deploy(version)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["deploymentId"])
        await site.complete(ids[-1])
        await put(site, ids[-1], version, *reversed(versions[max(0, number - warm) : number]))
    return ids


async def rolled_back(site: Site, deployment_id: str) -> Any:
    return await site.admin.post(f"{API}/deployments/{deployment_id}/rollback", json={"reason": "customers complain"})


# --- the way back ----------------------------------------------------------------------------------------------------


async def test_going_back_inside_the_window_is_a_switch_without_approval_or_trial(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    _, newest = await deployed(site, "1.0.0", "2.0.0")
    answer = await rolled_back(site, newest)
    assert answer.status_code == 202, answer.text
    back = site.rollouts.started[-1]
    assert (back.version, back.rollback_of) == ("1.0.0", newest)
    row = await site.row(back.deployment_id)
    assert (row.progress.step_count, row.progress.approvals_required) == (2, 0)


async def test_going_back_outside_the_window_verifies_and_loads_first(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    _, newest = await deployed(site, "1.0.0", "2.0.0", warm=0)
    assert (await rolled_back(site, newest)).status_code == 202
    row = await site.row(site.rollouts.started[-1].deployment_id)
    assert row.progress.step_count == 4


async def test_any_revision_that_is_still_warm_can_be_gone_back_to(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0", "3.0.0")
    _, second, _ = await deployed(site, "1.0.0", "2.0.0", "3.0.0", warm=2)
    answer = await rolled_back(site, second)
    assert answer.status_code == 202, answer.text
    back = site.rollouts.started[-1]
    assert (back.version, back.rollback_of) == ("1.0.0", second)


async def test_a_revision_that_is_cold_is_not_gone_back_to_over_a_newer_one(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0", "3.0.0")
    _, second, third = await deployed(site, "1.0.0", "2.0.0", "3.0.0", warm=1)
    error = error_of(await rolled_back(site, second), 409, "CONFLICT")
    assert third in error["message"]


# --- holds -----------------------------------------------------------------------------------------------------------


async def hold(site: Site, version: str = "2.0.0", environment: Environment = Environment.DEVELOPMENT) -> None:
    async with site.records.unit_of_work() as uow:
        await uow.held.hold(
            HeldVersion(
                environment=environment,
                plugin="greeter",
                version=version,
                deployment_id="dep_1",
                reason="3 looks in a row found a fault",
                held_by="hotswap-monitor",
                held_at=datetime.now(UTC),
            )
        )
        await uow.commit()


async def test_a_held_version_is_refused_with_the_reason_and_the_way_on(site: Site) -> None:
    await site.ship("greeter", "2.0.0")
    await hold(site)
    error = error_of(await site.deploy("2.0.0"), 409, "CONFLICT")
    assert "3 looks in a row found a fault" in error["message"]
    assert "overrideHold" in error["message"]
    assert not site.rollouts.started
    body = {"pluginId": "greeter", "version": "2.0.0", "environment": "Development"}
    error_of(await site.admin.post(f"{API}/deployments/plan", json=body), 409, "CONFLICT")


@pytest.mark.parametrize("reason", ["", "  "])
async def test_no_reason_lifts_no_hold(site: Site, reason: str) -> None:
    await site.ship("greeter", "2.0.0")
    await hold(site)
    error_of(await site.deploy("2.0.0", overrideHold=reason), 409, "CONFLICT")


async def test_a_reason_takes_the_version_through_to_its_workflow(site: Site) -> None:
    await site.ship("greeter", "2.0.0")
    await hold(site)
    answer = await site.deploy("2.0.0", overrideHold="the node was broken")
    assert answer.status_code == 202, answer.text
    assert site.rollouts.started[-1].override_hold == "the node was broken"


async def test_a_hold_holds_in_its_environment_only(site: Site) -> None:
    await site.ship("greeter", "2.0.0")
    await hold(site, environment=Environment.PRODUCTION)
    assert (await site.deploy("2.0.0")).status_code == 202
    listed = (await site.viewer.get(f"{API}/environments/Production/held-versions")).json()
    assert [(item["plugin"], item["version"]) for item in listed["items"]] == [("greeter", "2.0.0")]
    assert (await site.viewer.get(f"{API}/environments/Development/held-versions")).json()["total"] == 0


# --- drift -----------------------------------------------------------------------------------------------------------


class Bare:
    """Nodes that run nothing at all."""

    async def inventories(self, nodes: Sequence[NodeRecord]) -> Inventories:
        now = datetime.now(UTC)
        return Inventories(inventories=tuple(NodeInventory(node_id=node.node_id, taken_at=now) for node in nodes))


class Desk:
    def __init__(self) -> None:
        self.asked: list[tuple[Environment, RepairCommand]] = []

    async def repair(self, environment: Environment, command: RepairCommand) -> DriftRepaired:
        self.asked.append((environment, command))
        return DriftRepaired(found=2, left=1, nodes=("node-1",), faults={"node-2": "took no order"})


async def node(site: Site) -> None:
    async with site.records.unit_of_work() as uow:
        await uow.nodes.register(
            NodeRecord(
                node_id="node-1",
                environment=Environment.DEVELOPMENT,
                boot_id="boot",
                router_url="http://r",
                admin_url="http://a",
                sandbox_tier="standard",
                last_seen_at=datetime.now(UTC),
            )
        )
        await uow.commit()


async def test_drift_is_what_the_nodes_say_now(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.ship("greeter", "1.0.0")
    await deployed(site, "1.0.0")
    await node(site)
    site.container.drift = DriftService(site.records.unit_of_work, Bare(), None)
    young = (await site.viewer.get(DRIFT)).json()
    assert (young["drifted"], young["items"]) == (False, []), "a route this new is still on its way"
    monkeypatch.setattr("activities.drift.SETTLES_WITHIN", datetime.now(UTC) - datetime.now(UTC))
    found = (await site.viewer.get(DRIFT)).json()
    assert found["drifted"]
    assert [item["kind"] for item in found["items"]] == ["wrong-generation", "missing-host"]
    assert (found["nodes"], found["plugins"], found["total"]) == (1, 1, 2)


async def test_without_the_nodes_token_there_is_only_the_last_report(site: Site) -> None:
    site.container.drift = DriftService(site.records.unit_of_work, None, None)
    error = error_of(await site.viewer.get(DRIFT), 503, "SERVICE_UNAVAILABLE")
    assert "HOTSWAP_NODE__ADMIN_TOKEN" in error["message"]
    report = await DriftService(site.records.unit_of_work, Bare(), None).now(Environment.DEVELOPMENT)
    async with site.records.unit_of_work() as uow:
        await uow.drift.save(report)
        await uow.commit()
    assert (await site.viewer.get(DRIFT)).status_code == 200


async def test_a_repair_is_ordered_answered_and_audited(site: Site) -> None:
    desk = Desk()
    site.container.drift = DriftService(site.records.unit_of_work, Bare(), desk)
    answer = await site.developer.post(f"{DRIFT}/repair", json={"reason": "node-1 was cut off"})
    assert answer.json() == {"found": 2, "left": 1, "nodes": ["node-1"], "faults": {"node-2": "took no order"}}
    [(environment, command)] = desk.asked
    assert (environment, command.by, command.reason) == (Environment.DEVELOPMENT, "developer", "node-1 was cut off")
    async with site.records.unit_of_work() as uow:
        entries, _ = await uow.audit.list("Development", "developer", Page())
    assert entries[0].event_type == "drift.repaired"


async def test_a_developer_repairs_no_production(site: Site) -> None:
    desk = Desk()
    site.container.drift = DriftService(site.records.unit_of_work, Bare(), desk)
    error_of(await site.developer.post(f"{API}/environments/Production/drift/repair"), 403, "FORBIDDEN")
    assert not desk.asked
    assert (await site.admin.post(f"{API}/environments/Production/drift/repair")).status_code == 200


async def test_an_unknown_environment_is_refused(site: Site) -> None:
    error_of(await site.viewer.get(f"{API}/environments/Moon/drift"), 400, "VALIDATION_ERROR")


async def test_nobody_to_repair_is_said(site: Site) -> None:
    class Nobody:
        async def repair(self, environment: Environment, command: RepairCommand) -> DriftRepaired:
            raise Unavailable("no worker")

    site.container.drift = DriftService(site.records.unit_of_work, Bare(), Nobody())
    error_of(await site.admin.post(f"{DRIFT}/repair"), 503, "SERVICE_UNAVAILABLE")
