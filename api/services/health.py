"""How a plugin does: what the nodes say now, what they recorded, and what they counted in a window.

Neighbours: hotswap.ports.health asks the nodes, hotswap.node.health_log records, hotswap.domain.plugin_health judges.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from api.schemas.health import (
    FiguresOut,
    HealthOut,
    HealthQuery,
    HealthWithHistory,
    MetricsOut,
    MetricsQuery,
    NodeFiguresOut,
    VersionHealth,
)
from hotswap.analysis.histogram import merge, quantile
from hotswap.domain.analysis import Health, HostReport, NodeFigures, VersionFigures
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Unavailable
from hotswap.domain.ids import new_id
from hotswap.domain.plugin_health import HealthCheck, ProbeKind, health_of, worst
from hotswap.domain.registry import NodeRecord
from hotswap.ports.health import ProbeSource
from hotswap.ports.metrics import Readings
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from hotswap.tracing import SpanName, span

SEEN_WITHIN = timedelta(seconds=30)
"""Nodes that beat within this are asked; those that did not are gone, and drift tells of them."""

GONE = ("Stopped", "Draining")


class HealthService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, nodes: ProbeSource | None) -> None:
        """Without `nodes` (no admin token of theirs) there is nobody to ask: Unavailable."""
        self._unit_of_work = unit_of_work
        self._nodes = nodes

    async def health(self, plugin: str, query: HealthQuery) -> HealthWithHistory:
        """Raises NotFound, Unavailable."""
        async with self._unit_of_work() as uow:
            await uow.plugins.get(plugin)
            nodes, now = await _nodes(uow, query.environment), await uow.now()
            history, total = await uow.health.list(plugin, query.environment, query)
        readings = await self._source().read(nodes, plugin, now)
        versions = _versions(nodes, readings)
        return HealthWithHistory(
            plugin_id=plugin,
            status=_overall(versions, readings.silent),
            checked_at=now,
            versions=tuple(versions),
            silent=readings.silent,
            history=tuple(history),
            history_total=total,
        )

    async def check(self, plugin: str, environment: Environment | None) -> HealthOut:
        """Probe every version on every node now, and record what was found. Raises NotFound, Unavailable."""
        source = self._source()
        async with self._unit_of_work() as uow:
            await uow.plugins.get(plugin)
            nodes = await _nodes(uow, environment)
        with span(SpanName.HEALTH_CHECK, {"plugin": plugin, "environment": environment or ""}):
            found = await source.probe(nodes, plugin)
        places = {node.node_id: node.environment for node in nodes}
        versions = [
            VersionHealth(
                environment=places[probe.node_id],
                node_id=probe.node_id,
                version=probe.version,
                status=probe.health,
                latency_ms=probe.latency_ms,
                last_error=probe.detail,
            )
            for probe in found.probes
        ]
        async with self._unit_of_work() as uow:
            now = await uow.now()
            await uow.health.add([_check(plugin, one, now) for one in versions])
            await uow.commit()
        return HealthOut(
            plugin_id=plugin,
            status=_overall(versions, found.silent),
            checked_at=now,
            versions=tuple(versions),
            silent=found.silent,
        )

    async def metrics(self, plugin: str, query: MetricsQuery) -> MetricsOut:
        """Raises NotFound, Unavailable."""
        async with self._unit_of_work() as uow:
            await uow.plugins.get(plugin)
            nodes, now = await _nodes(uow, query.environment), await uow.now()
        since = now - query.window
        source = self._source()
        readings, usages = await asyncio.gather(source.read(nodes, plugin, since), source.usage(nodes, plugin))
        cpu = {(one.node_id, each.version): each.cpu_percent for one in usages for each in one.versions}
        seconds = query.window.total_seconds()
        places = {node.node_id: node.environment for node in nodes}
        return MetricsOut(
            plugin_id=plugin,
            environment=query.environment,
            since=since,
            until=now,
            versions=tuple(_figures(version, readings.figures, seconds, cpu) for version in _named(readings.figures)),
            nodes=tuple(
                NodeFiguresOut(
                    environment=places[node.node_id],
                    node_id=node.node_id,
                    **dict(_figures(version, [node], seconds, cpu)),
                )
                for node in readings.figures
                for version in _named([node])
            ),
            silent=readings.silent,
        )

    def _source(self) -> ProbeSource:
        if self._nodes is None:
            raise Unavailable("this api cannot ask the nodes: set HOTSWAP_NODE__ADMIN_TOKEN to the nodes' own")
        return self._nodes


async def _nodes(uow: UnitOfWork, environment: Environment | None) -> Sequence[NodeRecord]:
    return await uow.nodes.list(environment, SEEN_WITHIN)


def _overall(versions: Sequence[VersionHealth], silent: Sequence[str]) -> Health:
    return worst([*(one.status for one in versions), *([Health.UNKNOWN] if silent else [])])


def _versions(nodes: Sequence[NodeRecord], readings: Readings) -> list[VersionHealth]:
    places = {node.node_id: node.environment for node in nodes}
    found = []
    for node in readings.figures:
        for version, hosts in sorted(by_version(node.hosts).items()):
            worst_error = next((host.last_error for host in hosts if host.last_error), "")
            found.append(
                VersionHealth(
                    environment=places[node.node_id],
                    node_id=node.node_id,
                    version=version,
                    status=health_of(hosts),
                    processes=len(hosts),
                    serving=sum(host.state in ("Ready", "Standby") for host in hosts),
                    crashes=sum(host.crashes for host in hosts),
                    probe_failures=max(host.probe_failures for host in hosts),
                    memory_bytes=sum(host.memory_bytes for host in hosts),
                    last_error=worst_error,
                )
            )
    return found


def by_version(hosts: Sequence[HostReport]) -> dict[str, list[HostReport]]:
    """Processes that are meant to serve."""
    found: dict[str, list[HostReport]] = {}
    for host in hosts:
        if host.state not in GONE:
            found.setdefault(host.version, []).append(host)
    return found


def _named(figures: Sequence[NodeFigures]) -> list[str]:
    """Versions that were counted or are loaded."""
    counted = {one.version for node in figures for one in node.versions}
    return sorted(counted | {host.version for node in figures for host in node.hosts})


def _figures(
    version: str, nodes: Sequence[NodeFigures], seconds: float, usage: Mapping[tuple[str, str], float]
) -> FiguresOut:
    counted: list[VersionFigures] = [one for node in nodes for one in node.versions if one.version == version]
    hosts = [host for node in nodes for host in node.hosts if host.version == version]
    buckets = merge(one.latency_buckets for one in counted)
    requests, errors = sum(one.requests for one in counted), sum(one.errors for one in counted)

    def latency(share: float) -> float | None:
        return round(quantile(buckets, share), 3) if buckets else None

    cpu = [usage[node.node_id, version] for node in nodes if (node.node_id, version) in usage]
    return FiguresOut(
        version=version,
        requests=requests,
        errors=errors,
        failures=sum(one.failures for one in counted),
        error_rate=errors / requests if requests else None,
        requests_per_second=requests / seconds,
        p50_ms=latency(0.5),
        p95_ms=latency(0.95),
        p99_ms=latency(0.99),
        memory_bytes=sum(host.memory_bytes for host in hosts),
        cpu_percent=round(sum(cpu), 1) if cpu else None,
        processes=len(hosts),
    )


def _check(plugin: str, found: VersionHealth, now: datetime) -> HealthCheck:
    return HealthCheck(
        check_id=new_id("hc"),
        plugin=plugin,
        version=found.version,
        environment=found.environment,
        kind=ProbeKind.READINESS,
        status=found.status,
        checked_at=now,
        duration_ms=found.latency_ms or 0.0,
        error=found.last_error,
        figures={"node": found.node_id},
    )
