"""Freezes in a world: made and lifted as the facade does it."""

import uuid
from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowHandle

from hotswap.domain.freeze import Freeze, FreezeKind, Once
from tests.workflow.world import World
from workflows.messages import WorkflowNames

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def make_freeze(world: World, **changes: Any) -> Freeze:
    """A deny of the world's plugin everywhere, without an end."""
    given = {
        "freeze_id": f"frz_{uuid.uuid4().hex}",
        "kind": FreezeKind.DENY,
        "plugin": world.name,
        "window": Once(starts=LONG_AGO),
        "reason": "quarter close",
        "created_by": "admin",
        "created_at": LONG_AGO,
    } | changes
    if given["kind"] is FreezeKind.STOP:
        given["plugin"] = None
    freeze = Freeze(**given)
    async with world.records.unit_of_work() as uow:
        await uow.freezes.add(freeze)
        await uow.commit()
    return freeze


async def lift(world: World, freeze: Freeze, *handles: WorkflowHandle[Any, Any]) -> None:
    async with world.records.unit_of_work() as uow:
        await uow.freezes.lift(freeze.freeze_id, "admin", "over")
        await uow.commit()
    for handle in handles:
        await handle.signal(WorkflowNames.FREEZES_CHANGED)
