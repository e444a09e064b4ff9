"""Whatever people command, whenever, by whichever door: it ends, on a version that was healthy, and the record is true.

Hypothesis draws a rollout (its strategy, its figures, its policy) and one to four commands, each with who gives it, the door it comes by
and the step it comes at, sensible or not, some twice. Three rollouts run at a time on a real Temporal server.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from hotswap.domain.deployment import DeploymentProgress, Environment, Role, StrategyConfig
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus
from tests.workflow.strategies import blue_green, rolling
from tests.workflow.world import Arm, World, canary, direct, send, until
from workflows.commands import TABLE
from workflows.messages import WorkflowNames

STAGING = Environment.STAGING
EXAMPLES = int(os.environ.get("HOTSWAP_STORIES", "20"))
"""Times three rollouts. HOTSWAP_STORIES=500 for a long walk."""

BUDGET = 35.0
"""Seconds for the first 20: on a machine that is busy the later ones are left out."""

STOPS = {
    "aborted by": DeploymentStatus.ABORTED,
    "rolled back by": DeploymentStatus.ROLLED_BACK,
    "superseded by": DeploymentStatus.SUPERSEDED,
    "rejected by": DeploymentStatus.REJECTED,
}


@dataclass(frozen=True)
class Order:
    """One command: given once the rollout is at step `at` (or stands and waits for a person before that)."""

    name: str
    at: int
    by: str
    role: Role
    reason: str
    plan_hash: str
    signal: bool
    twice: bool


@dataclass(frozen=True)
class Story:
    strategy: str
    figures: str
    auto_rollback: bool
    orders: tuple[Order, ...]


STRATEGIES: dict[str, Callable[..., StrategyConfig]] = {
    "canary": lambda **more: canary((50, 100), **more),
    "rolling": rolling,
    "blue-green": blue_green,
    "direct": direct,
}
"""An A/B test is left out: without a winner it goes back by itself, so its end says nothing about commands."""

APPROVAL, OBSERVATIONS = 3, (6, 8)
"""Steps of the plan where people have most to say, so they are drawn more often."""

orders = st.builds(
    Order,
    name=st.sampled_from([*sorted(TABLE), WorkflowNames.APPROVE, WorkflowNames.ABORT, WorkflowNames.ROLLBACK]),
    at=st.one_of(st.integers(0, 10), st.just(APPROVAL), st.sampled_from(OBSERVATIONS)),
    by=st.sampled_from(["dana", "ada", "bob"]),  # dana starts them all
    role=st.sampled_from([Role.APPROVER, Role.APPROVER, Role.ADMIN, Role.VIEWER]),
    reason=st.sampled_from(["because", "because", "because", ""]),
    plan_hash=st.sampled_from(["", "", "f" * 64]),
    signal=st.booleans(),
    twice=st.booleans(),
)
stories = st.builds(
    Story,
    strategy=st.sampled_from(sorted(STRATEGIES)),
    figures=st.sampled_from(["good", "good", "bad", "silent"]),
    auto_rollback=st.booleans(),
    orders=st.lists(orders, min_size=1, max_size=4).map(lambda drawn: tuple(sorted(drawn, key=lambda one: one.at))),
)


@pytest.fixture
async def worlds(temporal_client: Client, tmp_path: Path) -> AsyncIterator[list[World]]:
    """Three plugins in Staging, where one approval is asked for; each serves 1.0.0."""
    async with AsyncExitStack() as stack:
        made = [World(temporal_client, tmp_path) for _ in range(3)]
        for world in made:
            await world.fill(STAGING)
            await stack.enter_async_context(world.working())
        await asyncio.gather(*(first_version(world) for world in made))
        yield made


async def first_version(world: World) -> None:
    handle = await world.start(world.request(direct(), version="1.0.0", environment=STAGING))
    await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
    await send(handle, "approve", by="carol")
    assert (await handle.result()).status is DeploymentStatus.COMPLETED


@pytest.mark.timeout(60 + 12 * EXAMPLES)
async def test_every_story_ends_on_a_healthy_version_with_a_true_record(worlds: list[World]) -> None:
    deadline = time.monotonic() + BUDGET * max(1, EXAMPLES / 20)
    drawn: list[tuple[Story, Story, Story]] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=False,
    )
    @given(st.tuples(stories, stories, stories))
    def draw(told: tuple[Story, Story, Story]) -> None:
        drawn.append(told)

    draw()
    done = 0
    for told in drawn:
        if time.monotonic() > deadline:
            break
        await asyncio.gather(*(play(world, story) for world, story in zip(worlds, told, strict=True)))
        done += 1
    assert done >= 3, "too slow a machine to say anything"


async def play(world: World, story: Story) -> None:
    before = await world.route(STAGING)
    assert before.stable is not None
    target = "1.0.0" if before.stable.version == "2.0.0" else "2.0.0"
    world.figures.arms = {target: Arm(requests=400, errors=200)} if story.figures == "bad" else {}
    world.figures.silent = story.figures == "silent"
    config = STRATEGIES[story.strategy](auto_rollback=story.auto_rollback)
    request = world.request(config, version=target, environment=STAGING)
    try:
        async with asyncio.timeout(30):
            handle = await world.start(request)
            for order in story.orders:
                await bring_on(handle, order.at)
                for _ in range(2 if order.twice else 1):
                    await give(handle, order)
            await bring_on(handle, 99)
            result = await handle.result()
        await check(world, story, result, before.stable.version)
    except BaseException as fault:
        fault.add_note(f"{request.deployment_id}: {story}")
        raise


async def bring_on(handle: WorkflowHandle[Any, DeploymentProgress], step: int) -> None:
    """Until the rollout is at that step or has ended; where it waits for a person, be that person."""
    while True:
        progress = await until(
            handle,
            lambda p: (
                p.step_number >= step
                or p.status in TERMINAL
                or p.status in (DeploymentStatus.AWAITING_APPROVAL, DeploymentStatus.PAUSED)
            ),
        )
        if progress.step_number >= step or progress.status in TERMINAL:
            return
        waits = progress.status is DeploymentStatus.AWAITING_APPROVAL
        for name in ("approve",) if waits else ("promote", "resume"):
            try:
                await send(handle, name, by="carol")
            except WorkflowUpdateFailedError:
                continue  # not this one, or it has moved on
            except RPCError as fault:
                if fault.status is not RPCStatusCode.NOT_FOUND:
                    raise
                return
            break


async def give(handle: WorkflowHandle[Any, DeploymentProgress], order: Order) -> None:
    """A refusal is an answer; a workflow that has closed takes nothing."""
    more = {"plan_hash": order.plan_hash} if order.name == WorkflowNames.APPROVE else {}
    content = TABLE[order.name].takes(by=order.by, roles=(order.role,), reason=order.reason, **more)
    try:
        if order.signal:
            await handle.signal(order.name, content)
        else:
            await handle.execute_update(order.name, content)
    except WorkflowUpdateFailedError:
        return
    except RPCError as fault:
        if fault.status is not RPCStatusCode.NOT_FOUND:
            raise


async def check(world: World, story: Story, result: DeploymentProgress, before: str) -> None:
    assert result.status in TERMINAL
    assert result.status is not DeploymentStatus.FAILED, result.what_to_do
    route = await world.route(STAGING)
    assert route.stable is not None
    assert route.stable.version == (result.to_version if result.status is DeploymentStatus.COMPLETED else before)
    assert route.candidate is None
    for node in world.nodes:
        assert node.loaded == {ref.version for ref in route.versions()}
        if node.route is not None:
            assert node.route.state == route
    async with world.records.unit_of_work() as uow:
        row = await uow.deployments.get(result.deployment_id)
        events = await uow.deployments.events(result.deployment_id)
        approvals = await uow.approvals.list(result.deployment_id)
    assert row.progress == result
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.data["to"] for event in events if event.kind == "status"][-1] == result.status
    assert "dana" not in {given.approver for given in approvals if given.decision == "Approved"}, "approved his own"
    # Who stops it first decides how it ends; nobody who is obeyed after that changes it.
    for event in events:
        stopped = next((status for words, status in STOPS.items() if event.message.startswith(words)), None)
        if event.kind in ("command", "approval") and stopped:
            assert result.status is stopped
            return
        if event.kind == "status" and event.data["to"] == DeploymentStatus.ROLLING_BACK:
            assert result.status is DeploymentStatus.ROLLED_BACK
            assert story.auto_rollback
            assert story.figures == "bad"
            return
    assert result.status is DeploymentStatus.COMPLETED
