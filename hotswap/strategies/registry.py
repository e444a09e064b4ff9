"""Knows the strategies: reads their configurations from outside data and turns a request into its Plan. Pure.

Neighbours: api.services parses configurations with it, activities.planning makes plans with it; direct, rolling, canary,
blue_green and ab_test hold the strategies themselves. A new strategy is a configuration in hotswap.domain.deployment, a file here and a case below.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from hotswap.domain.deployment import (
    ABTestConfig,
    BlueGreenConfig,
    CanaryConfig,
    DeploymentRequest,
    DirectConfig,
    RollingConfig,
    Strategy,
    StrategyConfig,
)
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput
from hotswap.domain.manifest import field_faults
from hotswap.domain.plan import Plan, Step
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.domain.routes import ArtifactRef
from hotswap.domain.wording import NO_LIST
from hotswap.strategies.ab_test import ab_test_steps
from hotswap.strategies.aftercare import aftercare_of
from hotswap.strategies.announce import announced
from hotswap.strategies.blue_green import blue_green_steps
from hotswap.strategies.canary import canary_steps
from hotswap.strategies.common import completion
from hotswap.strategies.direct import direct_steps
from hotswap.strategies.rolling import rolling_steps

ConfigType = type[DirectConfig] | type[RollingConfig] | type[CanaryConfig] | type[BlueGreenConfig] | type[ABTestConfig]

_CONFIGS: dict[Strategy, ConfigType] = {
    Strategy.DIRECT: DirectConfig,
    Strategy.ROLLING: RollingConfig,
    Strategy.CANARY: CanaryConfig,
    Strategy.BLUE_GREEN: BlueGreenConfig,
    Strategy.AB_TESTING: ABTestConfig,
}


def available_strategies() -> tuple[Strategy, ...]:
    """The strategies that can be planned now."""
    return tuple(_CONFIGS)


def make_plan(
    request: DeploymentRequest,
    policy: EnvironmentPolicy,
    target: ArtifactRef,
    previous: ArtifactRef | None,
    warm: Sequence[ArtifactRef] = (),
) -> Plan:
    """Everything that will happen, whole. `previous` is what the environment serves now (None: nothing), `warm` what is
    loaded on its nodes beside it.

    Raises Conflict (a repeat cannot help) when `target` is already the version in place, or the strategy needs a version
    in place and there is none; InvalidInput when the configuration contradicts them.
    """
    if previous is not None and previous.version == target.version:
        raise Conflict(f"{target.version} is already what {request.environment} serves")
    return Plan(
        plugin=request.plugin,
        environment=request.environment,
        strategy=request.strategy,
        target=target,
        previous=previous,
        cohort_seed=f"{request.plugin}:{target.version}",
        steps=announced(
            _steps(request, policy, previous, is_warm=target in warm), request.config, compared=previous is not None
        ),
        metrics=request.config.metrics,
        aftercare=aftercare_of(request, previous),
        freezes=request.rollback_of is None,
        hotfix=request.hotfix,
    )


def _steps(
    request: DeploymentRequest, policy: EnvironmentPolicy, previous: ArtifactRef | None, *, is_warm: bool
) -> tuple[Step, ...]:
    if request.rollback_of is not None and is_warm:
        # It was verified, tried and approved, and every node has it loaded: going back is one switch.
        return completion(request.config)
    match request.config:
        case DirectConfig() as config:
            return direct_steps(request, config, policy)
        case CanaryConfig() as config:
            return canary_steps(request, config, policy)
        case RollingConfig() as config:
            return rolling_steps(request, config, policy)
        case BlueGreenConfig() as config:
            return blue_green_steps(request, config, policy)
        case ABTestConfig() as config:
            return ab_test_steps(request, config, policy, previous)


def default_config(strategy: str) -> StrategyConfig:
    """The configuration when none is given. Raises InvalidInput for a strategy that cannot be planned."""
    return _config_type(strategy)()


def parse_config(strategy: str, raw: Mapping[str, Any]) -> StrategyConfig:
    """Read `config` of a deployment request (JSON values; camelCase or snake_case keys) for `strategy`.

    Raises InvalidInput (a repeat cannot help) naming every wrong field by its path, e.g. `config.steps.1`.
    """
    config_type = _config_type(strategy)
    try:
        # Strict JSON: "10", 10.0 and true are not percentages, 60 is not a duration (of what?), Infinity is not a limit.
        config = config_type.model_validate_json(to_json(raw, inf_nan_mode="null"), strict=True)
        faults = _beyond_types(config)
        if not faults:
            return config
    except ValidationError as fault:
        faults = [_in_config(item) for item in field_faults(fault)]
    except ValueError:  # from to_json: something that JSON cannot carry
        faults = [FieldFault("config", "must be a JSON object of numbers, texts, lists and objects")]
    named = "; ".join(f"{item.field}: {item.message}" for item in faults[:5])
    raise InvalidInput(f"the configuration of {strategy} is wrong: {named}", faults)


def _config_type(strategy: str) -> ConfigType:
    *others, last = _CONFIGS
    names = f"{', '.join(others)} or {last}"
    try:
        known = Strategy(strategy)
    except ValueError:
        message = f"'{strategy[:50]}' is not a strategy; choose {names}"
        raise InvalidInput(message, [FieldFault("strategy", message)]) from None
    return _CONFIGS[known]


def _beyond_types(config: StrategyConfig) -> list[FieldFault]:
    if isinstance(config, DirectConfig) and not timedelta(0) <= config.monitoring_period <= timedelta(days=30):
        return [FieldFault("config.monitoringPeriod", "must be zero (not watched) to 30 days, e.g. PT5M")]
    if isinstance(config, BlueGreenConfig) and not timedelta(0) <= config.warmup_period <= timedelta(days=30):
        return [FieldFault("config.warmupPeriod", "must be zero (no warm-up) to 30 days, e.g. PT2M")]
    if isinstance(config, DirectConfig) and config.metrics and not (config.monitoring_period or config.bake_period):
        remedy = "would never be asked: nothing is watched; set monitoringPeriod, e.g. PT5M"
        return [FieldFault("config.metrics", remedy)]
    return []


def _in_config(fault: FieldFault) -> FieldFault:
    """The fault by its path in the request, with the remedy where pydantic only says what is wrong."""
    message = fault.message
    if message.startswith("Input should be a valid duration"):
        message = "must be an ISO 8601 duration such as PT10M"
    elif fault.field.startswith(("steps.", "gradualSteps.")) or (
        message == NO_LIST and fault.field in ("steps", "gradualSteps")
    ):
        message = "must be whole percentages from 1 to 100 in a list, e.g. [10, 30, 50, 100]"
    elif fault.field == "kind":
        message = "differs from the strategy asked for; leave it out"
    else:
        message = message.replace("Input should be", "must be", 1)
    path = "config" if fault.field == "(document)" else f"config.{fault.field}"
    if re.fullmatch(r"metrics\.\d+", fault.field) and (named := re.match(r"(name|url|query|threshold): ", message)):
        path, message = f"{path}.{named.group(1)}", message[named.end() :]
    return FieldFault(path, message)
