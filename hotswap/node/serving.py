"""What the router needs of a version and of its figures, wherever its processes are looked after.

In the node's own process that is hotswap.node.hosts and hotswap.node.figures; in a router process of its own it is
hotswap.node.mirrored_hosts, which follows what the node says.
"""

from typing import Protocol

from hotswap.domain.routes import ArtifactRef
from hotswap.node.figures import Result, Slot
from hotswap.ports.hosts import CallTaker


class Recorder(Protocol):
    """Where calls of one version are counted as they end."""

    def record(self, now: float, elapsed: float, result: Result) -> None:
        """One request that ended at `now` after `elapsed` seconds."""
        ...


class Counts(Recorder, Protocol):
    """Where requests of one version are counted."""

    def reject(self) -> None:
        """One request that was the caller's fault."""
        ...

    def absorb(self, now: float, counted: Slot, rejected: int = 0, flood: Slot | None = None) -> None:
        """Several at once; `flood`: what one tenant's flood did, which is not held against the version."""
        ...


class ServedVersion(Protocol):
    """One version that a route names."""

    @property
    def ref(self) -> ArtifactRef: ...
    @property
    def counter(self) -> Counts: ...

    @property
    def processes(self) -> int:
        """How many serve now."""
        ...

    def pick(self) -> CallTaker | None:
        """Hot path: the live process that should take the next call, None while there is none."""
        ...

    def back_within(self, seconds: float) -> bool:
        """Whether it is worth waiting that long for it: not when the next start is later than that."""
        ...
