"""Plans an A/B test: both versions serve their own tenants until the evidence says which is better.

Pure. Neighbours: common holds the shared steps, registry chooses this planner, workflows.experiment runs the test,
hotswap.analysis.experiment decides it, hotswap.routing keeps each tenant in its arm.
"""

from hotswap.domain.deployment import ABTestConfig, DeploymentRequest
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput
from hotswap.domain.plan import Experiment, ShiftTenants, Step
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.domain.routes import ArtifactRef
from hotswap.strategies.common import completion, judging_interval, preparation, watched_limits


def ab_test_steps(
    request: DeploymentRequest, config: ABTestConfig, policy: EnvironmentPolicy, previous: ArtifactRef | None
) -> tuple[Step, ...]:
    """prepare, give B its tenants, compare, promote B (only a winner gets there), retire A.

    Raises Conflict without a version in place; InvalidInput when the variants are not the two versions at hand.
    """
    _check_variants(request, config, previous)
    test = Experiment(
        split_percent=config.traffic_split,
        duration=config.test_duration,
        interval=judging_interval(config.test_duration, config.evaluation_interval),
        decision_metrics=config.decision_metrics,
        min_difference=config.min_difference,
        auto_promote=config.auto_promote,
        thresholds=watched_limits(config),
        auto_rollback=config.auto_rollback,
    )
    return (
        *preparation(request, policy),
        ShiftTenants(weight_percent=config.traffic_split),
        test,
        *completion(config),
    )


def _check_variants(request: DeploymentRequest, config: ABTestConfig, previous: ArtifactRef | None) -> None:
    if previous is None:
        raise Conflict(
            f"{request.environment} serves no version of {request.plugin} yet, so there is nothing to compare "
            f"{request.version} with; deploy it with another strategy"
        )
    faults = []
    if config.variant_a not in (None, previous.version):
        said = f"must be the version in place, {previous.version}; leave it out"
        faults.append(FieldFault("config.variantA", said))
    if config.variant_b not in (None, request.version):
        said = f"must be the version that is deployed, {request.version}; leave it out"
        faults.append(FieldFault("config.variantB", said))
    if faults:
        raise InvalidInput("; ".join(f"{fault.field}: {fault.message}" for fault in faults), faults)
