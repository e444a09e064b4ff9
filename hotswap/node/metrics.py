"""This node's counts as a page for Prometheus, made on the loop in steps so small that no request notices.

Neighbours: hotswap.node.figures counts (not prometheus_client: its labels cost ten times more on the hot path),
hotswap.node.exposition has the format, hotswap.node.admin serves the text at /metrics.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from hotswap.domain.analysis import HostReport
from hotswap.node.exposition import Family, Limits, labels
from hotswap.node.figures import FigureBook
from hotswap.node.hosts import Tally
from hotswap.node.supervisor import NodeSupervisor
from hotswap.node.usage import CpuShares

GROUPS_A_STEP = 5
"""Versions written before the loop gets its turn: about 0.3 ms."""

_EXECUTION = Limits(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LOAD = Limits(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)


class RouterGauges(Protocol):
    """A node's router, or all of them together."""

    @property
    def routers(self) -> int:
        """Those that serve."""
        ...

    @property
    def deaths(self) -> int:
        """Those that ended unasked, since the node began."""
        ...

    @property
    def connections(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def metered(self) -> int: ...
    @property
    def refused(self) -> Counter[str]: ...


async def render(
    environment: str, supervisor: NodeSupervisor, book: FigureBook, router: RouterGauges, used: CpuShares
) -> AsyncIterator[bytes]:
    """The page, in pieces: joining 7 MB would hold the loop for as long as a hundred requests take.

    Counts of one version are of one instant; those of two versions may be a few milliseconds apart. `used` keeps what
    processes had used at the scrape before.
    """
    families = [
        *await _invocations(environment, book),
        *await _hosts(supervisor, used),
        *_routes(supervisor),
        *_tally(supervisor.tally),
        *_router(router),
    ]
    for family in families:
        for piece in family.pieces():
            yield piece
            await asyncio.sleep(0)


async def _invocations(environment: str, book: FigureBook) -> Iterable[Family]:
    calls = Family("plugin_invocations", "counter", "Requests by how they ended.")
    seconds = Family("plugin_execution_duration_seconds", "histogram", "Request to answer, in the node.")
    loads = Family("plugin_load_duration_seconds", "histogram", "Fork to READY of a plugin host.")
    for position, (plugin, version) in enumerate(book.keys(), 1):
        counter = book.counter(plugin, version)
        slot = counter.totals()
        for outcome, count in (
            ("ok", slot.requests - slot.errors),
            ("error", slot.errors - slot.failures),
            ("failure", slot.failures),
            ("rejected", counter.rejected),
        ):
            calls.add(count, labels(environment=environment, outcome=outcome, plugin=plugin, version=version))
        named = labels(environment=environment, plugin=plugin, version=version)
        seconds.add_histogram(slot.buckets, _EXECUTION, named)
        loads.add_histogram(counter.loads, _LOAD, named)
        if position % GROUPS_A_STEP == 0:
            await asyncio.sleep(0)
    return calls, seconds, loads


async def _hosts(supervisor: NodeSupervisor, used: CpuShares) -> Iterable[Family]:
    reports = await supervisor.reports()
    states = Family("hotswap_hosts", "gauge", "Plugin hosts by state.")
    for state, count in sorted(Counter(str(host.state) for host in reports).items()):
        states.add(count, labels(state=state))
    memory = Family("plugin_memory_bytes", "gauge", "Resident set of the version's hosts.")
    cpu = Family("plugin_cpu_percent", "gauge", "Of one core, by the version's hosts since the last scrape.")
    crashes = Family("plugin_host_crashes", "counter", "Hosts that died unasked since staged.")
    grouped: dict[tuple[str, str], list[HostReport]] = {}
    for host in reports:
        grouped.setdefault((host.plugin, host.version), []).append(host)
    for position, ((plugin, version), group) in enumerate(grouped.items(), 1):
        named = labels(plugin=plugin, version=version)
        memory.add(sum(host.memory_bytes for host in group), named)
        cpu.add(used.of(host.pid for host in group if host.pid is not None), named)  # each reads /proc: 15 us
        crashes.add(sum(host.crashes for host in group), named)
        if position % GROUPS_A_STEP == 0:
            await asyncio.sleep(0)
    used.forget_others()
    return states, memory, cpu, crashes


def _routes(supervisor: NodeSupervisor) -> Iterable[Family]:
    generations = Family("hotswap_route_generation", "gauge", "Generation in force here.")
    for plugin, route in supervisor.routes.items():
        generations.add(route.generation, labels(plugin=plugin))
    return generations, _gauge("plugins_active", "Plugins routed here.", len(supervisor.routes))


def _tally(tally: Tally) -> Iterable[Family]:
    takeovers = Family("hotswap_standby_takeovers", "counter", "Times a standby replaced a process that died.")
    takeovers.add(tally.takeovers)
    evictions = Family("hotswap_evictions", "counter", "Versions whose hosts were ended unused.")
    for reason, count in tally.evictions.items():
        evictions.add(count, labels(reason=reason))
    reloads = Family("hotswap_reloads", "counter", "Evicted versions loaded again.")
    reloads.add(tally.reloads)
    own, budget = tally.own_bytes, tally.budget_bytes
    return (
        takeovers,
        evictions,
        reloads,
        _gauge("hotswap_hosts_own_bytes", "Memory only hosts have; 0 without a budget.", own),
        _gauge("hotswap_memory_budget_bytes", "Budget of all hosts together; 0 = none.", budget),
        _gauge("hotswap_memory_over_budget_bytes", "What is in use beyond it.", max(0, own - budget) if budget else 0),
    )


def _router(router: RouterGauges) -> Iterable[Family]:
    refused = Family("hotswap_router_refused", "counter", "Requests turned away, by what they were too many for.")
    for reason in ("overload", "requestsPerMinute", "concurrent", "memoryMb"):
        refused.add(router.refused[reason], labels(reason=reason))
    deaths = Family("hotswap_router_deaths", "counter", "Router processes that ended unasked.")
    deaths.add(router.deaths)
    return (
        _gauge("hotswap_routers", "Routers that serve.", router.routers),
        deaths,
        _gauge("hotswap_router_connections", "Open client connections.", router.connections),
        _gauge("hotswap_router_in_flight", "Requests being served.", router.in_flight),
        _gauge("hotswap_router_waiting", "Requests waiting for a restarting host.", router.waiting),
        _gauge("hotswap_router_queued", "Requests waiting for a busy version.", router.queued),
        _gauge("hotswap_router_meters", "Tenants' quotas being metered.", router.metered),
        refused,
    )


def _gauge(name: str, meaning: str, value: float) -> Family:
    family = Family(name, "gauge", meaning)
    family.add(value)
    return family
