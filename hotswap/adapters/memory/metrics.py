"""The in-memory twin of the metric providers, for tests: answers what the script says, by metric and version."""

from collections.abc import Callable

from hotswap.domain.analysis import Outcome
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.metrics import Measurement, MetricQuestion

Script = Callable[[MetricQuestion], Measurement]


class MemoryMetricProvider:
    """`questions` remembers all that was asked. Without a script for a metric there is no data."""

    def __init__(self) -> None:
        self.questions: list[MetricQuestion] = []
        self._scripts: dict[str, Script] = {}
        self._away = False

    async def measure(self, question: MetricQuestion) -> Measurement:
        self.questions.append(question)
        if self._away:
            raise MetricProviderFault("the in-memory provider is away", transient=True)
        script = self._scripts.get(question.metric)
        told = script(question) if script else Measurement(reason="nobody told the twin about this metric")
        return told.model_copy(update={"query": told.query or question.query, "raw": told.raw or str(told.value)})

    async def close(self) -> None:
        self._scripts.clear()

    def script(self, metric: str, answer: Script) -> None:
        self._scripts[metric] = answer

    def tell(self, metric: str, value: float | None, n: int | None = None) -> None:
        self._scripts[metric] = lambda question: Measurement(value=value, n=n)

    def judge(self, metric: str, outcome: Outcome, reason: str = "") -> None:
        self._scripts[metric] = lambda question: Measurement(outcome=outcome, reason=reason)

    def go_away(self) -> None:
        self._away = True

    def come_back(self) -> None:
        self._away = False
