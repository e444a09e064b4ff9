"""`python -m hotswap.node`: the composition root of a node. Reads HOTSWAP_ variables, builds adapters, runs the agent."""

from hotswap import quick_start  # isort: split

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from datetime import timedelta

import uvloop
from temporalio.client import Client
from temporalio.runtime import Runtime

from hotswap import temporal
from hotswap.adapters.key_providers import key_provider
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.adapters.postgres.database import Database
from hotswap.config import Settings, SettingsInvalid, load_settings
from hotswap.domain.errors import HotSwapError
from hotswap.keys.ring import DataKeyRing
from hotswap.lifeline import announce_ready, die_with_parent
from hotswap.node.agent import NodeAgent, check_settings
from hotswap.runtime.egress import EgressPolicy
from hotswap.runtime.launcher import ZygoteLauncher
from hotswap.runtime.smoke import schema_check_by
from hotswap.telemetry import Tracing, configure_logging, configure_tracing

quick_start.imports_are_done()

log = logging.getLogger("hotswap.node")

WORKER_BEAT = timedelta(seconds=1)
"""Temporal's own heartbeat of this worker, by which a deployment sees at once which nodes take orders."""


async def serve(settings: Settings, tracing: Tracing) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    database = Database(settings.postgres)
    store = MinioArtifactStore(settings.minio)
    keys = key_provider(settings.keys)
    ring = DataKeyRing(database.unit_of_work, keys) if keys is not None else None
    tenants = database.tenant_settings(ring.decrypt, ring.prepare) if ring is not None else database.tenant_settings()
    launcher = ZygoteLauncher(
        settings.sandbox.tier,
        settings.sandbox.max_memory_mb,
        tenants=tenants,
        egress=EgressPolicy.of(settings.sandbox),
        preload=settings.sandbox.preload,
    )

    async def connect() -> Client:
        return await temporal.connect(settings.temporal)

    try:
        agent = NodeAgent(
            settings,
            launcher,
            store,
            database.unit_of_work,
            connect,
            schema_check_by(launcher),
            tenants,
            database.tenant_changes(),
            tracing,
        )
        # What was imported stays. Looking at it again in every full collection stops the router and each load for 20 ms.
        gc.collect()
        gc.freeze()
        await agent.run(stop, announce_ready)
    finally:
        if keys is not None:
            await keys.close()
        await store.close()
        await database.close()


def main() -> int:
    """The exit code: 0 after an orderly stop, 1 when it could not run, 2 when the settings are wrong."""
    die_with_parent()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two a host and one a connection: 1,024 are soon used up
    try:
        settings = load_settings()
        check_settings(settings)
    except SettingsInvalid as fault:
        sys.stderr.write(f"{fault.message}\n")
        return 2
    node = settings.node
    configure_logging(settings.telemetry, "node", facts={"node": node.id, "environment": str(node.environment)})
    tracing = configure_tracing(settings.telemetry, service="node", instance=node.id)
    Runtime.set_default(temporal.make_runtime(worker_beat=WORKER_BEAT))
    try:
        uvloop.run(serve(settings, tracing))
    except HotSwapError as fault:
        log.error("the node cannot run: %s: %s", type(fault).__name__, fault.message)  # noqa: TRY400 - says it all
        return 1
    except OSError as fault:
        log.error("the node cannot run: %s", fault)  # noqa: TRY400
        return 1
    finally:
        tracing.shutdown()
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an ordinary exit right after a Temporal worker aborts in a third of runs (sdk-python #300)
