"""The control plane's worker: composition root that gives adapters to activities and polls. Nothing imports it.

`python -m worker`, configured by HOTSWAP_ variables. Ends in order on SIGTERM or SIGINT. `--set-current` and `--builds`
poll nothing: they tell the server where new rollouts start, and what it knows of the builds (docs/worker-builds.md).
`--set-up` makes the namespace fit, once (docs/temporal.md).
"""

from hotswap import quick_start  # isort: split

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.runtime import Runtime
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from activities.analysis import AnalysisActivities
from activities.artifacts import ArtifactActivities
from activities.drift import DriftActivities
from activities.experiment import ExperimentActivities
from activities.freezes import FreezeActivities
from activities.monitor import MonitorActivities
from activities.notify import NotifyActivities
from activities.pipelines import PipelineActivities
from activities.planning import PlanningActivities
from activities.queue import QueueActivities
from activities.records import RecordActivities
from activities.retention import Retention, RetentionActivities
from activities.routing import RoutingActivities
from activities.sandbox import SandboxCallActivities, SandboxRecordActivities
from activities.trial import TrialActivities
from hotswap import builds, temporal, temporal_setup
from hotswap.activity_tracing import ActivityTracing
from hotswap.adapters.metric_providers import metric_providers
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.adapters.node_figures import NodeFiguresSource
from hotswap.adapters.notification_channels import NotificationChannels
from hotswap.adapters.postgres.database import Database
from hotswap.adapters.redis_events import RedisEventBus
from hotswap.config import Settings, SettingsInvalid, load_settings
from hotswap.domain.errors import HotSwapError, Unavailable
from hotswap.domain.sandbox import MAX_OUTPUT_BYTES, sandbox_queue
from hotswap.lifeline import die_with_parent
from hotswap.node.bundles import BundleCache
from hotswap.ports.metrics import MetricProvider
from hotswap.runtime.calls import SandboxedCalls
from hotswap.runtime.config_check import ConfigCheck
from hotswap.runtime.scratch import ProcessScratch
from hotswap.runtime.signature_guard import guard_of
from hotswap.runtime.trial import SandboxTrialRunner
from hotswap.standing_figures import StandingFigures
from hotswap.telemetry import configure_logging, configure_tracing
from workflows.catalog import DEPLOYMENT_WORKFLOWS, WORKFLOW_RUNNER
from workflows.counting import HISTOGRAM_LIMITS, announce
from workflows.drift import DriftPolicy
from workflows.drift_start import keep_drift_watches
from workflows.log_fields import WorkflowLogFields
from workflows.notify_dispatch import NoticeDispatcher
from workflows.retention_start import keep_retention
from workflows.signal_guard import SignalGuard

quick_start.imports_are_done()

logger = logging.getLogger("hotswap.worker")

MAKE_CURRENT_PATIENCE = timedelta(seconds=60)
"""For a server that has not seen the build poll yet: normally under a second."""


async def run(settings: Settings) -> None:
    """Poll until told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await _connect(settings, stop)
    if client is None:
        return
    await temporal.ensure_search_attributes(client)

    database = Database(settings.postgres)
    store = MinioArtifactStore(settings.minio)
    bus = RedisEventBus(settings.redis)
    figures = NodeFiguresSource(_admin_token(settings))
    providers = metric_providers(settings.metrics)
    scratch = await asyncio.to_thread(ProcessScratch, settings.work_dir / "worker")
    runner = SandboxTrialRunner(settings.sandbox, scratch.path)
    caller = SandboxedCalls(settings.sandbox, _bundles(settings, store, database))
    channels = NotificationChannels(settings.notifications)
    told = settings.notifications
    queue = settings.temporal.task_queue
    dispatcher = NoticeDispatcher(database.unit_of_work, client, queue, told.per_minute, told.kept)
    try:
        async with (
            _sandbox_worker(client, settings, database, caller),
            Worker(
                client,
                task_queue=settings.temporal.task_queue,
                workflows=DEPLOYMENT_WORKFLOWS,
                activities=[
                    *_activities(settings, database, store, bus, figures, runner, scratch.path, providers),
                    *_notify(database, channels),
                ],
                workflow_runner=WORKFLOW_RUNNER,
                interceptors=[SignalGuard(), WorkflowLogFields(), ActivityTracing()],
                max_cached_workflows=settings.temporal.cached_workflows,
                max_concurrent_workflow_tasks=settings.temporal.workflow_tasks,
                max_concurrent_activities=settings.temporal.activities,
                workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(settings.temporal.workflow_pollers),
                activity_task_poller_behavior=PollerBehaviorSimpleMaximum(settings.temporal.activity_pollers),
                # A dead worker's sticky queue would stall the next command for the default 10 s.
                sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
                graceful_shutdown_timeout=timedelta(seconds=10),
                deployment_config=builds.deployment_options(settings.temporal),
            ),
        ):
            logger.info("worker polls %s in %s", settings.temporal.task_queue, settings.temporal.namespace)
            await _settle_build(client, settings)
            policy = DriftPolicy(interval=settings.drift.interval, repair=settings.drift.repair)
            await keep_drift_watches(client, settings.temporal.task_queue, policy)
            retention = settings.retention
            await keep_retention(client, settings.temporal.task_queue, retention.interval, retention.archived_for)
            beside = [asyncio.create_task(dispatcher.run()), *_counting(settings, database)]
            _say_ready()
            await stop.wait()
            logger.info("worker stops")
            for task in beside:
                task.cancel()
    finally:
        await runner.close()
        await channels.close()
        await caller.close()
        await asyncio.to_thread(scratch.close)
        await figures.close()
        for provider in providers.values():
            await provider.close()
        await bus.close()
        await database.close()


def _admin_token(settings: Settings) -> str:
    if settings.node.admin_token is None:
        raise SettingsInvalid(
            "HOTSWAP_NODE__ADMIN_TOKEN is not set: the worker asks the nodes for their figures with it"
        )
    return settings.node.admin_token.get_secret_value()


def _activities(
    settings: Settings,
    database: Database,
    store: MinioArtifactStore,
    bus: RedisEventBus,
    figures: NodeFiguresSource,
    runner: SandboxTrialRunner,
    scratch: Path,
    providers: Mapping[str, MetricProvider],
) -> list[Callable[..., Any]]:
    """Every activity of the control plane, with what it needs."""
    guard = guard_of(settings.signatures, database.unit_of_work)
    routing = RoutingActivities(database.unit_of_work)
    pipelines = PipelineActivities(database.unit_of_work, bus)
    queue = QueueActivities(database.unit_of_work)
    monitor = MonitorActivities(database.unit_of_work, figures)
    return [
        TrialActivities(store, runner, scratch, settings.max_plugin_bytes).run_trial,
        PlanningActivities(database.unit_of_work, guard, ConfigCheck()).plan_deployment,
        ArtifactActivities(store, settings.max_plugin_bytes, guard).verify_artifact,
        routing.write_routes,
        routing.restore_routes,
        routing.list_live_nodes,
        AnalysisActivities(database.unit_of_work, figures, providers).judge_version,
        ExperimentActivities(database.unit_of_work, figures).compare_versions,
        RecordActivities(database.unit_of_work, bus).record_progress,
        queue.look_at_line,
        queue.hand_over,
        FreezeActivities(database.unit_of_work).check_freeze,
        pipelines.served_version,
        pipelines.record_pipeline,
        monitor.start_monitor,
        monitor.look_at_version,
        monitor.prepare_rollback,
        monitor.record_rollback,
        monitor.close_window,
        DriftActivities(database.unit_of_work, figures).look_for_drift,
        SandboxRecordActivities(database.unit_of_work).close_session,
        RetentionActivities(Retention(database.unit_of_work, store)).sweep_retention,
    ]


def _notify(database: Database, channels: NotificationChannels) -> list[Callable[..., Any]]:
    notify = NotifyActivities(database.unit_of_work, channels)
    return [notify.deliver, notify.give_up_delivery]


def _bundles(settings: Settings, store: MinioArtifactStore, database: Database) -> BundleCache:
    """Unpacked bundles by digest, kept from one execution of a sandbox session to the next."""
    return BundleCache(
        store,
        settings.work_dir / "bundles",
        settings.max_plugin_bytes,
        settings.sandbox,
        MAX_OUTPUT_BYTES,
        check_signature=partial(guard_of(settings.signatures, database.unit_of_work).check, environment=None),
    )


def _counting(settings: Settings, database: Database) -> list[asyncio.Task[None]]:
    """What stands beside the SDK's own figures on the worker's page."""
    if not settings.temporal.metrics_address:
        return []
    meter = Runtime.default().metric_meter
    announce(meter, settings.temporal.namespace, settings.temporal.task_queue)
    return [asyncio.create_task(StandingFigures(database.unit_of_work, meter).run(), name="standing figures")]


def _sandbox_worker(client: Client, settings: Settings, database: Database, caller: SandboxedCalls) -> Worker:
    """Executions of sandbox sessions on a queue and with slots of their own, so that they never take a rollout's.

    Unversioned, as nodes are: an execution's order is two ids, whichever build sends it.
    """
    return Worker(
        client,
        task_queue=sandbox_queue(settings.temporal.task_queue),
        activities=[SandboxCallActivities(database.unit_of_work, caller).run_execution],
        interceptors=[ActivityTracing()],
        max_concurrent_activities=settings.sandbox.parallel,
        # Time for what is about to end. An execution may take minutes: one that is cut is run again, or reported as lost.
        graceful_shutdown_timeout=timedelta(seconds=2),
    )


async def _settle_build(client: Client, settings: Settings) -> None:
    """Say which build polls; make it current where that is this worker's to decide. Raises Unavailable (start again)."""
    if not settings.temporal.build_id:
        return
    if settings.temporal.make_current:
        await builds.make_current(client, settings.temporal, MAKE_CURRENT_PATIENCE)
    told = (
        "current" if settings.temporal.make_current else "polling; `python -m worker --set-current` sends it rollouts"
    )
    logger.info("build %s of %s: %s", builds.build_id(settings.temporal), settings.temporal.deployment_name, told)


async def _tell_builds(settings: Settings, set_current: bool) -> None:
    """The commands: make this build current first if asked, then print each build with its status."""
    if set_current and not settings.temporal.build_id:
        raise SettingsInvalid(
            "HOTSWAP_TEMPORAL__BUILD_ID is not set: an unversioned worker has no build; set it to auto"
        )
    client = await temporal.connect(settings.temporal)
    if set_current:
        await builds.make_current(client, settings.temporal, MAKE_CURRENT_PATIENCE)
    for build in await builds.list_builds(client, settings.temporal):
        print(f"{build.build_id}  {build.status}{'  (its workers may stop)' if build.may_stop else ''}")


async def _set_up(settings: Settings, retention_days: int | None) -> None:
    client = await temporal.connect(settings.temporal)
    retention = timedelta(days=retention_days) if retention_days is not None else None
    for sentence in await temporal_setup.set_up(client, retention):
        print(sentence)


async def _connect(settings: Settings, stop: asyncio.Event) -> Client | None:
    """Temporal may start after us: try until it answers; None when told to stop meanwhile."""
    delay = 0.1
    while not stop.is_set():
        try:
            return await temporal.connect(settings.temporal)
        except Unavailable as away:
            logger.warning("%s; trying again in %.1f s", away.message, delay)
        try:
            await asyncio.wait_for(stop.wait(), delay)
        except TimeoutError:
            delay = min(delay * 2, 5.0)
    return None


def _say_ready() -> None:
    """Tell a supervisor that we poll: it waits for this file (HOTSWAP_READY_FILE)."""
    if marker := os.environ.get("HOTSWAP_READY_FILE"):
        Path(marker).touch()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m worker", description="The control plane's worker.")
    commands = parser.add_mutually_exclusive_group()
    commands.add_argument("--set-current", action="store_true", help="start new rollouts on this build, then exit")
    commands.add_argument("--builds", action="store_true", help="print every build and its status, then exit")
    commands.add_argument("--set-up", action="store_true", help="make the namespace with all it needs, then exit")
    parser.add_argument(
        "--retention-days", type=int, metavar="N", help="with --set-up: keep closed rollouts so long (a new one: 30)"
    )
    options = parser.parse_args(arguments)
    if options.retention_days is not None and not (options.set_up and 1 <= options.retention_days <= 3650):
        parser.error("--retention-days: goes with --set-up, 1 to 3650")
    die_with_parent()
    try:
        settings = load_settings()
    except SettingsInvalid as fault:
        print(fault.message, file=sys.stderr)
        return 2
    configure_logging(settings.telemetry, service="worker")
    tracing = configure_tracing(settings.telemetry, service="worker")
    commanded = options.set_current or options.builds or options.set_up
    served = "" if commanded else settings.temporal.metrics_address
    try:
        Runtime.set_default(temporal.make_runtime(served, HISTOGRAM_LIMITS))
    except ValueError as fault:
        print(f"HOTSWAP_TEMPORAL__METRICS_ADDRESS: {fault}; set a host:port that is free here", file=sys.stderr)
        return 2
    try:
        if options.set_up:
            asyncio.run(_set_up(settings, options.retention_days))
        else:
            asyncio.run(_tell_builds(settings, options.set_current) if commanded else run(settings))
    except SettingsInvalid as fault:
        print(fault.message, file=sys.stderr)
        return 2
    except HotSwapError as fault:
        logger.critical("%s", fault.message)
        return 1
    finally:
        tracing.shutdown()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # An interpreter that ends right after a Temporal Worker's shutdown aborts in a third of runs (sdk-python #300).
    os._exit(code)
