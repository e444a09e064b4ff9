"""Every metric provider that the settings allow, by kind. Built in worker.py, the composition root."""

from hotswap.adapters.prometheus_metrics import PrometheusMetricProvider
from hotswap.adapters.webhook_metrics import WebhookMetricProvider
from hotswap.config import MetricsSettings
from hotswap.domain.metrics import MetricProviderKind
from hotswap.ports.metrics import MetricProvider


def metric_providers(settings: MetricsSettings) -> dict[str, MetricProvider]:
    """Close each when done."""
    return {
        MetricProviderKind.PROMETHEUS: PrometheusMetricProvider(settings),
        MetricProviderKind.WEBHOOK: WebhookMetricProvider(settings),
    }
