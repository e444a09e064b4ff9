"""Embedded Temporal: the dev server on a SQLite file, with its Web UI, tuned as measured in the design (section 10).

Without the knobs below every hop is rounded up to 50 ms and timers under a second take a second. The namespace keeps
closed runs for 30 days instead of the dev server's 24 hours.
"""

from datetime import timedelta
from functools import cached_property
from typing import Any

from hotswap.embedded import http_probe
from hotswap.embedded.binaries import TEMPORAL, Binary, resolve
from hotswap.embedded.data_dir import DataDir
from hotswap.embedded.parts import Part
from hotswap.embedded.ports import LOOPBACK, Ports
from hotswap.embedded.servers import clean_environment
from hotswap.temporal import SEARCH_ATTRIBUTES

ADDRESS = "HOTSWAP_TEMPORAL__ADDRESS"
NAMESPACE = "HOTSWAP_TEMPORAL__NAMESPACE"
UI_URL = "HOTSWAP_TEMPORAL__UI_URL"
API_KEY = "HOTSWAP_TEMPORAL__API_KEY"
TLS = "HOTSWAP_TEMPORAL__TLS"

DEFAULT_NAMESPACE = "hotswap"
RETENTION = timedelta(days=30)

DYNAMIC_CONFIGURATION = (
    "history.transferProcessorMaxPollRPS=1000",
    "history.timerProcessorMaxPollRPS=1000",
    'history.timerProcessorMaxTimeShift="10ms"',
)
SQLITE_PRAGMAS = ("journal_mode=wal", "synchronous=normal")


class TemporalServer:
    name = "temporal"
    ports: tuple[str, ...] = ("temporal", "temporal-http", "temporal-ui", "temporal-metrics")

    def __init__(self, data: DataDir, ports: Ports) -> None:
        self._data = data
        self._ports = ports

    @cached_property
    def binary(self) -> Binary:
        return resolve(TEMPORAL)

    async def prepare(self) -> Part:
        folder = self._data.folder(self.name)
        command = [str(self.binary.path), "server", "start-dev", "--ip", LOOPBACK]
        command += ["--port", str(self._ports["temporal"]), "--http-port", str(self._ports["temporal-http"])]
        command += [
            "--ui-port",
            str(self._ports["temporal-ui"]),
            "--metrics-port",
            str(self._ports["temporal-metrics"]),
        ]
        command += ["--db-filename", str(folder / "temporal.db"), "--namespace", DEFAULT_NAMESPACE]
        command += ["--log-level", "warn", "--log-format", "json", "--ui-disable-news-fetch"]
        for attribute in SEARCH_ATTRIBUTES:
            command += ["--search-attribute", f"{attribute.name}=Keyword"]
        for pragma in SQLITE_PRAGMAS:
            command += ["--sqlite-pragma", pragma]
        for value in DYNAMIC_CONFIGURATION:
            command += ["--dynamic-config-value", value]
        return Part(
            name=self.name,
            command=tuple(command),
            environment=clean_environment(self._data.root),
            log=self._data.log(self.name),
            probe=self._probe,
            address=f"{LOOPBACK}:{self._ports['temporal']}, Web UI {self._ui_url}",
            stop_grace=timedelta(seconds=10),
        )

    async def provision(self) -> None:
        retention = {"config": {"workflowExecutionRetentionTtl": f"{int(RETENTION.total_seconds())}s"}}
        await self._ask(f"/api/v1/namespaces/{DEFAULT_NAMESPACE}/update", retention)

    def settings(self) -> dict[str, str]:
        return {
            ADDRESS: f"{LOOPBACK}:{self._ports['temporal']}",
            NAMESPACE: DEFAULT_NAMESPACE,
            UI_URL: self._ui_url,
        }

    @property
    def _ui_url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports['temporal-ui']}"

    async def _probe(self) -> None:
        """One question each for the frontend, matching and visibility: a namespace alone is served before the rest."""
        root = f"/api/v1/namespaces/{DEFAULT_NAMESPACE}"
        await self._ask(root)
        await self._ask(f"{root}/task-queues/hotswap?taskQueue.name=hotswap")
        await self._ask(f"{root}/workflows?pageSize=1")

    async def _ask(self, path: str, body: dict[str, Any] | None = None) -> None:
        await http_probe.request(self._ports["temporal-http"], path, body)
