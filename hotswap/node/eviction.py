"""Ends the hosts of versions that nobody calls, and of the least recently used ones beyond a memory budget.

Neighbours: hotswap.node.hosts ends and reloads a version (the next request waits for it in hotswap.node.router),
hotswap.node.supervisor says which versions may be evicted. `choose` is pure; `Evictor` looks, measures and obeys it.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, perf_counter

from hotswap.node.hosts import SupervisedHost
from hotswap.node.supervisor import NodeSupervisor
from hotswap.ports.hosts import HostHandle

log = logging.getLogger(__name__)

MEASURING_SHARE = 20
"""A measurement of all hosts may take a 20th of the time until the next: 0.4 ms a host, so 8 s with 1,000 of them."""

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class EvictionPolicy:
    """When a version's processes are ended."""

    idle_after: timedelta = timedelta(0)
    """Nobody called it for this long. 0 = never for that."""
    budget_bytes: int = 0
    """Memory of all hosts together past which the least recently used go. 0 = never for that."""
    in_use: timedelta = timedelta(seconds=2)
    """Called or loaded this lately counts as in use: never evicted, not even over the budget."""
    look_every: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A loaded version as `choose` sees it."""

    name: tuple[str, str]
    idle_seconds: float
    own_bytes: int
    evictable: bool
    standby: bool
    """Somebody wants it to answer without a moment's delay: it goes for memory only, and last."""


def choose(
    candidates: Sequence[Candidate], policy: EvictionPolicy, *, measured: bool
) -> tuple[dict[tuple[str, str], str], int]:
    """Who goes, with the reason (idle or budget), and the bytes of those who stay. `measured`: whether bytes are known."""
    idle_after, in_use = policy.idle_after.total_seconds(), policy.in_use.total_seconds()
    gone: dict[tuple[str, str], str] = {}
    stay = sum(candidate.own_bytes for candidate in candidates)
    for candidate in sorted(candidates, key=lambda each: (each.standby, -each.idle_seconds)):
        if not candidate.evictable:
            continue
        if idle_after and not candidate.standby and candidate.idle_seconds >= idle_after:
            gone[candidate.name] = "idle"
        elif measured and stay > policy.budget_bytes and candidate.idle_seconds >= in_use:
            gone[candidate.name] = "budget"
        else:
            continue
        stay -= candidate.own_bytes
    return gone, stay


class Evictor:
    """Looks once a second. Belongs to the node's event loop."""

    def __init__(self, supervisor: NodeSupervisor, policy: EvictionPolicy) -> None:
        self._supervisor = supervisor
        self._policy = policy
        self._measure_at = 0.0
        self._over = False
        supervisor.tally.budget_bytes = policy.budget_bytes

    async def run(self) -> None:
        """Until cancelled; at once over when the policy evicts nobody."""
        while self._policy.idle_after or self._policy.budget_bytes:
            await asyncio.sleep(self._policy.look_every.total_seconds())
            try:
                await self.look()
            except Exception:
                # Nobody awaits this: a bug here must not end the looking, and never the node.
                log.exception("looking for hosts to evict failed")

    async def look(self) -> None:
        """Note who was in use, measure if a budget asks for it, evict who has to go."""
        self._note_use()
        sizes = await self._measure()
        self._note_use()  # measuring took a moment
        now = monotonic()
        hosts: dict[tuple[str, str], SupervisedHost] = {}
        candidates = []
        for host, at_rest in self._supervisor.loaded():
            name = (host.ref.plugin, host.ref.version)
            hosts[name] = host
            own = sum(sizes.get(handle, 0) for handle in host.handles()) if sizes else 0
            candidates.append(
                Candidate(name, now - host.used_at, own, at_rest and host.settled, standby=host.has_standby)
            )
        gone, stay = choose(candidates, self._policy, measured=sizes is not None)
        for name, reason in gone.items():
            hosts[name].evict()
            self._supervisor.tally.evictions[reason] += 1
            log.info("evicted %s %s (%s)", *name, reason, extra={"plugin": name[0], "version": name[1]})
        if sizes is not None:
            self._supervisor.tally.own_bytes = stay
            self._note_excess(stay)

    def _note_use(self) -> None:
        now = monotonic()
        for host, _ in self._supervisor.loaded():
            if host.asked or any(handle.in_flight for handle in host.handles()):
                host.asked = False
                host.used_at = now

    async def _measure(self) -> Mapping[HostHandle, int] | None:
        """Own bytes of every process; None when there is no budget or the last measurement was just now."""
        if not self._policy.budget_bytes or monotonic() < self._measure_at:
            return None
        handles = [handle for host, _ in self._supervisor.loaded() for handle in host.handles()]
        began = perf_counter()
        sizes = await asyncio.to_thread(lambda: {handle: handle.own_memory_bytes() for handle in handles})
        self._measure_at = monotonic() + MEASURING_SHARE * (perf_counter() - began)
        return sizes

    def _note_excess(self, stay: int) -> None:
        """Say once that what is in use does not fit, and once that it does again."""
        budget = self._policy.budget_bytes
        if (stay > budget) == self._over:
            return
        self._over = stay > budget
        if self._over:
            log.warning(
                "the hosts in use need %d MiB, over the budget of %d MiB (HOTSWAP_NODE__MEMORY_BUDGET_MB); nothing is "
                "refused: give the node more memory, or move plugins to other nodes",
                stay // MIB,
                budget // MIB,
            )
        else:
            log.info("the hosts in use fit the budget of %d MiB again", budget // MIB)
