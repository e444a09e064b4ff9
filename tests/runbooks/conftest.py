"""Runbooks are followed on the live system of the end-to-end tests. slow_*.py are for `make runbooks` alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.live import Live
from tests.runbooks.follow import Reader
from tests.runbooks.page import RUNBOOKS, Page

Open = Callable[..., Reader]


@pytest.fixture
def reading(live: Live, tmp_path: Path) -> Open:
    """reading("freeze", PLUGIN="x"): somebody who opens that page with these variables set."""

    def opened(name: str, page: Path | None = None, **variables: str) -> Reader:
        return Reader(live, Page(page or RUNBOOKS / f"{name}.md"), tmp_path, variables)

    return opened


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "live" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)
