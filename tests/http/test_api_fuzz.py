"""The api keeps to its OpenAPI document, whatever is sent: Schemathesis, all checks, every operation, every role.

A bounded, seeded run; `make fuzz` is the long one. Each part has a world of its own, so that parts may run anywhere.
"""

from pathlib import Path

import pytest

from tests.http import fuzzing

PARTS = 3


@pytest.mark.parametrize("part", range(PARTS))
def test_no_request_gets_an_answer_that_is_not_documented(tmp_path: Path, part: int) -> None:
    world = fuzzing.make_world(tmp_path)
    operations = world.operations[part::PARTS]
    faults = fuzzing.sweep(world, operations, examples=2, boundaries=3)
    assert faults == [], "\n\n".join(faults[:5])


def test_requests_that_follow_from_each_other_keep_to_the_document(tmp_path: Path) -> None:
    fuzzing.wander(fuzzing.make_world(tmp_path), walks=6, steps=8)
