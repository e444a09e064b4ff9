"""What happens after a rollout: how long it bakes, which versions stay warm to go back to, what the health monitor does.

Pure facts. Neighbours: hotswap.domain.deployment takes the configuration in, hotswap.strategies puts it into plans,
workflows.monitor follows it.
"""

from datetime import timedelta

from pydantic import Field, field_validator

from hotswap.domain.base import Model
from hotswap.domain.routes import ArtifactRef, RouteState

LONGEST = timedelta(days=30)


class AftercareConfig(Model):
    """The part of every strategy's configuration that begins when the new version serves all tenants.

    `rollback_window` (time) and `rollback_window_revisions` (a number of earlier versions) keep versions warm: going back
    to one of them takes a switch, without loading, approval, trial or analysis. Both 0: the old version is retired at once.
    """

    bake_period: timedelta = Field(default=timedelta(0), description="guarded at 100 % before it counts as Completed")
    rollback_window: timedelta = Field(default=timedelta(0), description="how long the old version stays warm")
    rollback_window_revisions: int = Field(default=0, ge=0, le=10, description="how many old versions stay warm")
    monitor_interval: timedelta = Field(default=timedelta(seconds=30), description="between two looks of the monitor")

    @field_validator("bake_period", "rollback_window")
    @classmethod
    def _periods_in_range(cls, value: timedelta) -> timedelta:
        if not timedelta(0) <= value <= LONGEST:
            raise ValueError("must be zero (off) to 30 days, e.g. PT1H")
        return value

    @field_validator("monitor_interval")
    @classmethod
    def _interval_in_range(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= value <= timedelta(hours=1):
            raise ValueError("must be 1 second to 1 hour, e.g. PT30S")
        return value

    @property
    def stays_warm(self) -> bool:
        """Old versions stay loaded when the deployment is over."""
        return self.rollback_window > timedelta(0) or self.rollback_window_revisions > 0

    @property
    def warm_revisions(self) -> int:
        """How many old versions are kept: by time alone, the one before."""
        return max(1, self.rollback_window_revisions)


class Aftercare(Model):
    """The health monitor's orders, recorded in the plan. `rollback_window` zero: warm versions stay until the next rollout."""

    interval: timedelta = timedelta(seconds=30)
    failures: int = Field(default=3, ge=1, description="looks in a row that must find a fault before it goes back")
    max_faulty_hosts: float = Field(
        default=0.2, ge=0, lt=1, description="share of hosts; more is a fault of the version"
    )
    auto_rollback: bool = True
    rollback_window: timedelta = timedelta(0)
    drain_grace: timedelta = timedelta(seconds=30)


def warm_after(before: RouteState, target: ArtifactRef, revisions: int) -> tuple[ArtifactRef, ...]:
    """The versions that stay warm when `target` takes over from `before`: newest first, at most `revisions`."""
    old = [ref for ref in (before.stable, *before.warm) if ref is not None and ref.version != target.version]
    return tuple({ref.version: ref for ref in old}.values())[:revisions]
