"""Runs a version in the sandbox before any traffic. Neighbours: hotswap.ports.sandbox runs it, the workflow judges the report."""

import tempfile
from datetime import timedelta
from pathlib import Path

from temporalio import activity

from activities.errors import translated
from activities.heartbeat import heartbeating
from hotswap.domain.base import Model
from hotswap.domain.ids import artifact_key
from hotswap.domain.routes import ArtifactRef
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.sandbox import TrialReport, TrialRunner


class TrialInput(Model):
    ref: ArtifactRef
    timeout: timedelta


class TrialActivities:
    def __init__(self, store: ArtifactStore, runner: TrialRunner, work_dir: Path, max_bytes: int) -> None:
        self._store = store
        self._runner = runner
        self._work_dir = work_dir
        self._max_bytes = max_bytes

    @activity.defn
    @translated
    async def run_trial(self, order: TrialInput) -> TrialReport:
        """Fetch, verify, unpack, load, smoke-test. A failed trial is a report; only a missing sandbox or archive raises."""
        self._work_dir.mkdir(parents=True, exist_ok=True)
        async with heartbeating():
            with tempfile.TemporaryDirectory(dir=self._work_dir, prefix="trial-") as scratch:
                archive = Path(scratch) / "artifact.zip"
                key = artifact_key(order.ref.plugin, order.ref.digest)
                most = max(order.ref.size_bytes, self._max_bytes)  # a presigned upload may be larger
                await self._store.fetch(key, archive, order.ref.digest, most)
                return await self._runner.run_trial(archive, order.timeout)
