"""Which build of the worker this is, and which build new rollouts start on: Temporal's Worker Versioning (docs/worker-builds.md).

A running rollout stays on the build it began on, so changed workflow code never meets its history; old builds poll on
until their last rollout has ended. Without HOTSWAP_TEMPORAL__BUILD_ID workers are unversioned. Neighbours: worker.py
polls with `deployment_options`; `python -m worker --set-current` and `--builds` are its commands.
"""

import asyncio
import hashlib
import importlib.util
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio.api.enums.v1 import WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

import hotswap
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.errors import Unavailable

AUTO = "auto"

REPLAYED = ("workflows", "activities", "hotswap.domain", "hotswap.ports")
"""What a replay can see: the workflow code, and the models it keeps in histories. A change elsewhere needs no new build."""

LOOK_EVERY = 0.2
"""Seconds between two tries to make a build current that the server has not seen poll yet."""

_NOT_YET = frozenset(
    {
        RPCStatusCode.NOT_FOUND,  # no worker of this deployment, or of this build, has polled
        RPCStatusCode.FAILED_PRECONDITION,  # it polls, but not yet every queue that the current build polls
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
    }
)


@dataclass(frozen=True, slots=True)
class Build:
    """A build as the server knows it. `status`: current, ramping, draining, drained or inactive (never was current)."""

    build_id: str
    status: str

    @property
    def may_stop(self) -> bool:
        """No rollout runs on it any more, and none will start on it."""
        return self.status in ("drained", "inactive")


def build_id(settings: TemporalSettings) -> str:
    """The build id that was set; `auto` is the package's version and a digest of the code that a replay sees."""
    return f"{hotswap.__version__}-{source_digest()[:12]}" if settings.build_id == AUTO else settings.build_id


def source_digest() -> str:
    """SHA-256 over the sources of `REPLAYED`, as installed here: names and contents, in one order on every machine."""
    digest = hashlib.sha256()
    for package in REPLAYED:
        root = _folder(package)
        for file in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
            content = file.read_bytes()
            digest.update(f"{package}/{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def deployment_options(settings: TemporalSettings) -> WorkerDeploymentConfig | None:
    """How a worker polls: as this build, its rollouts pinned to it; None = unversioned.

    Workflows that outlive releases by design move to the newest build by themselves (workflows.outlive).
    """
    if not settings.build_id:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.deployment_name, build_id(settings)),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


async def make_current(client: Client, settings: TemporalSettings, within: timedelta) -> str:
    """New rollouts start on this build from now on; its id. A repeat changes nothing.

    Waits until the server has seen the build poll. Raises Unavailable with the last refusal after `within`.
    """
    build = build_id(settings)
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=settings.deployment_name, build_id=build, identity=client.identity
    )
    refusal = "the server did not answer"
    try:
        async with asyncio.timeout(within.total_seconds()):
            while True:
                try:
                    await client.workflow_service.set_worker_deployment_current_version(request)
                except RPCError as fault:
                    if fault.status not in _NOT_YET:
                        raise
                    refusal = fault.message
                else:
                    return build
                await asyncio.sleep(LOOK_EVERY)
    except TimeoutError:
        raise Unavailable(
            f"build {build} of {settings.deployment_name} was not made current within {within.total_seconds():g} s "
            f"({refusal}); see that a worker with this build runs, then repeat"
        ) from None


async def list_builds(client: Client, settings: TemporalSettings) -> list[Build]:
    """Every build the server knows, newest first; none when no versioned worker ever polled. Raises Unavailable."""
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=settings.deployment_name)
    try:
        told = await client.workflow_service.describe_worker_deployment(request)
    except RPCError as fault:
        if fault.status == RPCStatusCode.NOT_FOUND:
            return []
        raise Unavailable(f"Temporal at {settings.address} does not tell its builds: {fault.message}") from fault
    newest_first = sorted(
        told.worker_deployment_info.version_summaries, key=lambda one: one.create_time.ToNanoseconds(), reverse=True
    )
    return [Build(one.deployment_version.build_id, _status(one.status)) for one in newest_first]


def _status(number: WorkerDeploymentVersionStatus.ValueType) -> str:
    return WorkerDeploymentVersionStatus.Name(number).removeprefix("WORKER_DEPLOYMENT_VERSION_STATUS_").lower()


def _folder(package: str) -> Path:
    """Where a package's sources are, without importing it: this module is below workflows and activities."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{package} has no sources here: set HOTSWAP_TEMPORAL__BUILD_ID to a name of your own")
    return Path(next(iter(spec.submodule_search_locations)))
