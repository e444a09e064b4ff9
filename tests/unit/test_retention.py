"""Retention never takes what anything still needs, one reason at a time; and what nothing needs goes for good."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.retention import Retention, SweepOrder, SweepReport
from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.adapters.memory.records import MemoryRecords, MemoryUnitOfWork
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Unavailable
from hotswap.domain.holds import HeldVersion
from hotswap.domain.ids import artifact_key, upload_key
from hotswap.domain.lifecycle import DeploymentStatus, VersionStatus
from hotswap.domain.pipeline import PipelineProgress
from hotswap.domain.registry import Page
from hotswap.domain.routes import RouteState
from hotswap.domain.uploads import PendingUpload
from hotswap.ports.pipelines import PipelineRow
from tests.contract.factories import make_deployment, make_plugin, make_ref, make_version

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ORDER = SweepOrder(archived_for=30 * DAY)


class Shelf:
    """Versions 1.0.0 to 3.0.0 of one plugin, 1.0.0 archived 31 days ago."""

    def __init__(self) -> None:
        self.records = MemoryRecords(clock=lambda: NOW)
        self.store = MemoryArtifactStore()
        self.retention = Retention(self.records.unit_of_work, self.store)

    async def fill(self) -> None:
        async with self.records.unit_of_work() as uow:
            await uow.plugins.add(make_plugin("billing"))
            for version in ("1.0.0", "2.0.0", "3.0.0"):
                row = make_version("billing", version)
                if version == "1.0.0":
                    row = row.model_copy(update={"status": VersionStatus.ARCHIVED, "archived_at": NOW - 31 * DAY})
                await uow.versions.add(row)
                self.store.objects[artifact_key("billing", row.digest)] = b"zip"
            await uow.commit()

    async def do(self, work: Callable[[MemoryUnitOfWork], Awaitable[Any]]) -> None:
        async with self.records.unit_of_work() as uow:
            await work(uow)
            await uow.commit()

    async def sweep(self, **changes: Any) -> SweepReport:
        return await self.retention.sweep(ORDER.model_copy(update=changes))

    @property
    def there(self) -> list[str]:
        return sorted(self.store.objects)


@pytest.fixture
async def shelf() -> Shelf:
    made = Shelf()
    await made.fill()
    return made


def route(stable: str, *warm: str, candidate: str | None = None) -> Callable[[MemoryUnitOfWork], Awaitable[Any]]:
    state = RouteState(
        stable=make_ref("billing", stable),
        candidate=make_ref("billing", candidate) if candidate else None,
        warm=tuple(make_ref("billing", version) for version in warm),
    )
    return lambda uow: uow.routes.write("Production", "billing", 0, state, "dep")


def deployment(status: DeploymentStatus, back_to: str, to: str) -> Callable[[MemoryUnitOfWork], Awaitable[Any]]:
    row = make_deployment(
        "billing", status=status, from_version=back_to, to_version=to, environment=Environment.PRODUCTION
    )
    return lambda uow: uow.deployments.open(row)


def pipeline() -> Callable[[MemoryUnitOfWork], Awaitable[Any]]:
    progress = PipelineProgress(
        pipeline_id="pip_1", plugin="billing", version="1.0.0", initiated_by="a", stages=(), requested_at=NOW
    )
    return lambda uow: uow.pipelines.open(PipelineRow(progress=progress, workflow_id="w", run_id="r"))


def hold() -> Callable[[MemoryUnitOfWork], Awaitable[Any]]:
    held = HeldVersion(
        environment=Environment.QA,
        plugin="billing",
        version="1.0.0",
        deployment_id="dep",
        reason="it crashed",
        held_by="hotswap-monitor",
        held_at=NOW,
    )
    return lambda uow: uow.held.hold(held)


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (route("1.0.0"), "Production has it loaded"),
        (route("2.0.0", "1.0.0"), "Production has it loaded"),
        (route("2.0.0", candidate="1.0.0"), "Production has it loaded"),
        (deployment(DeploymentStatus.PAUSED, "2.0.0", "1.0.0"), "has not ended"),
        (deployment(DeploymentStatus.ROLLING_BACK, "1.0.0", "2.0.0"), "has not ended"),
        (deployment(DeploymentStatus.COMPLETED, "1.0.0", "2.0.0"), "can be rolled back to it"),
        (lambda uow: uow.pins.pin("acme", "billing", "1.0.0", "a"), "tenants are pinned to it"),
        (hold(), "it is held in QA"),
        (pipeline(), "pipeline pip_1 has not ended"),
    ],
)
async def test_what_is_needed_stays_and_the_report_says_what_for(
    shelf: Shelf, need: Callable[[MemoryUnitOfWork], Awaitable[Any]], reason: str
) -> None:
    await shelf.do(need)
    report = await shelf.sweep()
    assert report.removed == ()
    assert reason in report.kept[0].reasons[0]
    assert len(shelf.there) == 3


async def test_what_nothing_needs_goes_once_and_a_dry_run_only_says_so(shelf: Shelf) -> None:
    await shelf.do(deployment(DeploymentStatus.ROLLED_BACK, "2.0.0", "1.0.0"))
    await shelf.do(route("3.0.0", "2.0.0"))
    for young in ({"archived_for": 32 * DAY}, {"dry_run": True}):
        report = await shelf.sweep(**young)
        assert len(shelf.there) == 3
    assert report.dry_run
    assert [version.version for version in report.removed] == ["1.0.0"]
    done = await shelf.sweep(by="ada")
    assert (done.removed, done.freed_bytes) == (report.removed, 1234)
    assert [key for key in shelf.there if make_version("billing", "1.0.0").digest in key] == []
    assert len(shelf.there) == 2
    row = shelf.records.committed.versions[("billing", "1.0.0")]
    assert (row.status, row.artifact_removed_at) == (VersionStatus.ARCHIVED, NOW)
    assert (await shelf.sweep()).removed == ()
    async with shelf.records.unit_of_work() as uow:
        (entry,), _ = await uow.audit.list("billing", "ada", Page())
    assert (entry.event_type, entry.details["version"]) == ("version.artifact-removed", "1.0.0")


async def test_a_sweep_that_was_cut_off_is_finished_by_the_next(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(unit: MemoryUnitOfWork) -> None:
        raise Unavailable("PostgreSQL lost the connection")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryUnitOfWork, "commit", lost)
        with pytest.raises(Unavailable):
            await shelf.sweep()
    assert len(shelf.there) == 2  # gone already, and not noted
    assert [version.version for version in (await shelf.sweep()).removed] == ["1.0.0"]


async def test_uploads_whose_url_has_ended_are_swept_with_what_came_late(shelf: Shelf, tmp_path: Path) -> None:
    for number, minutes in ((1, 11), (2, 5), (3, -60)):
        upload = PendingUpload(
            upload_id=f"upl_{number:032x}",
            plugin="gone",
            version="1.0.0",
            digest="a" * 64,
            size_bytes=3,
            created_by="dev",
            created_at=NOW - DAY,
            expires_at=NOW - timedelta(minutes=minutes),
            completed_at=NOW - DAY,
        )
        shelf.store.objects[upload_key("gone", upload.upload_id)] = b"zip"
        await shelf.do(lambda uow, upload=upload: uow.uploads.open(upload))  # type: ignore[misc]
    assert (await shelf.sweep(dry_run=True)).uploads == 1
    assert (await shelf.sweep()).uploads == 1
    left = [key for key in shelf.there if key.startswith("uploads/")]
    assert left == [upload_key("gone", f"upl_{number:032x}") for number in (2, 3)]
    assert sorted(shelf.records.committed.uploads) == [f"upl_{number:032x}" for number in (2, 3)]
