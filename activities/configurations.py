"""Whether what tenants have configured still fits a version that is about to serve them.

Not an activity itself: activities.planning asks before a plan is made, and the facade for its answers. What tenants change
meanwhile is checked where they change it (api.services.tenants), against every version that serves them.
"""

import json
from collections.abc import Sequence
from typing import Any

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, FieldFault
from hotswap.domain.registry import PluginVersion
from hotswap.ports.configurations import ConfigurationJudge
from hotswap.ports.records import UnitOfWork

AT_ONCE = 500
"""Configurations read and judged at once; equal ones are judged once."""

BATCH_BYTES = 4 * 1024 * 1024
"""Most JSON that one judging process gets: its CPU seconds are for all of it."""

NAMED = 20
"""Tenants that a refusal names; the search ends with them."""


async def refuse_stricter(
    uow: UnitOfWork, version: PluginVersion, environment: Environment, judge: ConfigurationJudge
) -> None:
    """Raises Conflict (never retried) naming tenants and fields; Unavailable when the check cannot be made now.

    Tenants that are pinned are not routed by a deployment, and those that configured nothing have the defaults.
    """
    schema = version.manifest.configuration_schema
    if not schema or schema == await _schema_in_place(uow, version.plugin, environment):
        return
    after = ""
    misfits: dict[str, Sequence[str]] = {}
    while len(misfits) < NAMED:
        rows = await uow.tenants.configured(version.plugin, after, AT_ONCE)
        if not rows:
            break
        misfits |= await _misfits(judge, version, rows)
        after = rows[-1][0]
    if misfits:
        raise _refusal(version, dict(list(misfits.items())[:NAMED]))


async def _schema_in_place(uow: UnitOfWork, plugin: str, environment: Environment) -> dict[str, Any] | None:
    route = await uow.routes.current(environment, plugin)
    if route is None or route.state.stable is None:
        return None
    return (await uow.versions.get(plugin, route.state.stable.version)).manifest.configuration_schema


async def _misfits(
    judge: ConfigurationJudge, version: PluginVersion, rows: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Sequence[str]]:
    """Tenants of these rows whose configuration does not fit, with the fields."""
    defaults = version.manifest.config_defaults()
    whole = {tenant: json.dumps({**defaults, **configuration}, sort_keys=True) for tenant, configuration in rows}
    judged: dict[str, Sequence[str]] = {}
    batch: list[str] = []
    for text in dict.fromkeys(whole.values()):
        if batch and sum(map(len, batch)) + len(text) > BATCH_BYTES:
            judged |= await _judged(judge, version, batch)
            batch = []
        batch.append(text)
    judged |= await _judged(judge, version, batch)
    return {tenant: judged[text] for tenant, text in whole.items() if judged[text]}


async def _judged(judge: ConfigurationJudge, version: PluginVersion, batch: list[str]) -> dict[str, Sequence[str]]:
    values = [json.loads(text) for text in batch]
    fields = await judge.fields(version.manifest.configuration_schema, values, version.version)
    return dict(zip(batch, fields, strict=True))


def _refusal(version: PluginVersion, misfits: dict[str, Sequence[str]]) -> Conflict:
    """Fields and never values: who deploys may not read what tenants configured."""
    named = "; ".join(f"{tenant}: {', '.join(fields[:5])}" for tenant, fields in list(misfits.items())[:5])
    more = "; ..." if len(misfits) > 5 else ""
    remedy = (
        "change it so that it fits both versions (hotswap tenant config set), pin these tenants to the version they have, "
        f"or give {version.version} defaults and a schema that takes what they have"
    )
    faults = [
        FieldFault(f"tenants.{tenant}.{field}", f"does not fit configurationSchema of {version.version}")
        for tenant, fields in misfits.items()
        for field in fields[:5]
    ]
    return Conflict(
        f"{version.plugin} {version.version} refuses what tenants have configured ({named}{more}): {remedy}", faults
    )
