"""One contract for deployments, events and approvals: PostgreSQL and its in-memory twin."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from hotswap.domain.analysis import Health, HostReport, MetricVerdict, Outcome, Verdict
from hotswap.domain.deployment import ApprovalGiven, DeploymentProgress, Environment, NodeProgress, Role
from hotswap.domain.errors import InvalidInput, NotFound
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus
from hotswap.domain.registry import Page
from hotswap.ports.records import DeploymentFilter, DeploymentRow, UnitOfWorkFactory
from tests.contract.factories import (
    EPOCH,
    make_approval,
    make_deployment,
    make_digest,
    make_event,
    make_plugin,
)

PLUGIN = "exporter"


@pytest.fixture
async def opened(unit_of_work: UnitOfWorkFactory) -> DeploymentRow:
    """A deployment that is on record."""
    row = make_deployment(PLUGIN)
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        await uow.deployments.open(row)
        await uow.commit()
    return row


def moved(row: DeploymentRow, sequence: int, **changes: Any) -> DeploymentProgress:
    return row.progress.model_copy(update={"sequence": sequence, **changes})


async def stored(unit_of_work: UnitOfWorkFactory, row: DeploymentRow) -> DeploymentRow:
    async with unit_of_work() as uow:
        return await uow.deployments.get(row.progress.deployment_id)


async def sequences(unit_of_work: UnitOfWorkFactory, row: DeploymentRow, **where: Any) -> list[int]:
    async with unit_of_work() as uow:
        return [event.sequence for event in await uow.deployments.events(row.progress.deployment_id, **where)]


async def test_an_opened_deployment_comes_back_as_it_was_given(
    unit_of_work: UnitOfWorkFactory, opened: DeploymentRow
) -> None:
    assert await stored(unit_of_work, opened) == opened


async def test_opening_again_changes_nothing(unit_of_work: UnitOfWorkFactory, opened: DeploymentRow) -> None:
    again = opened.model_copy(update={"run_id": "another", "progress": moved(opened, 7)})
    async with unit_of_work() as uow:
        await uow.deployments.open(again)
        await uow.commit()
    assert await stored(unit_of_work, opened) == opened


async def test_concurrent_openings_leave_one_row(unit_of_work: UnitOfWorkFactory, opened: DeploymentRow) -> None:
    row = make_deployment(PLUGIN)

    async def open_it() -> None:
        async with unit_of_work() as uow:
            await uow.deployments.open(row)
            await uow.commit()

    await asyncio.gather(*(open_it() for _ in range(5)))
    async with unit_of_work() as uow:
        assert (await uow.deployments.list(DeploymentFilter(), Page()))[1] == 2


async def test_a_deployment_of_no_plugin_is_not_found_and_leaves_the_unit_usable(
    unit_of_work: UnitOfWorkFactory, opened: DeploymentRow
) -> None:
    async with unit_of_work() as uow:
        with pytest.raises(NotFound, match="'ghost' in Development"):
            await uow.deployments.open(make_deployment("ghost"))
        assert await uow.deployments.get(opened.progress.deployment_id) == opened
        with pytest.raises(NotFound, match="'dep_none'"):
            await uow.deployments.get("dep_none")
        assert await uow.deployments.events("dep_none") == []


async def test_a_whole_progress_survives_the_projection(unit_of_work: UnitOfWorkFactory, opened: DeploymentRow) -> None:
    host = HostReport(plugin=PLUGIN, version="1.0.0", state="Ready", pid=7, load_ms=1.25, last_error='{"a": "%s"}')
    verdict = Verdict(
        outcome=Outcome.INCONCLUSIVE,
        reason="too few",
        metrics=(MetricVerdict(metric="errors", outcome=Outcome.PASS, n=3, estimate=0.1 + 0.2, lower=1e-300),),
        nodes_silent=("node-2",),
        taken_at=EPOCH,
        window=timedelta(seconds=90, microseconds=1),
    )
    full = moved(
        opened,
        3,
        from_version="0.9.0",
        status=DeploymentStatus.ROLLED_BACK,
        step_number=2,
        step_count=7,
        set_weight_percent=10,
        route_generation=4,
        waiting_for="an approval — von Zoë",
        nodes=(NodeProgress(node_id="node-1", state=Health.UNKNOWN, hosts=(host,)),),
        verdict=verdict,
        approvals=(ApprovalGiven(approver="a", roles=(Role.ADMIN,), at=EPOCH),),
        plan_hash=make_digest("plan"),
        digest=make_digest("artifact"),
        outcome_reason="errors rose",
        started_at=EPOCH,
        finished_at=EPOCH + timedelta(minutes=1),
        rolled_back_at=EPOCH + timedelta(minutes=1),
    )
    async with unit_of_work() as uow:
        await uow.deployments.project(full, [])
        await uow.commit()
    assert await stored(unit_of_work, opened) == opened.model_copy(update={"progress": full})


async def test_an_older_progress_is_ignored_but_its_events_are_kept(
    unit_of_work: UnitOfWorkFactory, opened: DeploymentRow
) -> None:
    newer = moved(opened, 5, status=DeploymentStatus.PAUSED)
    async with unit_of_work() as uow:
        await uow.deployments.project(newer, [make_event(2)])
        await uow.commit()
    async with unit_of_work() as uow:
        await uow.deployments.project(moved(opened, 4, status=DeploymentStatus.IN_PROGRESS), [make_event(1)])
        await uow.commit()
    assert (await stored(unit_of_work, opened)).progress == newer
    assert await sequences(unit_of_work, opened) == [1, 2]


async def test_a_repeated_projection_changes_nothing(unit_of_work: UnitOfWorkFactory, opened: DeploymentRow) -> None:
    progress = moved(opened, 1, status=DeploymentStatus.IN_PROGRESS)
    events = [make_event(1, data={"nested": {"list": [1, 2.5, None, True, "ü'%"]}}), make_event(2)]
    for _ in range(2):
        async with unit_of_work() as uow:
            await uow.deployments.project(progress, events)
            await uow.commit()
    async with unit_of_work() as uow:
        await uow.deployments.project(progress, [make_event(1, message="rewritten"), make_event(3)])
        await uow.commit()
        kept = await uow.deployments.events(opened.progress.deployment_id)
    assert kept == [*events, make_event(3)]
    assert (await stored(unit_of_work, opened)).progress == progress


async def test_concurrent_projections_end_on_the_newest(unit_of_work: UnitOfWorkFactory, opened: DeploymentRow) -> None:
    async def project(sequence: int) -> None:
        async with unit_of_work() as uow:
            await uow.deployments.project(moved(opened, sequence), [make_event(sequence)])
            await uow.commit()

    await asyncio.gather(*(project(sequence) for sequence in (3, 9, 1, 8, 2, 5)))
    assert (await stored(unit_of_work, opened)).progress.sequence == 9
    assert await sequences(unit_of_work, opened) == [1, 2, 3, 5, 8, 9]


async def test_projecting_what_was_never_opened_is_not_found(
    unit_of_work: UnitOfWorkFactory, opened: DeploymentRow
) -> None:
    ghost = make_deployment(PLUGIN)
    async with unit_of_work() as uow:
        with pytest.raises(NotFound, match=ghost.progress.deployment_id):
            await uow.deployments.project(ghost.progress, [make_event(1)])


async def test_events_are_read_after_a_sequence_and_up_to_a_limit(
    unit_of_work: UnitOfWorkFactory, opened: DeploymentRow
) -> None:
    async with unit_of_work() as uow:
        await uow.deployments.project(moved(opened, 1), [make_event(number) for number in range(2500, 0, -1)])
        await uow.commit()
    assert await sequences(unit_of_work, opened) == list(range(1, 501))
    assert await sequences(unit_of_work, opened, after=2498) == [2499, 2500]
    assert await sequences(unit_of_work, opened, after=2500) == []
    assert await sequences(unit_of_work, opened, after=10, limit=2) == [11, 12]


async def test_lists_are_newest_first_and_filtered(unit_of_work: UnitOfWorkFactory) -> None:
    def at(minute: int, **changes: Any) -> DeploymentRow:
        return make_deployment(changes.pop("plugin", PLUGIN), requested_at=EPOCH + timedelta(minutes=minute), **changes)

    old = at(1, environment=Environment.PRODUCTION, status=DeploymentStatus.COMPLETED)
    new = at(3, environment=Environment.PRODUCTION)
    other = at(2, plugin="other")
    twins = [at(0, deployment_id="dep_a"), at(0, deployment_id="dep_b"), at(0, deployment_id="dep_A")]
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        await uow.plugins.add(make_plugin("other"))
        for row in (new, old, other, *twins):
            await uow.deployments.open(row)
        await uow.commit()
    newest_first = [new, other, old, twins[1], twins[0], twins[2]]

    async def listed(page: Page | None = None, **where: Any) -> tuple[list[DeploymentRow], int]:
        async with unit_of_work() as uow:
            found, total = await uow.deployments.list(DeploymentFilter(**where), page or Page())
        return list(found), total

    assert await listed() == (newest_first, 6)
    assert await listed(Page(limit=2, offset=1)) == (newest_first[1:3], 6)
    assert await listed(Page(limit=2, offset=6)) == ([], 6)
    assert await listed(plugin="other") == ([other], 1)
    assert await listed(plugin="no'; DROP TABLE plugins") == ([], 0)
    assert await listed(environment=Environment.PRODUCTION) == ([new, old], 2)
    assert await listed(status=DeploymentStatus.COMPLETED) == ([old], 1)
    assert await listed(environment=Environment.QA, plugin=PLUGIN) == ([], 0)


async def test_those_that_have_not_ended_are_counted_by_place_and_status(unit_of_work: UnitOfWorkFactory) -> None:
    production, paused = {"environment": Environment.PRODUCTION}, {"status": DeploymentStatus.PAUSED}
    rows = [
        make_deployment(PLUGIN, **changes) for changes in (production, production, {**production, **paused}, paused)
    ]
    rows += [make_deployment(PLUGIN, status=status) for status in TERMINAL]
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        for row in rows:
            await uow.deployments.open(row)
        standing = await uow.deployments.standing()
    began = str(rows[0].progress.status)
    assert standing == {
        ("Production", began): 2,
        ("Production", "Paused"): 1,
        (str(rows[3].progress.environment), "Paused"): 1,
    }


async def test_what_cannot_be_stored_is_named(unit_of_work: UnitOfWorkFactory, opened: DeploymentRow) -> None:
    nul, long = "a\0", "l" * 256
    progress = opened.progress
    async with unit_of_work() as uow:
        attempts = [
            ("reason", lambda: uow.deployments.project(moved(opened, 1, reason=nul), [])),
            ("initiatedBy", lambda: uow.deployments.open(make_deployment(PLUGIN, initiated_by=nul))),
            ("deploymentId", lambda: uow.deployments.open(make_deployment(PLUGIN, deployment_id=long))),
            ("workflowId", lambda: uow.deployments.open(opened.model_copy(update={"workflow_id": long}))),
            ("config.deep.0", lambda: uow.deployments.open(opened.model_copy(update={"config": {"deep": [nul]}}))),
            ("data.x", lambda: uow.deployments.project(progress, [make_event(1, data={"x": "\ud800"})])),
            ("data", lambda: uow.deployments.project(progress, [make_event(1, data={nul: 1})])),
            ("kind", lambda: uow.deployments.project(progress, [make_event(1, kind=long)])),
            ("deploymentId", lambda: uow.deployments.get(nul)),
            ("deploymentId", lambda: uow.deployments.events(nul)),
            ("plugin", lambda: uow.deployments.list(DeploymentFilter(plugin=nul), Page())),
            ("approver", lambda: uow.approvals.record(make_approval("x", approver=long))),
            ("decision", lambda: uow.approvals.record(make_approval("x", decision="Perhaps"))),
            ("deploymentId", lambda: uow.approvals.list(nul)),
        ]
        for field, attempt in attempts:
            with pytest.raises(InvalidInput) as caught:
                await attempt()
            assert [fault.field for fault in caught.value.faults] == [field]
        await uow.commit()
    assert await stored(unit_of_work, opened) == opened


async def test_what_json_has_no_number_for_becomes_null(unit_of_work: UnitOfWorkFactory, opened: DeploymentRow) -> None:
    event = make_event(1, data={"x": float("nan"), "y": float("-inf"), "z": 1.5})
    async with unit_of_work() as uow:
        await uow.deployments.project(opened.progress, [event])
        (kept,) = await uow.deployments.events(opened.progress.deployment_id)
    assert kept.data == {"x": None, "y": None, "z": 1.5}


async def test_approvals_are_kept_in_order_and_once_a_person_and_plan(
    unit_of_work: UnitOfWorkFactory, opened: DeploymentRow
) -> None:
    dep = opened.progress.deployment_id
    first = make_approval(dep, approver="zoe", comment="ja — it's 100% fine", roles=(Role.APPROVER, Role.ADMIN))
    second = make_approval(dep, approver="adam", decision="Rejected")
    other_plan = make_approval(dep, approver="zoe", plan_hash=make_digest("other"))
    for approval in (first, second, make_approval(dep, approver="zoe", decision="Rejected"), other_plan, first):
        async with unit_of_work() as uow:
            await uow.approvals.record(approval)
            await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.approvals.list(dep) == [first, second, other_plan]
        assert await uow.approvals.list("dep_none") == []


async def test_an_approval_of_no_deployment_is_not_found(
    unit_of_work: UnitOfWorkFactory, opened: DeploymentRow
) -> None:
    async with unit_of_work() as uow:
        with pytest.raises(NotFound, match="'dep_none'"):
            await uow.approvals.record(make_approval("dep_none"))
        await uow.approvals.record(make_approval(opened.progress.deployment_id))
        await uow.commit()
        assert len(await uow.approvals.list(opened.progress.deployment_id)) == 1
