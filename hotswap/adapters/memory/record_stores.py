"""The stores of MemoryRecords: what hotswap.adapters.postgres does with SQL, done with dictionaries."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from hotswap.adapters import record_rules as rules
from hotswap.adapters.memory.record_state import RecordState
from hotswap.domain.base import Model
from hotswap.domain.deployment import DeploymentProgress, TimelineEvent
from hotswap.domain.lifecycle import TERMINAL
from hotswap.domain.registry import Approval, EnvironmentPolicy, NodeRecord, Page, Plugin
from hotswap.domain.routes import ArtifactRef, DesiredRoute, RouteOrder, RouteRecord, RouteState
from hotswap.ports.records import DeploymentFilter, DeploymentRow, PluginFilter, StoredAnswer

T = TypeVar("T")
M = TypeVar("M", bound=Model)


class Transaction(Protocol):
    """What a store needs of its unit of work."""

    async def reading(self) -> RecordState: ...
    async def writing(self) -> RecordState: ...
    def instant(self) -> datetime: ...


class _Store:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction


def _stored(model: M) -> M:
    """The model after its way through JSON, as a database gives it back: nothing the caller holds can change it."""
    return type(model).model_validate_json(model.model_dump_json())


def _slice(rows: Sequence[T], page: Page) -> tuple[Sequence[T], int]:
    return rows[page.offset : page.offset + page.limit], len(rows)


class MemoryPluginStore(_Store):
    async def add(self, plugin: Plugin) -> None:
        rules.storable(plugin)
        state = await self._transaction.writing()
        if plugin.name in state.plugins:
            raise rules.plugin_taken(plugin.name)
        state.plugins[plugin.name] = _stored(plugin)

    async def get(self, name: str) -> Plugin:
        rules.check_storable({"name": name})
        found = (await self._transaction.reading()).plugins.get(name)
        if found is None:
            raise rules.plugin_missing(name)
        return found

    async def list(self, where: PluginFilter, page: Page) -> tuple[Sequence[Plugin], int]:
        rules.storable(where)
        state = await self._transaction.reading()
        found = [plugin for _, plugin in sorted(state.plugins.items()) if _matches(plugin, where)]
        return _slice(found, page)

    async def save(self, plugin: Plugin) -> None:
        rules.storable(plugin)
        state = await self._transaction.writing()
        held = state.plugins.get(plugin.name)
        if held is None:
            raise rules.plugin_missing(plugin.name)
        kept = {"current_version": held.current_version, "created_at": held.created_at}
        state.plugins[plugin.name] = _stored(plugin.model_copy(update=kept))

    async def delete(self, name: str) -> None:
        rules.check_storable({"name": name})
        state = await self._transaction.writing()
        if name not in state.plugins:
            raise rules.plugin_missing(name)
        deployed = any(row.progress.plugin == name for row in state.deployments.values())
        if deployed or any(plugin == name for _, plugin, _ in state.routes):
            raise rules.plugin_in_use(name)
        del state.plugins[name]
        state.versions = {key: row for key, row in state.versions.items() if key[0] != name}
        state.pins = {key: version for key, version in state.pins.items() if key[1] != name}
        state.quotas = {key: quota for key, quota in state.quotas.items() if key[1] != name}
        state.tenants = {key: None for key in state.tenants if key[1] != name}
        state.tenant_rows = {key: row for key, row in state.tenant_rows.items() if key[1] != name}
        state.tenant_changes = {key: one for key, one in state.tenant_changes.items() if one.plugin != name}
        state.health_checks = {key: one for key, one in state.health_checks.items() if one.plugin != name}
        state.held = {key: held for key, held in state.held.items() if key[1] != name}
        state.freezes = {key: freeze for key, freeze in state.freezes.items() if freeze.plugin != name}
        state.pipelines = {key: row for key, row in state.pipelines.items() if row.progress.plugin != name}
        state.sandboxes = {key: one for key, one in state.sandboxes.items() if one.artifact.plugin != name}
        state.executions = {key: one for key, one in state.executions.items() if one.sandbox_id in state.sandboxes}


def _matches(plugin: Plugin, where: PluginFilter) -> bool:
    return (
        (where.type is None or plugin.type == where.type)
        and (where.status is None or plugin.status is where.status)
        and set(where.tags) <= set(plugin.tags)
        and (not where.search or where.search.casefold() in rules.search_text(plugin))
    )


class MemoryEnvironmentStore(_Store):
    async def get(self, name: str) -> EnvironmentPolicy:
        rules.check_storable({"environment": name})
        found = (await self._transaction.reading()).environments.get(name)
        if found is None:
            raise rules.environment_missing(name)
        return found

    async def list(self) -> Sequence[EnvironmentPolicy]:
        return sorted((await self._transaction.reading()).environments.values(), key=lambda policy: policy.rank)


class MemoryDeploymentStore(_Store):
    async def open(self, row: DeploymentRow) -> None:
        rules.storable(row.progress, rules.PROGRESS_LIMITS)
        rules.storable(row, {"workflowId": rules.NAME, "runId": rules.NAME})
        state = await self._transaction.writing()
        if row.progress.deployment_id in state.deployments:
            return
        if row.progress.plugin not in state.plugins or row.progress.environment not in state.environments:
            raise rules.deployment_names_unknown(row.progress.plugin, row.progress.environment)
        state.deployments[row.progress.deployment_id] = _stored(row)

    async def project(self, progress: DeploymentProgress, events: Sequence[TimelineEvent]) -> None:
        rules.storable(progress, rules.PROGRESS_LIMITS)
        for event in events:
            rules.storable(event, rules.EVENT_LIMITS)
        state = await self._transaction.writing()
        held = state.deployments.get(progress.deployment_id)
        if held is None:
            raise rules.deployment_missing(progress.deployment_id)
        if progress.sequence >= held.progress.sequence:
            state.deployments[progress.deployment_id] = held.model_copy(update={"progress": _stored(progress)})
        for event in events:
            state.events.setdefault((progress.deployment_id, event.sequence), _stored(event))

    async def get(self, deployment_id: str) -> DeploymentRow:
        rules.check_storable({"deploymentId": deployment_id})
        found = (await self._transaction.reading()).deployments.get(deployment_id)
        if found is None:
            raise rules.deployment_missing(deployment_id)
        return found

    async def list(self, where: DeploymentFilter, page: Page) -> tuple[Sequence[DeploymentRow], int]:
        rules.storable(where)
        found = [
            row
            for row in (await self._transaction.reading()).deployments.values()
            if (where.plugin is None or row.progress.plugin == where.plugin)
            and (where.environment is None or row.progress.environment is where.environment)
            and (where.status is None or row.progress.status is where.status)
        ]
        found.sort(key=lambda row: (row.progress.requested_at, row.progress.deployment_id), reverse=True)
        return _slice(found, page)

    async def unfinished(self, environment: str, plugin: str) -> Sequence[DeploymentRow]:
        rules.check_storable({"environment": environment, "plugin": plugin})
        found = [
            row
            for row in (await self._transaction.reading()).deployments.values()
            if (row.progress.environment, row.progress.plugin) == (environment, plugin)
            and row.progress.status not in TERMINAL
        ]
        return sorted(found, key=lambda row: (row.progress.requested_at, row.progress.deployment_id))

    async def standing(self) -> Mapping[tuple[str, str], int]:
        rows = (await self._transaction.reading()).deployments.values()
        open_ones = [row.progress for row in rows if row.progress.status not in TERMINAL]
        return Counter((str(one.environment), str(one.status)) for one in open_ones)

    async def hand_over(self, deployment_id: str, workflow_id: str, run_id: str) -> None:
        rules.check_storable({"deploymentId": deployment_id})
        rules.check_storable(
            {"workflowId": workflow_id, "runId": run_id}, {"workflowId": rules.NAME, "runId": rules.NAME}
        )
        state = await self._transaction.writing()
        held = state.deployments.get(deployment_id)
        if held is None:
            raise rules.deployment_missing(deployment_id)
        state.deployments[deployment_id] = held.model_copy(update={"workflow_id": workflow_id, "run_id": run_id})

    async def events(self, deployment_id: str, after: int = 0, limit: int = 500) -> Sequence[TimelineEvent]:
        rules.check_storable({"deploymentId": deployment_id})
        state = await self._transaction.reading()
        numbers = sorted(number for owner, number in state.events if owner == deployment_id and number > after)
        return [state.events[(deployment_id, number)] for number in numbers[:limit]]


class MemoryApprovalStore(_Store):
    async def record(self, approval: Approval) -> None:
        rules.storable(approval, rules.APPROVAL_LIMITS)
        rules.check_decision(approval.decision)
        state = await self._transaction.writing()
        if approval.deployment_id not in state.deployments:
            raise rules.deployment_missing(approval.deployment_id)
        key = (approval.deployment_id, approval.approver, approval.plan_hash)
        state.approvals.setdefault(key, _stored(approval))

    async def list(self, deployment_id: str) -> Sequence[Approval]:
        rules.check_storable({"deploymentId": deployment_id})
        state = await self._transaction.reading()
        return [approval for approval in state.approvals.values() if approval.deployment_id == deployment_id]


class MemoryRouteStore(_Store):
    async def current(self, environment: str, plugin: str) -> RouteRecord | None:
        rules.check_storable({"environment": environment, "plugin": plugin})
        return (await self._transaction.reading()).latest_route(environment, plugin)

    async def write(
        self, environment: str, plugin: str, expected_generation: int, state: RouteState, deployment_id: str
    ) -> RouteRecord:
        rules.storable(state)
        rules.check_storable(
            {"environment": environment, "plugin": plugin, "deploymentId": deployment_id}, {"deploymentId": rules.NAME}
        )
        held = await self._transaction.writing()
        generation = expected_generation + 1
        there = held.routes.get((environment, plugin, generation))
        if there is not None and there.deployment_id == deployment_id and there.state == state:
            return there
        latest = held.latest_route(environment, plugin)
        if expected_generation != (latest.generation if latest else 0):
            raise rules.stale_route(environment, plugin, expected_generation, latest)
        served = [ref.version for ref in (state.stable, state.candidate) if ref is not None]
        known = environment in held.environments and plugin in held.plugins
        if not known or any((plugin, version) not in held.versions for version in served):
            raise rules.route_names_unknown(environment, plugin)
        record = RouteRecord(
            environment=environment,
            plugin=plugin,
            generation=generation,
            state=state,
            deployment_id=deployment_id,
            written_at=self._transaction.instant(),
        )
        held.routes[(environment, plugin, generation)] = record
        return record

    async def desired(self, environment: str) -> Sequence[DesiredRoute]:
        rules.check_storable({"environment": environment})
        state = await self._transaction.reading()
        names = sorted({plugin for owner, plugin, _ in state.routes if owner == environment})
        latest = [record for name in names if (record := state.latest_route(environment, name)) is not None]
        return [
            DesiredRoute(
                order=RouteOrder(plugin=record.plugin, generation=record.generation, state=record.state),
                pins=_pins(state, record.plugin),
            )
            for record in latest
            if record.state.versions()
        ]

    async def history(self, environment: str, plugin: str, page: Page) -> tuple[Sequence[RouteRecord], int]:
        rules.check_storable({"environment": environment, "plugin": plugin})
        state = await self._transaction.reading()
        found = [record for key, record in state.routes.items() if key[:2] == (environment, plugin)]
        return _slice(sorted(found, key=lambda record: record.generation, reverse=True), page)


class MemoryPinStore(_Store):
    async def pin(self, tenant: str, plugin: str, version: str | None, by: str) -> None:
        rules.check_storable(
            {"tenant": tenant, "plugin": plugin, "version": version, "by": by},
            {"tenant": rules.NAME, "by": rules.NAME},
        )
        state = await self._transaction.writing()
        if version is None:
            state.pins.pop((tenant, plugin), None)
        elif (plugin, version) not in state.versions:
            raise rules.version_missing(plugin, version)
        else:
            state.pins[(tenant, plugin)] = version
            state.tenants[(tenant, plugin)] = None

    async def pins(self, plugin: str) -> dict[str, ArtifactRef]:
        rules.check_storable({"plugin": plugin})
        return _pins(await self._transaction.reading(), plugin)

    async def tenants(self, plugin: str) -> Sequence[str]:
        rules.check_storable({"plugin": plugin})
        return sorted(tenant for tenant, owner in (await self._transaction.reading()).tenants if owner == plugin)


def _pins(state: RecordState, plugin: str) -> dict[str, ArtifactRef]:
    return {
        tenant: state.versions[(plugin, version)].ref
        for (tenant, owner), version in sorted(state.pins.items())
        if owner == plugin
    }


class MemoryNodeStore(_Store):
    async def register(self, node: NodeRecord) -> None:
        rules.storable(node, rules.NODE_LIMITS)
        state = await self._transaction.writing()
        seen = min(node.last_seen_at, self._transaction.instant())
        state.nodes[node.node_id] = node.model_copy(update={"last_seen_at": seen})

    async def beat(self, node_id: str, boot_id: str) -> bool:
        rules.check_storable({"nodeId": node_id, "bootId": boot_id})
        state = await self._transaction.writing()
        held = state.nodes.get(node_id)
        if held is None or held.boot_id != boot_id:
            return False
        state.nodes[node_id] = held.model_copy(update={"last_seen_at": self._transaction.instant()})
        return True

    async def list(self, environment: str | None, seen_within: timedelta | None) -> Sequence[NodeRecord]:
        rules.check_storable({"environment": environment})
        oldest = None if seen_within is None else self._transaction.instant() - seen_within
        return [
            node
            for _, node in sorted((await self._transaction.reading()).nodes.items())
            if (environment is None or node.environment == environment)
            and (oldest is None or node.last_seen_at >= oldest)
        ]

    async def remove(self, node_id: str, boot_id: str) -> None:
        rules.check_storable({"nodeId": node_id, "bootId": boot_id})
        state = await self._transaction.writing()
        held = state.nodes.get(node_id)
        if held is not None and held.boot_id == boot_id:
            del state.nodes[node_id]


class MemoryIdempotencyStore(_Store):
    async def find(self, user: str, operation: str, key: str) -> StoredAnswer | None:
        rules.check_idempotency_key(user, operation, key)
        held = (await self._transaction.reading()).answers.get((user, operation, key))
        return held[0] if held is not None and held[1] >= self._oldest() else None

    async def keep(self, user: str, operation: str, key: str, answer: StoredAnswer) -> None:
        rules.check_idempotency_key(user, operation, key)
        rules.storable(answer, {"requestHash": rules.HASH})
        state = await self._transaction.writing()
        oldest = self._oldest()
        state.answers = {held: row for held, row in state.answers.items() if row[1] >= oldest}
        state.answers.setdefault((user, operation, key), (_stored(answer), self._transaction.instant()))

    def _oldest(self) -> datetime:
        return self._transaction.instant() - rules.IDEMPOTENCY_KEPT
