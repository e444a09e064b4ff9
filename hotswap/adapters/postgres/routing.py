"""What should run where, on PostgreSQL: versioned routes, tenants' pins, and the nodes that ask for them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, func, literal, select, true, update
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import JSONB, insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import nodes, plugin_versions, plugins, routes, tenant_plugin_configs
from hotswap.domain.ids import derived_id
from hotswap.domain.registry import NodeRecord, Page
from hotswap.domain.routes import ArtifactRef, DesiredRoute, RouteOrder, RouteRecord, RouteState

_NODE_COLUMNS = [nodes.c[name] for name in NodeRecord.model_fields]


class PostgresRouteStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def current(self, environment: str, plugin: str) -> RouteRecord | None:
        rules.check_storable({"environment": environment, "plugin": plugin})
        row = await self._session.first(_route_rows(environment, plugin).limit(1))
        return _route(row) if row is not None else None

    async def write(
        self, environment: str, plugin: str, expected_generation: int, state: RouteState, deployment_id: str
    ) -> RouteRecord:
        data = rules.storable(state)
        rules.check_storable(
            {"environment": environment, "plugin": plugin, "deploymentId": deployment_id}, {"deploymentId": rules.NAME}
        )
        generation = expected_generation + 1
        latest = (
            select(func.coalesce(func.max(routes.c.generation), 0))
            .where(routes.c.environment == environment, routes.c.plugin_id == plugin)
            .scalar_subquery()
        )
        values = {
            routes.c.environment: environment,
            routes.c.plugin_id: plugin,
            routes.c.generation: generation,
            routes.c.state: data,
            routes.c.stable_version: state.stable.version if state.stable else None,
            routes.c.candidate_version: state.candidate.version if state.candidate else None,
            routes.c.candidate_weight: state.candidate_weight,
            routes.c.deployment_id: deployment_id,
        }
        row = select(
            *(literal(value, JSONB if column is routes.c.state else column.type) for column, value in values.items())
        )
        # The subquery keeps generations without gaps; of two writers that both passed it, the primary key lets one
        # through: the other waits for the first one's commit and then inserts nothing.
        done = await self._session.run_guarded(
            insert(routes)
            .from_select(list(values), row.where(latest == expected_generation))
            .on_conflict_do_nothing()
            .returning(*routes.c),
            foreign=rules.route_names_unknown(environment, plugin),
        )
        written = done.first()
        if written is not None:
            return _route(written)
        there = await self._session.first(_route_rows(environment, plugin).where(routes.c.generation == generation))
        if there is not None:
            record = _route(there)
            if record.deployment_id == deployment_id and record.state == state:
                return record
        raise rules.stale_route(environment, plugin, expected_generation, await self.current(environment, plugin))

    async def desired(self, environment: str) -> Sequence[DesiredRoute]:
        rules.check_storable({"environment": environment})
        # Lateral, one index look-up a plugin: the cost does not grow with the number of generations.
        latest = (
            select(routes.c.plugin_id, routes.c.generation, routes.c.state)
            .where(routes.c.environment == environment, routes.c.plugin_id == plugins.c.plugin_id)
            .order_by(routes.c.generation.desc())
            .limit(1)
            .lateral("latest")
        )
        rows = await self._session.all(
            select(latest).select_from(plugins.join(latest, true())).order_by(plugins.c.plugin_id)
        )
        orders = [
            RouteOrder(plugin=row.plugin_id, generation=row.generation, state=RouteState.model_validate(row.state))
            for row in rows
        ]
        orders = [order for order in orders if order.state.versions()]
        pins = await _pins(self._session, [order.plugin for order in orders])
        return [DesiredRoute(order=order, pins=pins.get(order.plugin, {})) for order in orders]

    async def history(self, environment: str, plugin: str, page: Page) -> tuple[Sequence[RouteRecord], int]:
        rules.check_storable({"environment": environment, "plugin": plugin})
        rows, total = await self._session.page(_route_rows(environment, plugin), page)
        return [_route(row) for row in rows], total


class PostgresPinStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def pin(self, tenant: str, plugin: str, version: str | None, by: str) -> None:
        rules.check_storable(
            {"tenant": tenant, "plugin": plugin, "version": version, "by": by},
            {"tenant": rules.NAME, "by": rules.NAME},
        )
        if version is None:
            await self._session.run(
                update(tenant_plugin_configs)
                .where(tenant_plugin_configs.c.tenant_id == tenant, tenant_plugin_configs.c.plugin_id == plugin)
                .values(pinned_version=None, updated_at=func.clock_timestamp())
            )
            return
        row = insert(tenant_plugin_configs).values(
            config_id=derived_id("cfg", tenant, plugin),
            tenant_id=tenant,
            plugin_id=plugin,
            pinned_version=version,
            enabled_by=by,
        )
        await self._session.run_guarded(
            row.on_conflict_do_update(
                index_elements=["tenant_id", "plugin_id"],
                set_={"pinned_version": row.excluded.pinned_version, "updated_at": func.clock_timestamp()},
            ),
            foreign=rules.version_missing(plugin, version),
        )

    async def pins(self, plugin: str) -> dict[str, ArtifactRef]:
        rules.check_storable({"plugin": plugin})
        return (await _pins(self._session, [plugin])).get(plugin, {})

    async def tenants(self, plugin: str) -> Sequence[str]:
        rules.check_storable({"plugin": plugin})
        columns = tenant_plugin_configs.c
        rows = await self._session.all(
            select(columns.tenant_id).where(columns.plugin_id == plugin).order_by(columns.tenant_id)
        )
        return [row.tenant_id for row in rows]


class PostgresNodeStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def register(self, node: NodeRecord) -> None:
        """A `last_seen_at` in the future becomes now: a node whose clock is ahead must not outlive itself."""
        rules.storable(node, rules.NODE_LIMITS)
        values = node.model_dump(by_alias=False) | {
            "last_seen_at": func.least(node.last_seen_at, func.clock_timestamp()),
            "registered_at": func.clock_timestamp(),
        }
        replaced = {name: value for name, value in values.items() if name != "node_id"}
        await self._session.run(
            insert(nodes).values(values).on_conflict_do_update(index_elements=["node_id"], set_=replaced)
        )

    async def beat(self, node_id: str, boot_id: str) -> bool:
        rules.check_storable({"nodeId": node_id, "bootId": boot_id})
        done = await self._session.run(
            update(nodes)
            .where(nodes.c.node_id == node_id, nodes.c.boot_id == boot_id)
            .values(last_seen_at=func.clock_timestamp())
        )
        return bool(done.rowcount)

    async def list(self, environment: str | None, seen_within: timedelta | None) -> Sequence[NodeRecord]:
        rules.check_storable({"environment": environment})
        query = select(*_NODE_COLUMNS).order_by(nodes.c.node_id)
        if environment is not None:
            query = query.where(nodes.c.environment == environment)
        if seen_within is not None:
            query = query.where(nodes.c.last_seen_at >= func.clock_timestamp() - seen_within)
        return [NodeRecord.model_validate(row._asdict()) for row in await self._session.all(query)]

    async def remove(self, node_id: str, boot_id: str) -> None:
        rules.check_storable({"nodeId": node_id, "bootId": boot_id})
        await self._session.run(delete_from(nodes).where(nodes.c.node_id == node_id, nodes.c.boot_id == boot_id))


async def _pins(session: Session, names: Sequence[str]) -> dict[str, dict[str, ArtifactRef]]:
    """Tenant -> version, by plugin."""
    if not names:
        return {}
    rows = await session.all(
        select(
            tenant_plugin_configs.c.tenant_id,
            tenant_plugin_configs.c.plugin_id,
            plugin_versions.c.version,
            plugin_versions.c.checksum,
            plugin_versions.c.binary_size,
        )
        .join(
            plugin_versions,
            (plugin_versions.c.plugin_id == tenant_plugin_configs.c.plugin_id)
            & (plugin_versions.c.version == tenant_plugin_configs.c.pinned_version),
        )
        .where(tenant_plugin_configs.c.plugin_id.in_(names), tenant_plugin_configs.c.pinned_version.is_not(None))
        .order_by(tenant_plugin_configs.c.tenant_id)
    )
    found: dict[str, dict[str, ArtifactRef]] = {}
    for row in rows:
        found.setdefault(row.plugin_id, {})[row.tenant_id] = ArtifactRef(
            plugin=row.plugin_id, version=row.version, digest=row.checksum, size_bytes=row.binary_size
        )
    return found


def _route_rows(environment: str, plugin: str) -> Any:
    return (
        select(routes)
        .where(routes.c.environment == environment, routes.c.plugin_id == plugin)
        .order_by(routes.c.generation.desc())
    )


def _route(row: Row[Any]) -> RouteRecord:
    return RouteRecord(
        environment=row.environment,
        plugin=row.plugin_id,
        generation=row.generation,
        state=RouteState.model_validate(row.state),
        deployment_id=row.deployment_id,
        written_at=row.written_at,
    )
