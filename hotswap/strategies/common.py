"""Steps that every strategy shares: what comes before traffic, what comes after, and how a weight is watched.

Pure: no clock, no network. Neighbours: direct and canary put these together, registry chooses, workflows.step_runner
carries the plan out.
"""

from collections.abc import Sequence
from datetime import timedelta

from hotswap.domain.analysis import Thresholds
from hotswap.domain.deployment import CommonConfig, DeploymentRequest
from hotswap.domain.plan import (
    AwaitApproval,
    Bake,
    Observe,
    PromoteVersion,
    RetireVersion,
    RunTrial,
    ShiftTenants,
    StageVersion,
    Step,
    VerifyArtifact,
)
from hotswap.domain.registry import EnvironmentPolicy

APPROVAL_EXPIRY = timedelta(hours=48)
"""Spec section 5."""

_SHORTEST_INTERVAL = timedelta(seconds=1)
_LONGEST_INTERVAL = timedelta(seconds=30)


def preparation(request: DeploymentRequest, policy: EnvironmentPolicy) -> tuple[Step, ...]:
    """Everything before the first tenant: verify, trial, approval, load on every node.

    Taking back a completed deployment leads to a version that was tried and approved before, and cannot wait:
    no trial and no approval. The artifact is verified all the same.
    """
    steps: list[Step] = [VerifyArtifact()]
    if request.rollback_of is None:
        steps.append(RunTrial(timeout=request.config.trial_timeout))
        if policy.required_approvals > 0:
            steps.append(
                AwaitApproval(
                    required=policy.required_approvals,
                    require_admin=policy.require_admin_approval,
                    expires_after=APPROVAL_EXPIRY,
                )
            )
    steps.append(StageVersion(timeout=request.config.stage_timeout))
    return tuple(steps)


def completion(config: CommonConfig, *, keep_previous: bool = False) -> tuple[Step, ...]:
    """Make the new version the stable one, [bake], then drain and unload the old one, or keep it warm when that is asked."""
    baking = config.bake_period > timedelta(0)
    stays_warm = keep_previous or config.stays_warm
    steps: list[Step] = [
        PromoteVersion(
            keep_previous_warm=baking or stays_warm,
            warm_revisions=config.warm_revisions if stays_warm else 1,
        )
    ]
    if baking:
        steps.append(
            Bake(
                period=config.bake_period,
                interval=judging_interval(config.bake_period),
                thresholds=config.thresholds.model_copy(update={"alpha": config.thresholds.alpha / 2}),
                on_inconclusive=config.on_inconclusive,
                auto_rollback=config.auto_rollback,
            )
        )
    steps.append(RetireVersion(drain_grace=config.drain_grace, drop_warm=baking and not stays_warm))
    return tuple(steps)


def watching_alpha(config: CommonConfig) -> float:
    """The share of `alpha` for what is watched before the promotion: half of it when the version bakes afterwards."""
    alpha = config.thresholds.alpha
    return alpha / 2 if config.bake_period > timedelta(0) else alpha


def watched_limits(config: CommonConfig) -> Thresholds:
    """The thresholds of a step that divides its alpha among windows itself (hotswap.analysis.windows)."""
    return config.thresholds.model_copy(update={"alpha": watching_alpha(config)})


def shift_and_watch(
    weights_percent: Sequence[int], config: CommonConfig, period: timedelta, interval: timedelta | None = None
) -> tuple[Step, ...]:
    """For each weight: shift that share of tenants, then observe it for `period`, judging every `interval`.

    The configuration's `alpha` is the false-rollback rate of the whole rollout. Each weight is a window of its own, so
    each gets an equal part of it (union bound).
    """
    thresholds = config.thresholds.model_copy(update={"alpha": watching_alpha(config) / len(weights_percent)})
    steps: list[Step] = []
    for weight in weights_percent:
        steps.append(ShiftTenants(weight_percent=weight))
        steps.append(
            Observe(
                weight_percent=weight,
                period=period,
                interval=judging_interval(period, interval),
                thresholds=thresholds,
                on_inconclusive=config.on_inconclusive,
                auto_rollback=config.auto_rollback,
            )
        )
    return tuple(steps)


def judging_interval(period: timedelta, asked: timedelta | None = None) -> timedelta:
    """How often to judge within `period`: as asked, or a tenth of it between 1 s and 30 s; never longer than the period."""
    chosen = asked if asked is not None else min(max(period / 10, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)
    return min(chosen, period)
