"""Asks a webhook: POSTs the question as JSON, reads a value or an outcome. Implements MetricProvider. docs/metrics.md.

Neighbour: hotswap.adapters.provider_http carries the exchange.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Annotated

from pydantic import Field, ValidationError, model_validator
from pydantic_core import to_json

from hotswap.adapters.provider_http import Backoff, Keyring, ProviderHttp, bearer, excerpt, parsed
from hotswap.config import MetricsSettings
from hotswap.domain.analysis import Outcome
from hotswap.domain.base import BoundedText, Model
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.metrics import Measurement, MetricQuestion, allowed_origins

SIGNATURE, TIMESTAMP = "X-HotSwap-Signature", "X-HotSwap-Timestamp"

_OUTCOMES = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "inconclusive": Outcome.INCONCLUSIVE}


class _Reply(Model):
    """{"value", "n"?, "reason"?} or {"outcome", "reason"?}. A value of null is no data."""

    value: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    n: Annotated[int, Field(strict=True, ge=0)] | None = None
    outcome: str | None = None
    reason: BoundedText = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> "_Reply":
        if self.outcome is None and "value" not in self.model_fields_set:
            raise ValueError('holds neither a "value" nor an "outcome"')
        if self.outcome is not None and self.value is not None:
            raise ValueError('holds both a "value" and an "outcome"')
        if self.outcome is not None and self.outcome.lower() not in _OUTCOMES:
            raise ValueError('has an "outcome" other than pass, fail or inconclusive')
        return self


class WebhookMetricProvider:
    """`close` when done."""

    def __init__(
        self, settings: MetricsSettings, backoff: Backoff | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._keyring = Keyring(settings.secrets)
        self._clock = clock
        self._http = ProviderHttp(
            allowed_origins(settings.allowed_hosts), settings.timeout, settings.max_answer_bytes, backoff
        )

    async def measure(self, question: MetricQuestion) -> Measurement:
        """One answer. 204, or a value of null, is no data."""
        secret = self._keyring.find(question.secret, self._http.origin(question.url))
        body = to_json(
            {**question.model_dump(mode="json", exclude={"url", "secret"}), "windowSeconds": question.window_seconds}
        )
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if secret is not None:
            headers |= bearer(secret.token)
            if secret.signing_key is not None:
                headers |= signed(body, secret.signing_key.get_secret_value(), int(self._clock()))
        status, answer = await self._http.post(question.url, body, headers)
        asked = f"POST {question.url}"
        if status == 204:
            return Measurement(reason="the webhook has no data", query=asked)
        if status != 200:
            raise MetricProviderFault(f"the webhook answered {status}: {excerpt(answer)}", transient=False)
        try:
            reply = _Reply.model_validate(parsed(answer))
        except ValidationError as fault:
            first = fault.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            said = f"{where} {first['msg'].removeprefix('Value error, ')}".strip()
            raise MetricProviderFault(f"the webhook's answer {said}: {excerpt(answer)}", transient=False) from None
        return Measurement(
            value=reply.value,
            n=reply.n,
            outcome=_OUTCOMES[reply.outcome.lower()] if reply.outcome else None,
            reason=reply.reason,
            query=asked,
            raw=excerpt(answer),
        )

    async def close(self) -> None:
        await self._http.close()


def signed(body: bytes, key: str, timestamp: int) -> dict[str, str]:
    """HMAC-SHA256 over `timestamp.body`: who holds the key knows that we asked, and when (a replay is old)."""
    mac = hmac.new(key.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {TIMESTAMP: str(timestamp), SIGNATURE: f"sha256={mac}"}
