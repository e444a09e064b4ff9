"""Our own processes as parts of the stack: api, worker and the nodes, each configured by HOTSWAP_ variables only."""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path

import hotswap
from hotswap.domain.deployment import Environment
from hotswap.embedded import http_probe
from hotswap.embedded.data_dir import DataDir
from hotswap.embedded.parts import NotReady, Part
from hotswap.embedded.ports import LOOPBACK, Ports
from hotswap.lifeline import DIE_WITH_PARENT, PARENT_PID, READY_FILE

START_TIMEOUT = timedelta(seconds=60)
"""Cold import of everything takes 2 s on four cores, several times that on a busy continuous-integration machine."""


METRICS_ADDRESS = "HOTSWAP_TEMPORAL__METRICS_ADDRESS"
WORKER_METRICS = "worker-metrics"
"""Name of the port of its figures."""

REPLACE = "HOTSWAP_NODE__REPLACE"

GENEROUS_QUOTA = {
    "HOTSWAP_NODE__QUOTA__REQUESTS_PER_MINUTE": "1000000",
    "HOTSWAP_NODE__QUOTA__CONCURRENT": "1000",
    "HOTSWAP_NODE__QUOTA__MEMORY_MB": "8192",
}
"""A tenant of the embedded stack is a demo or a test that sends as fast as it can. The same variables set outside win."""


def node_ids(count: int) -> tuple[str, ...]:
    return tuple(f"node-{number}" for number in range(1, count + 1))


def port_names(nodes: tuple[str, ...]) -> list[str]:
    """The ports that the api, the worker's figures and the nodes are served on."""
    return ["api", WORKER_METRICS, *(f"{node}-{kind}" for node in nodes for kind in ("router", "admin"))]


def worker_metrics(ports: Ports) -> str:
    """host:port of the worker's figures."""
    return os.environ.get(METRICS_ADDRESS) or f"{LOOPBACK}:{ports[WORKER_METRICS]}"


def api(data: DataDir, ports: Ports, environment: Mapping[str, str]) -> Part:
    port = ports["api"]

    async def probe() -> None:
        await http_probe.request(port, "/ready")

    more = {"HOTSWAP_API__HOST": LOOPBACK, "HOTSWAP_API__PORT": str(port)}
    return _part("api", "api", data, {**environment, **more}, probe, f"http://{LOOPBACK}:{port}")


def worker(data: DataDir, ports: Ports, environment: Mapping[str, str]) -> Part:
    """It serves nothing but figures, so it writes a file once it polls (hotswap.lifeline.announce_ready)."""
    marker = _marker(data, "worker")

    async def probe() -> None:
        if not marker.exists():
            raise NotReady(f"it has not written {marker.name} yet")

    # One build at a time here: should HOTSWAP_TEMPORAL__BUILD_ID be set, nobody else would make it current.
    more = {"HOTSWAP_TEMPORAL__MAKE_CURRENT": "true"}
    more[METRICS_ADDRESS] = worker_metrics(ports)
    return _part("worker", "worker", data, {**environment, **more}, probe, "")


def node(data: DataDir, ports: Ports, environment: Mapping[str, str], node_id: str, serves: Environment) -> Part:
    router, admin = ports[f"{node_id}-router"], ports[f"{node_id}-admin"]

    async def probe() -> None:
        await http_probe.request(admin, "/ready")

    more = {
        "HOTSWAP_NODE__ID": node_id,
        "HOTSWAP_NODE__ENVIRONMENT": serves.value,
        "HOTSWAP_NODE__HOST": LOOPBACK,
        "HOTSWAP_NODE__ADVERTISE_HOST": LOOPBACK,
        "HOTSWAP_NODE__ROUTER_PORT": str(router),
        "HOTSWAP_NODE__ADMIN_PORT": str(admin),
        "HOTSWAP_NODE__DATA_DIR": str(data.folder("nodes") / node_id),
        "HOTSWAP_NODE__DRAIN_IDLE": os.environ.get("HOTSWAP_NODE__DRAIN_IDLE") or "PT1S",  # a person waits for the end
    }
    more |= {name: os.environ.get(name) or value for name, value in GENEROUS_QUOTA.items()}
    return _part(node_id, "hotswap.node", data, {**environment, **more}, probe, f"http://{LOOPBACK}:{router}")


def _part(
    name: str,
    module: str,
    data: DataDir,
    environment: Mapping[str, str],
    probe: Callable[[], Awaitable[None]],
    address: str,
) -> Part:
    marker = _marker(data, name)
    root = str(Path(hotswap.__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return Part(
        name=name,
        command=(sys.executable, "-P", "-m", module),
        environment={
            **os.environ,
            **environment,
            "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root,
            DIE_WITH_PARENT: "1",
            PARENT_PID: str(os.getpid()),
            READY_FILE: str(marker),
        },
        log=data.log(name),
        probe=probe,
        address=address,
        ready_file=marker,
        before_start=lambda: marker.unlink(missing_ok=True),
        start_timeout=START_TIMEOUT,
        # A drain may wait for calls that run (PT30S by default); a person at the terminal will not.
        stop_grace=timedelta(seconds=10),
    )


def _marker(data: DataDir, name: str) -> Path:
    return data.run / f"{name}.ready"
