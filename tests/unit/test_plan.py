"""A plan is data: it survives JSON with every step's kind, and its hash changes with any change."""

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from hotswap.domain.analysis import InconclusivePolicy, Thresholds
from hotswap.domain.plan import (
    AwaitApproval,
    Observe,
    Plan,
    PromoteVersion,
    RetireVersion,
    RunTrial,
    ShiftTenants,
    StageVersion,
    Step,
    VerifyArtifact,
    step_title,
)
from hotswap.domain.routes import ArtifactRef

OBSERVE = Observe(
    weight_percent=10,
    period=timedelta(minutes=10),
    interval=timedelta(seconds=30),
    thresholds=Thresholds(),
    on_inconclusive=InconclusivePolicy.PAUSE,
)
STEPS: tuple[Step, ...] = (
    VerifyArtifact(),
    RunTrial(timeout=timedelta(minutes=5)),
    AwaitApproval(required=1, require_admin=False, expires_after=timedelta(hours=48)),
    StageVersion(timeout=timedelta(minutes=2)),
    ShiftTenants(weight_percent=10),
    OBSERVE,
    PromoteVersion(),
    RetireVersion(drain_grace=timedelta(seconds=30)),
)
PLAN = Plan(
    plugin="phone",
    environment="Staging",
    strategy="Canary",
    target=ArtifactRef(plugin="phone", version="2.0.0", digest="b" * 64, size_bytes=2),
    previous=ArtifactRef(plugin="phone", version="1.0.0", digest="a" * 64, size_bytes=1),
    cohort_seed="phone:2.0.0",
    steps=STEPS,
)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of every scalar in a JSON document."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, inner in enumerate(value) for leaf in leaves(inner, (*path, index))]
    return [path]


DOCUMENT = PLAN.model_dump(mode="json")
CHANGES: dict[str, Any] = {
    "weightPercent": 11,
    "period": "PT9M",
    "interval": "PT29S",
    "timeout": "PT1M",
    "expiresAfter": "PT47H",
    "drainGrace": "PT31S",
    "required": 2,
    "requireAdmin": True,
    "autoRollback": False,
    "maxExtensions": 3,
    "onInconclusive": "continue",
    "minSample": 51,
    "maxProbeFailures": 4,
    "maxLatencyP99Ms": 501,
    "maxLatencyRatio": 2.1,
    "digest": "c" * 64,
    "sizeBytes": 3,
    "version": "3.0.0",
    "plugin": "fax",
}


def test_json_keeps_every_step_kind() -> None:
    back = Plan.model_validate_json(PLAN.model_dump_json())
    assert back == PLAN
    assert [type(step) for step in back.steps] == [type(step) for step in STEPS]
    assert back.plan_hash == PLAN.plan_hash


# A change of "kind" makes another step: see the test on order and omission.
@pytest.mark.parametrize(
    "path", [path for path in leaves(DOCUMENT) if path[-1] != "kind"], ids=lambda path: ".".join(map(str, path))
)
def test_hash_changes_with_any_change(path: tuple[str | int, ...]) -> None:
    key = path[-1]
    changed = json.loads(json.dumps(DOCUMENT))
    holder = changed
    for part in path[:-1]:
        holder = holder[part]
    before = holder[key]
    if key in CHANGES:
        holder[key] = CHANGES[str(key)]
    elif isinstance(before, float):
        holder[key] = before * 0.9
    else:
        holder[key] = f"{before}x"
    assert holder[key] != before
    assert Plan.model_validate(changed).plan_hash != PLAN.plan_hash


def test_hash_changes_when_steps_are_left_out_or_reordered() -> None:
    hashes = {PLAN.plan_hash}
    for index in range(len(STEPS)):
        hashes.add(PLAN.model_copy(update={"steps": STEPS[:index] + STEPS[index + 1 :]}).plan_hash)
    hashes.add(PLAN.model_copy(update={"steps": STEPS[::-1]}).plan_hash)
    hashes.add(PLAN.model_copy(update={"previous": None}).plan_hash)
    assert len(hashes) == len(STEPS) + 3


def test_hash_is_the_same_for_equal_plans_from_either_spelling() -> None:
    snake = Plan.model_validate(PLAN.model_dump(mode="json", by_alias=False))
    assert snake.plan_hash == PLAN.plan_hash
    assert len(PLAN.plan_hash) == 64


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "promote"},
        {"weightPercent": 10},
        {"kind": "shift-tenants"},
        {"kind": "shift-tenants", "weightPercent": 101},
        {"kind": "promote-version", "weightPercent": 10},
    ],
)
def test_a_step_that_is_not_one_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Step).validate_python(raw)


def test_every_step_has_a_title_of_its_own() -> None:
    titles = [step_title(step) for step in STEPS]
    assert len(set(titles)) == len(STEPS)
    assert titles[2] == "wait for 1 approval"
    assert titles[4:6] == ["shift 10 % of tenants", "observe at 10 %"]
