"""End-to-end tests share one live system with three nodes, on one xdist worker (they kill parts of it).

The fixture `live` is tests.stack.live_system's; stack.scheduling keeps its users on that worker.
"""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
