"""Draws the evidence of an A/B test: which version is better, by what, and how sure that is. Pure: JSON in, text out.

Neighbours: hotswap.cli.render puts it into the deployment's tree and line.
"""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from hotswap.cli.output import clean

WINNER_STYLE = {"A": "yellow", "B": "green", "None": "dim"}


def add_experiment(tree: Tree, experiment: Any, *, compact: bool) -> None:
    """A branch with the verdict, its reason and a row for each decision metric; nothing when there is no test."""
    if not isinstance(experiment, Mapping):
        return
    head = Text("A/B test ", style="bold")
    head.append_text(_winner(experiment))
    head.append(
        f" · A {clean(experiment.get('aVersion'))}, B {clean(experiment.get('bVersion'))},"
        f" alpha {experiment.get('alpha', '–')}",
        style="dim",
    )
    branch = tree.add(head)
    if experiment.get("reason") and not compact:
        branch.add(Text(clean(experiment["reason"])))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("metric", "better", "A", "B", "B - A"):
        table.add_column(column, justify="left" if column in ("metric", "better") else "right", no_wrap=True)
    for metric in experiment.get("metrics") or ():
        table.add_row(
            clean(metric.get("metric")),
            clean(metric.get("better")),
            _arm(metric.get("aEstimate"), metric.get("aN")),
            _arm(metric.get("bEstimate"), metric.get("bN")),
            f"{_percent(metric.get('lower'))} … {_percent(metric.get('upper'))}",
        )
    branch.add(table)


def experiment_phrase(experiment: Any) -> str:
    """For the plain line: `A/B winner B`; empty when there is no test."""
    return f"A/B winner {clean(experiment.get('winner'))}" if isinstance(experiment, Mapping) else ""


def _winner(experiment: Mapping[str, Any]) -> Text:
    winner = clean(experiment.get("winner"))
    word = "no winner yet" if winner == "None" else f"{winner} is better"
    return Text(word, style=WINNER_STYLE.get(winner, "none"))


def _arm(estimate: Any, n: Any) -> str:
    return f"{_percent(estimate)} (n {n or 0})"


def _percent(share: Any) -> str:
    return f"{100 * share:.2f} %" if isinstance(share, int | float) else "–"
