"""What is deployed while parts die: a short configuration for every strategy there is, and what people do meanwhile."""

import random
from dataclasses import dataclass
from typing import Any

from workflows.messages import WORKFLOW_OF_STRATEGY

GOOD = ("1.0.0", "1.1.0")
BROKEN = "2.0.0"
"""Passes its trial and its probes, and fails every tenant: only a verdict can find it."""

JUDGED = {"onInconclusive": "extend", "thresholds": {"minSample": 10}}

CONFIGS: dict[str, dict[str, Any]] = {
    "Direct": {},
    "Canary": {"steps": [25, 60, 100], "evaluationPeriod": "PT1S", "evaluationInterval": "PT0.5S", **JUDGED},
    "Rolling": {"batchSize": 1, "waitBetweenBatches": "PT0.5S", "healthCheckTimeout": "PT20S"},
    "BlueGreen": {"warmupPeriod": "PT0.5S", "monitoringPeriod": "PT1S", **JUDGED},
    "ABTesting": {
        "trafficSplit": 50,
        "testDuration": "PT3S",
        "evaluationInterval": "PT0.5S",
        "autoPromote": True,
        "thresholds": {"minSample": 10},
    },
}
"""Each takes 2 to 6 s when nothing dies, so that a kill is as likely in any of its steps."""

FINDS_BROKEN = ("Canary", "BlueGreen")
"""Strategies whose verdict must keep BROKEN from completing."""

MEDDLING = ("", "", "", "abort", "rollback", "pause", "promote", "take-back")
"""What a person does at a random moment of a run, mostly nothing; take-back: roll it back once it has completed."""

LENGTH = {"Direct": 0.7}
"""Seconds that a run takes undisturbed, for the moment of meddling; 4 when not named."""


@dataclass(frozen=True)
class Scenario:
    """One deployment to make: `meddle` is a command sent `after` seconds. `takes_back`: a command started it."""

    strategy: str
    broken: bool = False
    meddle: str = ""
    after: float = 0.0
    takes_back: bool = False

    def describe(self) -> str:
        words = ("broken version" if self.broken else "", self.meddle, "takes back" if self.takes_back else "")
        more = [word for word in words if word]
        return f"{self.strategy} ({', '.join(more)})" if more else self.strategy


TAKES_BACK = Scenario("Direct", takes_back=True)
"""What the rollback of a completed deployment starts."""


def strategies() -> list[str]:
    """Every strategy that has a workflow type. Raises KeyError naming one that nobody told us how to configure."""
    for name in WORKFLOW_OF_STRATEGY:
        CONFIGS[name]  # a new strategy without a line here must not be left out in silence
    return list(WORKFLOW_OF_STRATEGY)


def draw(choose: random.Random, count: int) -> list[Scenario]:
    """`count` scenarios in random order, every strategy as often as the others (to one)."""
    names = strategies()
    drawn = []
    for number in range(count):
        strategy = names[number % len(names)]
        broken = strategy in FINDS_BROKEN and choose.random() < 0.25
        meddle = "" if broken else choose.choice(MEDDLING)
        drawn.append(Scenario(strategy, broken, meddle, choose.uniform(0.1, 1.0) * LENGTH.get(strategy, 4.0)))
    choose.shuffle(drawn)
    return drawn
