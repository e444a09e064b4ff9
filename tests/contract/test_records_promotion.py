"""One contract for freezes and pipelines on record: PostgreSQL and its in-memory twin."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, InvalidInput, NotFound
from hotswap.domain.freeze import Daily, Freeze, FreezeKind, Once, Weekday, Weekly
from hotswap.domain.pipeline import PipelineProgress, PipelineStatus, StageProgress
from hotswap.domain.registry import Page
from hotswap.ports.freezes import FreezeFilter
from hotswap.ports.pipelines import PipelineFilter, PipelineRow
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import EPOCH, make_plugin

ALWAYS = Once(starts=EPOCH)
OFFICE = {"start": "09:00", "end": "17:00", "time_zone": "Europe/Berlin"}


def make_freeze(**changes: Any) -> Freeze:
    given = {
        "freeze_id": f"frz_{uuid.uuid4().hex}",
        "kind": FreezeKind.DENY,
        "window": ALWAYS,
        "reason": "quarter close",
        "created_by": "admin",
        "created_at": EPOCH,
    } | changes
    return Freeze(**given)


def make_pipeline(plugin: str, **changes: Any) -> PipelineRow:
    pipeline_id = changes.pop("pipeline_id", f"pip_{uuid.uuid4().hex}")
    given = {
        "version": "2.0.0",
        "initiated_by": "developer",
        "stages": (StageProgress(environment=Environment.DEVELOPMENT, strategy="Direct"),),
        "requested_at": EPOCH,
    } | changes
    progress = PipelineProgress(pipeline_id=pipeline_id, plugin=plugin, **given)
    return PipelineRow(progress=progress, workflow_id=f"pipeline/{plugin}/{pipeline_id}", run_id="run")


@pytest.fixture
async def plugin(unit_of_work: UnitOfWorkFactory) -> str:
    made = make_plugin()
    async with unit_of_work() as uow:
        await uow.plugins.add(made)
        await uow.commit()
    return made.name


@pytest.mark.parametrize(
    "window",
    [
        ALWAYS,
        Once(starts=EPOCH, ends=EPOCH + timedelta(days=3650)),
        Daily(**OFFICE),
        Weekly(days=(Weekday.FRIDAY,), end_day=Weekday.MONDAY, **OFFICE),
    ],
)
async def test_a_freeze_comes_back_as_it_was_made(unit_of_work: UnitOfWorkFactory, plugin: str, window: Any) -> None:
    freeze = make_freeze(window=window, environment=Environment.STAGING, plugin=plugin, reason="größer 🚀")
    async with unit_of_work() as uow:
        await uow.freezes.add(freeze)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.freezes.get(freeze.freeze_id) == freeze
        assert await uow.freezes.in_force(Environment.STAGING, plugin) == [freeze]


async def test_freezes_in_force_are_those_of_the_scope_that_are_not_over_oldest_first(
    unit_of_work: UnitOfWorkFactory, plugin: str
) -> None:
    past = Once(starts=EPOCH - timedelta(days=9000), ends=EPOCH - timedelta(days=8999))
    everywhere = make_freeze(created_at=EPOCH + timedelta(hours=1))
    here = make_freeze(environment=Environment.QA, plugin=plugin)
    elsewhere = make_freeze(environment=Environment.PRODUCTION)
    over = make_freeze(window=past)
    allowed_once = make_freeze(kind=FreezeKind.ALLOW, window=past, created_at=EPOCH + timedelta(hours=2))
    async with unit_of_work() as uow:
        for freeze in (everywhere, here, elsewhere, over, allowed_once):
            await uow.freezes.add(freeze)
        await uow.commit()
        assert await uow.freezes.in_force(Environment.QA, plugin) == [here, everywhere, allowed_once]
        assert await uow.freezes.in_force(Environment.QA, "another") == [everywhere, allowed_once]
        assert {one.freeze_id for one in await uow.freezes.in_force(None, None)} == {
            one.freeze_id for one in (everywhere, here, elsewhere, allowed_once)
        }


async def test_a_lift_is_kept_once_with_who_and_why(unit_of_work: UnitOfWorkFactory) -> None:
    freeze = make_freeze()
    async with unit_of_work() as uow:
        await uow.freezes.add(freeze)
        lifted = await uow.freezes.lift(freeze.freeze_id, "admin", "done early")
        again = await uow.freezes.lift(freeze.freeze_id, "zoe", "late")
        await uow.commit()
        assert again == lifted
        assert (lifted.lifted_by, lifted.lift_reason) == ("admin", "done early")
        assert lifted.lifted_at is not None
        assert abs(lifted.lifted_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert await uow.freezes.in_force(None, None) == []
        assert await uow.freezes.list(FreezeFilter(lifted=True), Page()) == ([lifted], 1)
        assert await uow.freezes.list(FreezeFilter(lifted=False), Page()) == ([], 0)
        with pytest.raises(NotFound):
            await uow.freezes.lift("frz_" + "0" * 32, "admin", "")


async def test_freezes_are_listed_newest_first_by_scope(unit_of_work: UnitOfWorkFactory) -> None:
    old = make_freeze(environment=Environment.QA)
    new = make_freeze(created_at=EPOCH + timedelta(hours=1))
    other = make_freeze(environment=Environment.STAGING, created_at=EPOCH + timedelta(hours=2))
    async with unit_of_work() as uow:
        for freeze in (old, new, other):
            await uow.freezes.add(freeze)
        assert await uow.freezes.list(FreezeFilter(), Page()) == ([other, new, old], 3)
        assert await uow.freezes.list(FreezeFilter(environment=Environment.QA), Page()) == ([new, old], 2)
        assert await uow.freezes.list(FreezeFilter(), Page(limit=1, offset=1)) == ([new], 3)


async def test_there_is_one_stop_switch_however_many_press_it(unit_of_work: UnitOfWorkFactory) -> None:
    async def press() -> bool:
        async with unit_of_work() as uow:
            try:
                await uow.freezes.add(make_freeze(kind=FreezeKind.STOP))
            except Conflict:
                return False
            await uow.commit()
            return True

    assert sum(await asyncio.gather(*(press() for _ in range(5)))) == 1
    async with unit_of_work() as uow:
        (stop,) = await uow.freezes.in_force(None, None)
        await uow.freezes.lift(stop.freeze_id, "admin", "")
        await uow.commit()
    assert await press(), "a lifted stop leaves the switch free"


async def test_a_freeze_of_something_unknown_is_refused(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        with pytest.raises(NotFound, match="plugin 'nobody-knows'"):
            await uow.freezes.add(make_freeze(plugin="nobody-knows"))
        with pytest.raises(NotFound):
            await uow.freezes.get("frz_x")
        freeze = make_freeze()
        await uow.freezes.add(freeze)
        with pytest.raises(Conflict):
            await uow.freezes.add(freeze)
        with pytest.raises(InvalidInput):
            await uow.freezes.lift(freeze.freeze_id, "a\0", "")


async def test_freezes_and_pipelines_go_with_their_plugin(unit_of_work: UnitOfWorkFactory, plugin: str) -> None:
    row = make_pipeline(plugin)
    async with unit_of_work() as uow:
        await uow.freezes.add(make_freeze(plugin=plugin))
        await uow.pipelines.open(row)
        await uow.plugins.delete(plugin)
        await uow.commit()
        assert await uow.freezes.in_force(None, None) == []
        with pytest.raises(NotFound):
            await uow.pipelines.get(row.progress.pipeline_id)


async def test_a_pipeline_is_opened_once_and_only_newer_pictures_replace_it(
    unit_of_work: UnitOfWorkFactory, plugin: str
) -> None:
    row = make_pipeline(plugin)
    newer = row.progress.model_copy(update={"status": PipelineStatus.IN_PROGRESS, "sequence": 5})
    async with unit_of_work() as uow:
        await uow.pipelines.open(row)
        await uow.pipelines.project(newer)
        await uow.pipelines.open(row.model_copy(update={"run_id": "another"}))
        await uow.pipelines.project(newer.model_copy(update={"status": PipelineStatus.PAUSED, "sequence": 4}))
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.pipelines.get(row.progress.pipeline_id) == row.model_copy(update={"progress": newer})
        with pytest.raises(NotFound):
            await uow.pipelines.project(newer.model_copy(update={"pipeline_id": "pip_" + "0" * 32}))
        with pytest.raises(NotFound, match="not registered"):
            await uow.pipelines.open(make_pipeline("nobody-knows"))


async def test_pipelines_are_listed_newest_first_and_filtered(unit_of_work: UnitOfWorkFactory, plugin: str) -> None:
    old = make_pipeline(plugin)
    new = make_pipeline(plugin, requested_at=EPOCH + timedelta(hours=1), status=PipelineStatus.FAILED)
    async with unit_of_work() as uow:
        for row in (old, new):
            await uow.pipelines.open(row)
        assert await uow.pipelines.list(PipelineFilter(), Page()) == ([new, old], 2)
        assert await uow.pipelines.list(PipelineFilter(plugin=plugin), Page(limit=1, offset=1)) == ([old], 2)
        assert await uow.pipelines.list(PipelineFilter(status=PipelineStatus.FAILED), Page()) == ([new], 1)
        assert await uow.pipelines.list(PipelineFilter(plugin="another"), Page()) == ([], 0)
