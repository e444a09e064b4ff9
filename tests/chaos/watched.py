"""Constant traffic on every plugin, and the judgement on each request that failed: in doubt on a killed node, or a fault."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hotswap.demo.traffic import TrafficGenerator
from tests.chaos.injector import Injection
from tests.chaos.scenarios import BROKEN
from tests.e2e.live import CALLS

TENANTS = 40

IN_DOUBT = "CONNECTION_LOST"
"""The connection broke after the request was sent: nobody can know whether it ran, so the client is told."""

IN_DOUBT_WITHIN = 2.0
"""Seconds after a killed node's process has ended in which its broken connections are noticed."""


@dataclass(frozen=True)
class FailedRequest:
    code: str
    at: float
    text: str


class WatchedTraffic(TrafficGenerator):
    """Keeps every failure, not only the first few."""

    def __init__(self, info: dict[str, Any], plugin: str, rate: float) -> None:
        urls = [node["routerUrl"] for node in info["nodes"]]
        super().__init__(urls, info["tenantToken"], plugin, CALLS, tenants=TENANTS, rate=rate)
        self.plugin = plugin
        self.failures: list[FailedRequest] = []
        self._node_of = {node["routerUrl"]: str(node["id"]) for node in info["nodes"]}

    def _failed(self, code: str, text: str) -> None:
        self.failures.append(FailedRequest(code, time.time(), text))
        super()._failed(code, text)

    def in_doubt(self, injections: Sequence[Injection]) -> Counter[str]:
        """Requests stranded on a node that was killed under them, by node."""
        stranded = (self._stranded_on(failure, injections) for failure in self.failures)
        return Counter(node for node in stranded if node)

    def faults(self, injections: Sequence[Injection]) -> list[str]:
        """Every other failure, and every error of a version that makes none."""
        said = [
            f"{self.plugin}: {failure.code} at {failure.at:.3f}: {failure.text}"
            for failure in self.failures
            if not self._stranded_on(failure, injections)
        ]
        wrong = {version: count for version, count in self.report.plugin_errors.items() if version != BROKEN}
        return said + [f"{self.plugin}: {count} plugin errors of {version}" for version, count in wrong.items()]

    def _stranded_on(self, failure: FailedRequest, injections: Sequence[Injection]) -> str:
        """The killed node's name, "" when no kill explains the failure."""
        node = next((name for url, name in self._node_of.items() if failure.text.startswith(f"{url}:")), "")
        killed = any(injection.explains(node, failure.at, IN_DOUBT_WITHIN) for injection in injections)
        return node if failure.code == IN_DOUBT and killed else ""
