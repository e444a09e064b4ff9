"""The evidence of an A/B test as the command line shows it."""

import io
from typing import Any

from rich.console import Console

from hotswap.cli.render import deployment_tree, status_line
from tests.unit.cli_fake_api import deployment

EXPERIMENT = {
    "winner": "B",
    "reason": "B (2.0.0) is better by errorRate (...)",
    "aVersion": "1.0.0",
    "bVersion": "2.0.0",
    "alpha": 0.05,
    "takenAt": "2026-01-31T12:00:00Z",
    "metrics": [
        {
            "metric": "errorRate",
            "better": "B",
            "aN": 5000,
            "aEstimate": 0.05,
            "bN": 4800,
            "bEstimate": 0.01,
            "lower": -0.055,
            "upper": -0.021,
            "explanation": "",
        },
        {"metric": "latencyP99", "better": "None", "aN": 0, "bN": 0},
    ],
}


def drawn(**more: Any) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(deployment_tree(deployment("Paused", **more), ()))
    return console.export_text()


def test_the_tree_shows_winner_and_figures_of_every_metric() -> None:
    text = drawn(experiment=EXPERIMENT)
    for expected in (
        "A/B test B is better · A 1.0.0, B 2.0.0, alpha 0.05",
        "B (2.0.0) is better by errorRate",
        "5.00 % (n 5000)",
        "1.00 % (n 4800)",
        "-5.50 % … -2.10 %",
        "– (n 0)",
    ):
        assert expected in text
    assert "A/B winner B" in status_line(deployment("Paused", experiment=EXPERIMENT))


def test_no_winner_is_said_and_no_test_says_nothing() -> None:
    assert "no winner yet" in drawn(experiment={**EXPERIMENT, "winner": "None"})
    assert "A/B" not in drawn(experiment=None)
    assert "A/B" not in status_line(deployment("Paused"))


def test_a_rolling_deployment_counts_nodes_and_not_tenants() -> None:
    assert "nodes: set 30 %" in drawn(strategy="Rolling")
    assert "tenants: set 30 %" in drawn(strategy="Canary")
