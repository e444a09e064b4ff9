"""Which tests share one xdist worker: those that share an expensive fixture, by path.

pytest-xdist 3.8 appends the name of `xdist_group` to the private `_nodeid` of an item, which pytest 9.2 no longer reads:
`--dist loadgroup` groups nothing, and every worker would start a live system of its own. Remove with an xdist that does.
"""

from xdist.scheduler import LoadGroupScheduling

TOGETHER = {
    "tests/e2e/": "live",
    "tests/browser/": "live",
    "tests/runbooks/": "live",
    "tests/integration/test_embedded_crashes.py": "crashes",
    "tests/integration/test_embedded_apps.py": "apps",
}
"""Rooms and modules whose tests run one after the other on one worker, with the name of what they share."""


class Together(LoadGroupScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return next((name for path, name in TOGETHER.items() if nodeid.startswith(path)), nodeid)
