"""Which tests share one xdist worker: those that share an expensive fixture, by path. And which come last.

pytest-xdist 3.8 appends the name of `xdist_group` to the private `_nodeid` of an item, which pytest 9.2 no longer reads:
`--dist loadgroup` groups nothing, and every worker would start a live system of its own. Remove with an xdist that does.
"""

import pytest
from xdist.scheduler import LoadGroupScheduling

TOGETHER = {
    "tests/e2e/": "live",
    "tests/browser/": "live",
    "tests/runbooks/": "live",
    "tests/integration/test_embedded_crashes.py": "crashes",
    "tests/integration/test_embedded_apps.py": "apps",
}
"""Rooms and modules whose tests run one after the other on one worker, with the name of what they share."""


SHORT = ("tests/unit/", "tests/replay/")
"""Rooms whose tests take milliseconds. Last, they fill the processes while the last long ones wait, and all end together."""


def short_ones_last(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.startswith(SHORT))  # keeps the order otherwise


class Together(LoadGroupScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return next((name for path, name in TOGETHER.items() if nodeid.startswith(path)), nodeid)
