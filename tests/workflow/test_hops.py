"""How few hops lie between a failed verdict and the old version: what keeps a rollback under a second on any machine."""

from collections.abc import Callable

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from hotswap.domain.deployment import StrategyConfig
from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.strategies import blue_green
from tests.workflow.world import Arm, World, canary


async def activities(handle: WorkflowHandle[object, object]) -> list[str]:
    """The names, in the order in which they were ordered."""
    scheduled = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        async for event in handle.fetch_history_events()
        if event.event_type == scheduled
    ]


@pytest.mark.parametrize("config", [canary, blue_green], ids=["canary", "blue-green"])
async def test_a_failed_verdict_is_one_write_away_from_the_orders_to_every_node(
    world: World, config: Callable[[], StrategyConfig]
) -> None:
    """The record is written beside, and nobody is asked who is alive: the write itself names the nodes."""
    world.figures.arms["2.0.0"] = Arm(requests=200, errors=60)
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(config()))
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK
    ordered = [name for name in await activities(handle) if name != "record_progress"]
    verdict = len(ordered) - 1 - ordered[::-1].index("judge_version")
    assert ordered[verdict + 1 : verdict + 2 + len(world.nodes)] == [
        "restore_routes",
        *["apply_routes"] * len(world.nodes),
    ]
