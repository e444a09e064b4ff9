"""Recorded histories of every strategy x ending replay on today's code: a running deployment survives a new worker."""

import base64
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from hotswap.domain.deployment import Strategy
from hotswap.domain.lifecycle import TERMINAL
from tests.replay.scenarios import SCENARIOS
from workflows.catalog import DEPLOYMENT_WORKFLOWS, WORKFLOW_RUNNER

HISTORIES = Path(__file__).parent / "histories"


@pytest.mark.parametrize("name", sorted(SCENARIOS))
async def test_recorded_history_replays(name: str) -> None:
    text = (HISTORIES / f"{name}.json").read_text(encoding="utf-8")
    replayer = Replayer(
        workflows=DEPLOYMENT_WORKFLOWS, data_converter=pydantic_data_converter, workflow_runner=WORKFLOW_RUNNER
    )
    await replayer.replay_workflow(WorkflowHistory.from_json(f"deployment/{name}", text))


def test_no_history_is_left_without_a_scenario() -> None:
    assert {path.stem for path in HISTORIES.glob("*.json")} == set(SCENARIOS)


def test_every_strategy_has_a_history_of_every_ending() -> None:
    results = [_result(path) for path in HISTORIES.glob("*.json")]
    ends = {(result["strategy"], result["status"]) for result in results if "strategy" in result}
    assert set(product(Strategy, TERMINAL)) <= ends


def _result(path: Path) -> dict[str, Any]:
    """What the workflow returned; nothing when it returned nothing or was ended from outside."""
    last = json.loads(path.read_text(encoding="utf-8"))["events"][-1]
    result = last.get("workflowExecutionCompletedEventAttributes", {}).get("result")
    decoded = json.loads(base64.b64decode(result["payloads"][0]["data"])) if result else None
    return decoded if isinstance(decoded, dict) else {}
