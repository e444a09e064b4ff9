"""How a node's process ends."""

from datetime import timedelta

import pytest

from hotswap.config import NodeSettings
from hotswap.node.succession import drain_grace


@pytest.mark.parametrize(("invoke_timeout", "grace"), [(5, 35), (30, 35), (31, 36), (600, 605)])
def test_what_runs_at_the_end_may_take_as_long_as_a_request_may(invoke_timeout: int, grace: int) -> None:
    assert drain_grace(NodeSettings(invoke_timeout=timedelta(seconds=invoke_timeout))) == timedelta(seconds=grace)
