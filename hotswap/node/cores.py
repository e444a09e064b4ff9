"""Which processor core a pinned process gets: the one with the fewest pinned so far. Pure counting, one event loop.

Neighbour: hotswap.node.hosts takes a core for each process of a version with `concurrency`; hotswap.runtime.host pins.
"""

import os
from collections.abc import Iterable


class Cores:
    """The cores this node may use."""

    def __init__(self, cores: Iterable[int] | None = None) -> None:
        """`cores`: None = what the system allows this process."""
        self._pinned = dict.fromkeys(sorted(os.sched_getaffinity(0)) if cores is None else cores, 0)

    def __len__(self) -> int:
        return len(self._pinned)

    def take(self) -> int:
        """A core for one more process; the lowest number among equals."""
        core = min(self._pinned, key=self._pinned.__getitem__)
        self._pinned[core] += 1
        return core

    def give_back(self, core: int) -> None:
        self._pinned[core] -= 1
