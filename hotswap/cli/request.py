"""Turns what was typed after `hotswap deploy` into the body of POST /deployments. Pure but for reading --config @file."""

import json
from pathlib import Path
from typing import Any

from hotswap.cli.client import environment_name
from hotswap.cli.durations import iso_duration
from hotswap.cli.faults import UsageFault

CONFLICT_POLICIES = ("reject", "queue", "supersede")

STRATEGIES = ("Direct", "Rolling", "Canary", "BlueGreen", "ABTesting")

_PERIOD_OF = {
    "Direct": "monitoringPeriod",
    "Rolling": "waitBetweenBatches",
    "Canary": "evaluationPeriod",
    "BlueGreen": "monitoringPeriod",
    "ABTesting": "testDuration",
}
"""What --period sets, by strategy."""


def deployment_request(
    plugin: str,
    version: str,
    environment: str,
    *,
    strategy: str | None = None,
    steps: str | None = None,
    period: str | None = None,
    config: str | None = None,
    reason: str = "",
) -> dict[str, Any]:
    """The request's JSON. --steps and --period are short for keys of --config and win over it. Raises UsageFault."""
    document = read_config(config)
    kind = strategy_name(strategy or _kind_of(document)) if strategy or "kind" in document else None
    if "kind" in document and strategy and strategy_name(_kind_of(document)) != kind:
        raise UsageFault(f"--strategy {strategy} and kind {document['kind']} of --config differ", "give one of them")
    document.pop("kind", None)
    if steps is not None:
        kind = kind or "Canary"
        if kind == "BlueGreen":
            document |= {"switchover": "Gradual", "gradualSteps": read_steps(steps)}
        elif kind == "Canary":
            document["steps"] = read_steps(steps)
        else:
            raise UsageFault(
                f"--steps belongs to Canary or BlueGreen, not to {kind}", "leave --steps away, or --strategy canary"
            )
    if period is not None:
        if kind not in _PERIOD_OF:
            raise UsageFault("--period needs a strategy, as each means something else by it", "add --strategy canary")
        document[_PERIOD_OF[kind]] = iso_duration(period, "--period")
    body: dict[str, Any] = {"pluginId": plugin, "version": version, "environment": environment_name(environment)}
    if kind:
        body["strategy"] = kind
    if document:
        body["config"] = document
    if reason:
        body["reason"] = reason
    return body


def conflict_options(on_conflict: str | None, *, hotfix: bool) -> dict[str, Any]:
    """What --on-conflict and --hotfix put into the request. Raises UsageFault."""
    body: dict[str, Any] = {}
    if on_conflict is not None:
        policy = on_conflict.lower()
        if policy not in CONFLICT_POLICIES:
            raise UsageFault(f"--on-conflict '{on_conflict}' is not known", f"known: {', '.join(CONFLICT_POLICIES)}")
        body["onConflict"] = policy
    if hotfix:
        body["hotfix"] = True
    return body


def strategy_name(text: str) -> str:
    """`canary`, `blue-green` -> `Canary`, `BlueGreen`. Raises UsageFault naming the known ones."""
    folded = text.replace("-", "").replace("_", "").lower()
    for known in STRATEGIES:
        if known.lower() == folded:
            return known
    raise UsageFault(f"--strategy '{text}' is not known", f"known: {', '.join(STRATEGIES)}")


def read_steps(text: str) -> list[int]:
    """`10,30,50,100` as numbers; whether they climb to 100 is the api's to judge. Raises UsageFault."""
    try:
        return [int(part) for part in text.replace(" ", "").rstrip(",").split(",")]
    except ValueError:
        raise UsageFault(f"--steps '{text}' are not percentages", "write them like 10,30,50,100") from None


def read_config(text: str | None) -> dict[str, Any]:
    """JSON typed in place, or @file. Raises UsageFault."""
    if text is None:
        return {}
    source = "--config"
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise UsageFault(f"--config: cannot read {source}: {fault}", "name a file that holds JSON") from None
    try:
        document = json.loads(text)
    except ValueError as fault:
        raise UsageFault(
            f"{source} is not JSON: {fault}", """write it like '{"evaluationPeriod": "PT10S"}'"""
        ) from None
    if not isinstance(document, dict):
        raise UsageFault(f"{source} must be a JSON object", """write it like '{"evaluationPeriod": "PT10S"}'""")
    return document


def _kind_of(document: dict[str, Any]) -> str:
    return str(document.get("kind", ""))
