"""Refuses a rollout whose own metrics nobody here may ask, before it starts. The worker decides again when it asks.

Neighbours: api.services.deployments calls it for every request; hotswap.adapters.provider_http is the door itself.
"""

from typing import TypeVar

from hotswap.config import MetricsSettings
from hotswap.domain.deployment import CommonConfig
from hotswap.domain.errors import FieldFault, InvalidInput
from hotswap.domain.metrics import MetricProviderKind, MetricSpec, allowed_origins, origin_of

C = TypeVar("C", bound=CommonConfig)


def askable(config: C, settings: MetricsSettings) -> C:
    """The configuration as given. Raises InvalidInput (a repeat cannot help) naming each metric that cannot be asked."""
    faults = [
        FieldFault(f"config.metrics.{index}.{field}", message)
        for index, metric in enumerate(config.metrics)
        for field, message in _faults(metric, settings)
    ]
    if faults:
        named = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:5])
        raise InvalidInput(f"the metrics cannot be asked: {named}", faults)
    return config


def _faults(metric: MetricSpec, settings: MetricsSettings) -> list[tuple[str, str]]:
    if metric.provider is MetricProviderKind.NODES:
        return []
    if not metric.url and not settings.prometheus_url:
        return [("url", "this platform has no Prometheus of its own; name one, or set HOTSWAP_METRICS__PROMETHEUS_URL")]
    origin = origin_of(metric.url or settings.prometheus_url)
    allowed = allowed_origins(settings.allowed_hosts)
    if metric.provider is MetricProviderKind.PROMETHEUS:
        allowed |= {origin_of(settings.prometheus_url) or ""}
    if metric.url and origin not in allowed:
        return [
            (
                "url",
                f"{origin} is not a host that may be asked; an operator allows it in HOTSWAP_METRICS__ALLOWED_HOSTS",
            )
        ]
    known = {secret.name for secret in settings.secrets if origin in allowed_origins([secret.host])}
    if metric.secret and metric.secret not in known:
        return [("secret", f"is not a secret for {origin}; an operator adds it to HOTSWAP_METRICS__SECRETS")]
    return []
