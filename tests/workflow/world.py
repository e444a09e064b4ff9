"""A small world around the real workflows on a real Temporal server: in-memory twins, and nodes, a trial and figures that obey a script."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker

from activities.analysis import AnalysisActivities
from activities.artifacts import ArtifactActivities
from activities.experiment import ExperimentActivities
from activities.freezes import FreezeActivities
from activities.nodes import NodeActivities
from activities.pipelines import PipelineActivities
from activities.planning import PlanningActivities
from activities.queue import QueueActivities
from activities.records import RecordActivities
from activities.retention import Retention, RetentionActivities
from activities.routing import RoutingActivities
from activities.sandbox import SandboxRecordActivities
from activities.trial import TrialActivities
from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.adapters.memory.events import MemoryEventBus
from hotswap.adapters.memory.metrics import MemoryMetricProvider
from hotswap.adapters.memory.records import MemoryRecords
from hotswap.analysis.histogram import bucket_of
from hotswap.domain.analysis import Health, HostReport, NodeFigures, VersionFigures
from hotswap.domain.deployment import (
    CanaryConfig,
    DeploymentProgress,
    DeploymentRequest,
    DirectConfig,
    Environment,
    Role,
    StrategyConfig,
)
from hotswap.domain.errors import HostFailed, StaleGeneration
from hotswap.domain.ids import artifact_key, deployment_workflow_id, node_queue
from hotswap.domain.manifest import Manifest
from hotswap.domain.plan import Plan
from hotswap.domain.registry import NodeRecord, Plugin, PluginVersion
from hotswap.domain.routes import RouteOrder, RouteState
from hotswap.ports.metrics import Readings
from hotswap.ports.node_runtime import NodeReport, ProbeReport, SmokeReport
from hotswap.ports.sandbox import SmokeResult, TrialReport
from hotswap.runtime.bundle import digest_file
from hotswap.runtime.config_check import ConfigCheck
from hotswap.runtime.signature_guard import RegistrySignatureGuard
from tests.workflow import aftercare
from workflows.catalog import DEPLOYMENT_WORKFLOWS
from workflows.messages import WORKFLOW_OF_STRATEGY, ApproveCommand, Command, CommandResult
from workflows.signal_guard import SignalGuard

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class ScriptedNode:
    """A node that remembers every order it obeyed and fails where the script says."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.orders: list[tuple[str, RouteOrder]] = []
        self.route: RouteOrder | None = None
        self.loaded: set[str] = set()
        self.fail_to_load: set[str] = set()
        self.fail_to_apply: Callable[[RouteOrder], bool] = lambda order: False
        self.hold_stage: asyncio.Event | None = None
        self.health = Health.HEALTHY
        self.repairs = 0
        self.smoked: list[str] = []
        self.fail_smoke: set[str] = set()

    async def stage(self, order: RouteOrder) -> NodeReport:
        self._obey("stage", order)
        if self.hold_stage is not None:
            await self.hold_stage.wait()
        for ref in order.state.versions():
            if ref.version in self.fail_to_load:
                raise HostFailed(f"{ref.version} cannot be imported", "LOAD_FAILED")
            self.loaded.add(ref.version)
        return self._applied(order)

    async def apply(self, order: RouteOrder) -> NodeReport:
        self._obey("apply", order)
        if self.fail_to_apply(order):
            raise HostFailed("the host died", "DIED")
        self.loaded |= {ref.version for ref in order.state.versions()}
        return self._applied(order)

    async def probe(self, plugin: str, version: str) -> ProbeReport:
        return ProbeReport(node_id=self.node_id, plugin=plugin, version=version, health=self.health, detail="scripted")

    async def smoke(self, plugin: str, version: str, timeout: timedelta) -> SmokeReport:
        self.smoked.append(version)
        passed = version not in self.fail_smoke
        detail = "" if passed else "smoke test of 'run': expected 1 and got 2"
        test = SmokeResult(method="run", passed=passed, duration_ms=1, detail=detail)
        return SmokeReport(
            node_id=self.node_id, plugin=plugin, version=version, passed=passed, smoke_tests=(test,), detail=detail
        )

    async def retire(self, order: RouteOrder, grace: timedelta) -> NodeReport:
        self._obey("retire", order)
        self.loaded = {ref.version for ref in order.state.versions()}
        return self._applied(order)

    def _obey(self, what: str, order: RouteOrder) -> None:
        if self.route is not None and order.generation < self.route.generation:
            raise StaleGeneration(f"generation {order.generation} is older than {self.route.generation}")
        self.orders.append((what, order))

    def _applied(self, order: RouteOrder) -> NodeReport:
        self.route = order
        return NodeReport(
            node_id=self.node_id, plugin=order.plugin, generation=order.generation, hosts=self.hosts(order.plugin)
        )

    def hosts(self, plugin: str) -> tuple[HostReport, ...]:
        return tuple(HostReport(plugin=plugin, version=version, state="Ready") for version in sorted(self.loaded))


class ScriptedTrial:
    def __init__(self) -> None:
        self.report = TrialReport(
            passed=True, sandbox_tier="standard", smoke_tests=(SmokeResult(method="run", passed=True, duration_ms=1),)
        )

    async def run_trial(self, archive: Path, timeout: timedelta) -> TrialReport:
        assert archive.stat().st_size > 0
        return self.report


@dataclass
class Arm:
    """What one version's figures look like in a look."""

    requests: int = 400
    errors: int = 0
    latency_ms: float = 5.0


class ScriptedFigures:
    def __init__(self) -> None:
        self.arms: dict[str, Arm] = {}
        self.default = Arm()
        self.silent = False
        self.looks = 0
        self.hosts: Callable[[str, str], tuple[HostReport, ...]] = lambda node_id, plugin: ()

    async def read(self, nodes: Sequence[NodeRecord], plugin: str, since: datetime) -> Readings:
        self.looks += 1
        if self.silent:
            return Readings(silent=tuple(node.node_id for node in nodes))
        return Readings(figures=tuple(self._figures(node, plugin, since) for node in nodes))

    def _figures(self, node: NodeRecord, plugin: str, since: datetime) -> NodeFigures:
        arms = {version: self.arms.get(version, self.default) for version in ("1.0.0", "2.0.0")}
        return NodeFigures(
            node_id=node.node_id,
            plugin=plugin,
            since=since,
            taken_at=since,
            hosts=self.hosts(node.node_id, plugin),
            versions=tuple(
                VersionFigures(
                    version=version,
                    requests=arm.requests,
                    errors=arm.errors,
                    latency_buckets={bucket_of(arm.latency_ms): arm.requests} if arm.requests else {},
                )
                for version, arm in arms.items()
            ),
        )


@dataclass
class World:
    """Everything a deployment touches, for one test: its own plugin, nodes and queues on the shared server."""

    client: Client
    scratch: Path
    node_count: int = 2
    interceptors: Sequence[Interceptor] = ()
    """Of every worker, besides those that production has always."""
    cached_runs: int = 1000
    """0: each workflow task replays its run from the beginning."""
    name: str = field(default_factory=lambda: f"p{uuid.uuid4().hex[:10]}")

    def __post_init__(self) -> None:
        self.records = MemoryRecords(
            clock=lambda: NOW
        )  # stands still, so that nodes never grow stale on a busy machine
        self.store = MemoryArtifactStore()
        self.bus = MemoryEventBus()
        self.trial = ScriptedTrial()
        self.figures = ScriptedFigures()
        self.figures.hosts = self._hosts
        self.metrics = MemoryMetricProvider()
        self.queue = f"hotswap-{self.name}"
        self.nodes = [ScriptedNode(f"{self.name}-{index + 1}") for index in range(self.node_count)]

    @property
    def node_ids(self) -> list[str]:
        return [node.node_id for node in self.nodes]

    def _hosts(self, node_id: str, plugin: str) -> tuple[HostReport, ...]:
        return next((node.hosts(plugin) for node in self.nodes if node.node_id == node_id), ())

    async def fill(self, environment: Environment = Environment.DEVELOPMENT) -> None:
        """A plugin with versions 1.0.0 and 2.0.0 in the registry, and nodes that tell of themselves."""
        async with self.records.unit_of_work() as uow:
            await uow.plugins.add(Plugin(name=self.name, display_name=self.name, created_at=NOW, updated_at=NOW))
            for version in ("1.0.0", "2.0.0"):
                await uow.versions.add(await self._version(version))
            for node in self.nodes:
                await uow.nodes.register(self.node_record(node.node_id, environment))
            await uow.commit()

    def node_record(self, node_id: str, environment: Environment, seen: datetime | None = None) -> NodeRecord:
        return NodeRecord(
            node_id=node_id,
            environment=environment,
            boot_id="boot",
            router_url="http://127.0.0.1:1",
            admin_url="http://127.0.0.1:2",
            sandbox_tier="standard",
            last_seen_at=seen or NOW,
        )

    async def _version(self, version: str) -> PluginVersion:
        archive = self.scratch / f"{self.name}-{version}.zip"
        archive.write_bytes(f"{self.name} {version}".encode())
        digest = digest_file(archive)
        await self.store.put(artifact_key(self.name, digest), archive, digest)
        manifest = Manifest.model_validate(
            {"name": self.name, "version": version, "entryPoint": "m:C", "methods": [{"name": "run"}]}
        )
        return PluginVersion(
            plugin=self.name,
            version=version,
            manifest=manifest,
            digest=digest,
            size_bytes=archive.stat().st_size,
            created_by="dev",
            created_at=NOW,
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The control worker and every node's worker poll while inside."""
        async with self.control_worker():
            workers = [self.node_worker(node) for node in self.nodes]
            for worker in workers:
                await worker.__aenter__()
            try:
                yield
            finally:
                await asyncio.gather(*(worker.__aexit__(None, None, None) for worker in workers))

    def control_worker(self) -> Worker:
        uow = self.records.unit_of_work
        guard = RegistrySignatureGuard(uow)
        routing = RoutingActivities(uow)
        pipelines = PipelineActivities(uow, self.bus)
        queue = QueueActivities(uow)
        worker = Worker(
            self.client,
            task_queue=self.queue,
            workflows=DEPLOYMENT_WORKFLOWS,
            activities=[
                PlanningActivities(uow, guard, ConfigCheck()).plan_deployment,
                RetentionActivities(Retention(uow, self.store)).sweep_retention,
                ArtifactActivities(self.store, 1_000_000, guard).verify_artifact,
                TrialActivities(self.store, self.trial, self.scratch, 1_000_000).run_trial,
                routing.write_routes,
                routing.restore_routes,
                routing.list_live_nodes,
                AnalysisActivities(uow, self.figures, {"prometheus": self.metrics}).judge_version,
                ExperimentActivities(uow, self.figures).compare_versions,
                RecordActivities(uow, self.bus).record_progress,
                queue.look_at_line,
                queue.hand_over,
                FreezeActivities(uow).check_freeze,
                pipelines.served_version,
                pipelines.record_pipeline,
                SandboxRecordActivities(uow).close_session,
                *aftercare.control_activities(self),
            ],
            # Half the CPU time. What the sandbox forbids is found by tests/replay and by every worker of tests/e2e.
            workflow_runner=UnsandboxedWorkflowRunner(),
            interceptors=[SignalGuard(), *self.interceptors],
            max_cached_workflows=self.cached_runs,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        )
        # A busy machine, or a test (hooks), may hold a task for longer than the 2 s after which it counts as deadlocked. The
        # worker's own switch for that, debug_mode, would run workflows on the test's loop.
        assert worker._workflow_worker is not None
        worker._workflow_worker._deadlock_timeout_seconds = 60
        return worker

    def node_worker(self, node: ScriptedNode) -> Worker:
        activities = NodeActivities(node)
        return Worker(
            self.client,
            task_queue=node_queue(node.node_id),
            activities=[
                activities.stage_version,
                activities.apply_routes,
                activities.probe_version,
                activities.smoke_version,
                activities.retire_versions,
                *aftercare.node_activities(self, node),
            ],
            interceptors=self.interceptors,
        )

    def request(
        self,
        config: StrategyConfig,
        version: str = "2.0.0",
        environment: Environment = Environment.DEVELOPMENT,
        **more: Any,
    ) -> DeploymentRequest:
        return DeploymentRequest(
            deployment_id=f"dep_{uuid.uuid4().hex}",
            plugin=self.name,
            version=version,
            environment=environment,
            config=config,
            initiated_by="dana",
            requested_at=NOW,
            **more,
        )

    async def start(self, request: DeploymentRequest) -> WorkflowHandle[Any, DeploymentProgress]:
        return await self.client.start_workflow(
            WORKFLOW_OF_STRATEGY[request.config.kind],
            request,
            id=deployment_workflow_id(request.environment, request.plugin),
            task_queue=self.queue,
            result_type=DeploymentProgress,
        )

    async def deploy(self, request: DeploymentRequest) -> DeploymentProgress:
        """Start and wait for the end."""
        return await (await self.start(request)).result()

    async def serve_first_version(self) -> None:
        """1.0.0 serves everybody."""
        progress = await self.deploy(self.request(direct(), version="1.0.0"))
        assert progress.status == "Completed", progress.outcome_reason

    async def route(self, environment: Environment = Environment.DEVELOPMENT) -> RouteState:
        async with self.records.unit_of_work() as uow:
            record = await uow.routes.current(environment, self.name)
        return record.state if record else RouteState()

    async def kinds(self, deployment_id: str) -> list[str]:
        async with self.records.unit_of_work() as uow:
            return [event.kind for event in await uow.deployments.events(deployment_id)]


def direct(**more: Any) -> DirectConfig:
    return DirectConfig(drain_grace=timedelta(milliseconds=50), **more)


def canary(
    steps: tuple[int, ...] = (50, 100), period: timedelta = timedelta(milliseconds=60), **more: Any
) -> CanaryConfig:
    return CanaryConfig(
        steps=steps,
        evaluation_period=period,
        evaluation_interval=period / 2,
        drain_grace=timedelta(milliseconds=50),
        **more,
    )


async def until(
    handle: WorkflowHandle[Any, Any], holds: Callable[[DeploymentProgress], bool], within: float = 60
) -> DeploymentProgress:
    """Ask for the status until `holds`."""
    async with asyncio.timeout(within):
        while True:
            try:
                progress = await handle.query("status", result_type=DeploymentProgress)
            except RPCError as fault:  # the time-skipping server gives a query 10 s, however busy the machine is
                if fault.status not in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
                    raise
                continue
            if holds(progress):
                return progress
            await asyncio.sleep(0.02)


async def send(
    handle: WorkflowHandle[Any, Any],
    name: str,
    by: str = "ada",
    roles: tuple[Role, ...] = (Role.APPROVER,),
    **more: Any,
) -> CommandResult:
    """A command as the facade sends it: a validated update."""
    kind = ApproveCommand if name == "approve" else Command
    return await handle.execute_update(name, kind(by=by, roles=roles, **more), result_type=CommandResult)


async def read_plan(handle: WorkflowHandle[Any, Any]) -> Plan:
    return await handle.query("plan", result_type=Plan)
