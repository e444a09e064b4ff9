"""Configurations of the strategies beside Direct and Canary with waits of milliseconds, and nodes that fall sick by script."""

from datetime import timedelta
from typing import Any

from hotswap.domain.analysis import Health
from hotswap.domain.deployment import ABTestConfig, BlueGreenConfig, RollingConfig
from hotswap.ports.node_runtime import ProbeReport
from tests.workflow.world import ScriptedNode

MOMENT = timedelta(milliseconds=50)


def rolling(**more: Any) -> RollingConfig:
    return RollingConfig(
        **{"drain_grace": MOMENT, "wait_between_batches": MOMENT, "health_check_timeout": MOMENT} | more
    )


def blue_green(**more: Any) -> BlueGreenConfig:
    return BlueGreenConfig(**{"drain_grace": MOMENT, "warmup_period": MOMENT, "monitoring_period": MOMENT} | more)


def ab_test(**more: Any) -> ABTestConfig:
    return ABTestConfig(**{"drain_grace": MOMENT, "test_duration": MOMENT, "evaluation_interval": MOMENT / 2} | more)


class FallsSick(ScriptedNode):
    """Healthy until it serves all tenants by the new version; then as the script says."""

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self.sick = True
        self.probes = 0

    async def probe(self, plugin: str, version: str) -> ProbeReport:
        switched = self.route is not None and self.node_id in self.route.state.switched_nodes
        self.probes += switched
        health = Health.UNHEALTHY if switched and self.sick else Health.HEALTHY
        return ProbeReport(node_id=self.node_id, plugin=plugin, version=version, health=health, detail="scripted")
