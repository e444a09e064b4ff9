"""Worker processes of different builds for the upgrade tests: the sources as they are, and a copy with changed workflow code."""

import asyncio
import os
import shutil
import signal
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Self

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy

import hotswap
from hotswap import temporal
from hotswap.domain.deployment import CanaryConfig, DeploymentProgress, DeploymentRequest, Environment
from hotswap.domain.ids import deployment_workflow_id
from hotswap.lifeline import DIE_WITH_PARENT, PARENT_PID, READY_FILE
from tests.e2e.live import Live, eventually
from workflows.messages import WORKFLOW_OF_STRATEGY

SOURCES = Path(hotswap.__file__).resolve().parents[1]

NEW_STEP = """

_without_the_new_step = DeploymentMachine.execute


async def _with_a_new_first_step(self: DeploymentMachine) -> DeploymentProgress:
    await workflow.sleep(timedelta(milliseconds=1), summary="a step that the old build did not have")
    return await _without_the_new_step(self)


DeploymentMachine.execute = _with_a_new_first_step
"""


def changed_sources(into: Path) -> Path:
    """A copy of this project whose rollouts begin with a timer more: no history of the original replays on it."""
    for package in ("workflows", "activities", "hotswap", "hotswap_plugin"):
        shutil.copytree(SOURCES / package, into / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCES / "worker.py", into / "worker.py")
    with (into / "workflows" / "deployment.py").open("a") as module:
        module.write(NEW_STEP)
    return into


class Queue:
    """A task queue of a test's own on the live system's Temporal; its rollouts go to the live system's real nodes."""

    def __init__(self, live: Live, client: Client, scratch: Path) -> None:
        self.client = client
        self.name = f"upgrade-{uuid.uuid4().hex[:8]}"
        self._live = live
        self._scratch = scratch

    @classmethod
    async def open(cls, live: Live, scratch: Path) -> Self:
        return cls(live, await temporal.connect(live.settings.temporal), scratch)

    def worker(self, sources: Path, build_id: str = "") -> "WorkerProcess":
        return WorkerProcess(
            sources,
            self._scratch / f"worker-{uuid.uuid4().hex[:8]}",
            {
                **self._live.stack.environment,
                "HOTSWAP_TEMPORAL__TASK_QUEUE": self.name,
                "HOTSWAP_TEMPORAL__DEPLOYMENT_NAME": self.name,
                "HOTSWAP_TEMPORAL__BUILD_ID": build_id,
            },
        )

    async def start(
        self, plugin: str, version: str, config: CanaryConfig
    ) -> WorkflowHandle[object, DeploymentProgress]:
        request = DeploymentRequest(
            deployment_id=f"dep_{uuid.uuid4().hex}",
            plugin=plugin,
            version=version,
            environment=Environment.DEVELOPMENT,
            config=config,
            initiated_by="admin",
            requested_at=await self._now(),
        )
        handle: WorkflowHandle[object, DeploymentProgress] = await self.client.start_workflow(
            WORKFLOW_OF_STRATEGY["Canary"],
            request,
            id=deployment_workflow_id(request.environment, plugin),
            task_queue=self.name,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            result_type=DeploymentProgress,
        )
        return handle

    async def _now(self) -> datetime:
        async with self._live.database.unit_of_work() as uow:
            return await uow.now()


class WorkerProcess:
    """`python -m worker` from a source tree: `async with queue.worker(sources) as worker`."""

    module = "worker"

    def __init__(self, sources: Path, folder: Path, variables: dict[str, str]) -> None:
        folder.mkdir()
        self._folder = folder
        self._ready = folder / "ready"
        self._environment = {
            **os.environ,
            **variables,
            "HOTSWAP_WORK_DIR": str(folder / "work"),
            "PYTHONPATH": str(sources),
            DIE_WITH_PARENT: "1",
            PARENT_PID: str(os.getpid()),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start, and wait until it polls."""
        self._ready.unlink(missing_ok=True)
        self._process = await self._run({READY_FILE: str(self._ready)})

        async def polls() -> bool:
            assert self._process is not None
            assert self._process.returncode is None, self.log()
            return self._ready.exists()

        await eventually(polls, f"{self.module} serves", within=90)

    async def kill(self) -> None:
        """As an accident would. Repeats are fine."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def stop(self) -> None:
        """As an orchestrator does: in order, until it has ended well."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert await self._process.wait() == 0, self.log()

    async def command(self, *arguments: str) -> str:
        """`python -m worker ARGUMENTS` as this build; what it printed."""
        process = await self._run({}, *arguments, output=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        assert process.returncode == 0, self.log()
        return said.decode()

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-3000:]

    async def _run(
        self, more: dict[str, str], *arguments: str, output: int | None = None
    ) -> asyncio.subprocess.Process:
        with (self._folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", self.module, *arguments),
                env={**self._environment, **more},
                cwd=self._folder,
                stdout=output if output is not None else log,
                stderr=log,
                start_new_session=True,
            )
