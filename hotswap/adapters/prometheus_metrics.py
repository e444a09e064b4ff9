"""Asks any Prometheus (or Thanos, Mimir, VictoriaMetrics: the same API) by an instant query. Implements MetricProvider.

Neighbours: hotswap.adapters.provider_http carries the exchange, hotswap.domain.metrics checks the query's template.
"""

from collections.abc import Mapping
from datetime import timedelta
from math import isfinite
from typing import Any
from urllib.parse import urlencode

from hotswap.adapters.provider_http import Backoff, Keyring, ProviderHttp, bearer, excerpt, parsed
from hotswap.config import MetricsSettings
from hotswap.domain.base import bounded
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.metrics import Measurement, MetricQuestion, allowed_origins, filled, origin_of


class PrometheusMetricProvider:
    """`close` when done."""

    def __init__(self, settings: MetricsSettings, backoff: Backoff | None = None) -> None:
        """The platform's own server may always be asked, others when they are in the allow-list."""
        own = origin_of(settings.prometheus_url)
        self._url = settings.prometheus_url
        self._token = settings.prometheus_token
        self._keyring = Keyring(settings.secrets)
        self._seconds = settings.timeout / timedelta(seconds=1)
        allowed = allowed_origins(settings.allowed_hosts) | ({own} if own else set())
        self._http = ProviderHttp(allowed, settings.timeout, settings.max_answer_bytes, backoff)

    async def measure(self, question: MetricQuestion) -> Measurement:
        """One number. A series that is not there, or not a number, is no data; several series are a fault."""
        base = question.url or self._url
        if not base:
            raise MetricProviderFault(
                "the platform has no Prometheus (HOTSWAP_METRICS__PROMETHEUS_URL); give the metric a url",
                transient=False,
            )
        origin = self._http.origin(base)
        secret = self._keyring.find(question.secret, origin)
        # The platform's token goes to the platform's server only.
        token = secret.token if secret else (None if question.url else self._token)
        query = promql(question)
        form = urlencode({"query": query, "timeout": f"{self._seconds:g}s"}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", **bearer(token)}
        status, body = await self._http.post(f"{base.rstrip('/')}/api/v1/query", form, headers)
        if status not in (200, 400, 422):  # 400 and 422 explain themselves in the same JSON
            raise MetricProviderFault(f"{origin} answered {status}: {excerpt(body)}", transient=False)
        document = parsed(body)
        if status != 200 or document.get("status") != "success":
            why = bounded(str(document.get("error") or excerpt(body)), 300)
            raise MetricProviderFault(f"Prometheus refused the query ({status}): {why}", transient=False)
        value, reason = _number(document.get("data"))
        return Measurement(value=value, reason=reason, query=query, raw=excerpt(body))

    async def close(self) -> None:
        await self._http.close()


def promql(question: MetricQuestion) -> str:
    """The query with its values filled in, escaped as inside a quoted PromQL string."""
    return filled(
        question.query,
        {
            "plugin": _escaped(question.plugin),
            "version": _escaped(question.version),
            "candidate": _escaped(question.candidate),
            "baseline": _escaped(question.baseline or ""),
            "environment": _escaped(question.environment),
            "since": f"{question.since.timestamp():.3f}",
            "window": f"{question.window_seconds}s",
        },
    )


def _escaped(value: str) -> str:
    """For "..." and '...'; a `...` string knows no escapes, so its quote may not come in at all."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'").replace("\n", "\\n").replace("`", "")


def _number(data: Any) -> tuple[float | None, str]:
    """The value, or None and why there is none. Raises MetricProviderFault when the result is not one number."""
    if not isinstance(data, Mapping):
        raise MetricProviderFault("the answer holds no result; is this Prometheus's query API?", transient=False)
    kind, result = data.get("resultType"), data.get("result")
    if kind == "vector" and isinstance(result, list):
        if not result:
            return None, "no series matches the query"
        if len(result) > 1:
            raise MetricProviderFault(
                f"the query gave {len(result):,} series, one is needed: aggregate, e.g. with sum(...)", transient=False
            )
        result = result[0].get("value") if isinstance(result[0], Mapping) else None
    elif kind != "scalar":
        raise MetricProviderFault(
            f"the query gave a {bounded(str(kind), 30)}, one number is needed: a scalar or a vector of one series",
            transient=False,
        )
    try:
        assert isinstance(result, list)
        _, text = result
        value = float(text)
    except (AssertionError, ValueError, TypeError):
        raise MetricProviderFault(f"the result is no number: {bounded(str(result), 100)}", transient=False) from None
    if not isfinite(value):
        return None, f"the query gave {bounded(str(text), 10)}: something was divided by zero, so nothing was counted"
    return value, ""
