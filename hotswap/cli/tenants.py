"""Commands on what a tenant has of plugins: enable, pin, configure, secrets, quotas, history, keys."""

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hotswap.cli.client import API
from hotswap.cli.faults import UsageFault
from hotswap.cli.output import clean
from hotswap.cli.session import Session, command

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT")]
PluginArgument = Annotated[str, typer.Argument(metavar="PLUGIN")]
SecretArgument = Annotated[str, typer.Argument(metavar="NAME")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; goes into the history.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")]

MOST_PARTS = 10_000
"""Parts of a rotation before the command gives up: a million data keys."""


def add_commands(group: typer.Typer) -> None:
    """Register every command of this module under `hotswap tenant`."""
    command(group, name="plugins", examples="hotswap tenant plugins acme")(tenant_plugins)
    command(group, examples="hotswap tenant enable acme invoice")(enable)
    command(group, examples='hotswap tenant disable acme invoice -m "contract ended"')(disable)
    command(group, examples="hotswap tenant pin acme invoice 1.4.2")(pin)
    command(group, examples="hotswap tenant unpin acme invoice")(unpin)
    command(
        group,
        examples="hotswap tenant quotas acme invoice --requests-per-minute 5000 --concurrent 50\n"
        "hotswap tenant quotas acme invoice --defaults",
    )(quotas)
    command(group, examples="hotswap tenant history acme invoice")(history)
    command(group, name="rotate-keys", examples="hotswap tenant rotate-keys acme\nhotswap tenant rotate-keys --all")(
        rotate_keys
    )
    config = typer.Typer(help="A tenant's configuration of a plugin.", no_args_is_help=True, rich_markup_mode="rich")
    command(config, name="get", examples="hotswap tenant config get acme invoice")(config_get)
    command(
        config,
        name="set",
        examples="hotswap tenant config set acme invoice config.json\ncat config.json | hotswap tenant config set acme invoice -",
    )(config_set)
    group.add_typer(config, name="config")
    secret = typer.Typer(
        help="A tenant's secrets for a plugin; none is ever shown.", no_args_is_help=True, rich_markup_mode="rich"
    )
    command(
        secret,
        name="set",
        examples="hotswap tenant secret set acme invoice api-key\nhotswap tenant secret set acme invoice api-key --stdin < key",
    )(secret_set)
    command(secret, name="delete", examples="hotswap tenant secret delete acme invoice api-key")(secret_delete)
    group.add_typer(secret, name="secret")


async def tenant_plugins(session: Session, tenant: TenantArgument, limit: Limit = 100) -> None:
    """List every plugin as the tenant has it."""
    async with session.api() as api:
        page = await api.call("GET", f"{API}/tenants/{quote(tenant, safe='')}/plugins", limit=limit)
    rows = [
        (
            item["pluginId"],
            "enabled" if item["enabled"] else "disabled",
            ", ".join(f"{one['environment']} {one['version'] or 'nothing'}" for one in item["serving"]),
            item["pinnedVersion"] or "",
            "; ".join(item["warnings"]),
        )
        for item in page["items"]
    ]
    session.output.table(("plugin", "", "serves", "pinned", "warnings"), rows, page, "no plugins")


async def enable(session: Session, tenant: TenantArgument, plugin: PluginArgument, reason: Reason = "") -> None:
    """Let the tenant call the plugin."""
    async with session.api() as api:
        seen = await api.call("POST", f"{_at(tenant, plugin)}/enable", body={"reason": reason}, repeatable=True)
    _say(session, f"{plugin} is enabled for {tenant}", seen)


async def disable(session: Session, tenant: TenantArgument, plugin: PluginArgument, reason: Reason = "") -> None:
    """Refuse the tenant's calls of the plugin."""
    async with session.api() as api:
        seen = await api.call("POST", f"{_at(tenant, plugin)}/disable", body={"reason": reason}, repeatable=True)
    _say(session, f"{plugin} is disabled for {tenant}", seen)


async def pin(
    session: Session,
    tenant: TenantArgument,
    plugin: PluginArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION")],
    reason: Reason = "",
) -> None:
    """Keep the tenant on one version, whatever is rolled out."""
    body = {"version": version, "reason": reason}
    async with session.api() as api:
        seen = await api.call("PUT", f"{_at(tenant, plugin)}/pin", body=body, repeatable=True)
    _say(session, f"{tenant} stays on {plugin} {version}", seen)


async def unpin(session: Session, tenant: TenantArgument, plugin: PluginArgument) -> None:
    """Let rollouts move the tenant again."""
    async with session.api() as api:
        await api.call("DELETE", f"{_at(tenant, plugin)}/pin", repeatable=True)
    session.output.say(f"rollouts move {tenant} again", {"tenant": tenant, "plugin": plugin})


async def quotas(
    session: Session,
    tenant: TenantArgument,
    plugin: PluginArgument,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    execution_seconds: Annotated[float | None, typer.Option(min=0.001, show_default=False)] = None,
    memory_mb: Annotated[int | None, typer.Option("--memory-mb", min=1, show_default=False)] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Take the tenant's own limits away.")] = False,
) -> None:
    """Show the tenant's limits on each node, or replace them; what is left out is the platform's default."""
    given = {
        "requestsPerMinute": requests_per_minute,
        "concurrent": concurrent,
        "executionSeconds": execution_seconds,
        "memoryMb": memory_mb,
    }
    body = {name: value for name, value in given.items() if value is not None}
    if body and defaults:
        raise UsageFault("--defaults takes every limit away", "give limits or --defaults")
    async with session.api() as api:
        if body or defaults:
            seen = await api.call("PUT", f"{_at(tenant, plugin)}/quotas", body=body, repeatable=True)
        else:
            seen = await api.call("GET", _at(tenant, plugin))
    own = {name: value for name, value in (seen["quotas"] or {}).items() if value is not None}
    told = ", ".join(f"{name} {value}" for name, value in own.items()) or "the platform's defaults"
    _say(session, f"{tenant} has {told} for {plugin}", seen)


async def history(session: Session, tenant: TenantArgument, plugin: PluginArgument, limit: Limit = 20) -> None:
    """Who changed what and when, newest first."""
    async with session.api() as api:
        page = await api.call("GET", f"{_at(tenant, plugin)}/history", limit=limit)
    rows = [
        (item["at"], item["by"], item["kind"], _short(item["before"]), _short(item["after"]), item["reason"])
        for item in page["items"]
    ]
    session.output.table(("at", "by", "what", "before", "after", "reason"), rows, page, "no changes")


async def config_get(session: Session, tenant: TenantArgument, plugin: PluginArgument) -> None:
    """Show the configuration, and the names of the secrets."""
    async with session.api() as api:
        seen = await api.call("GET", f"{_at(tenant, plugin)}/config")
    names = ", ".join(str(one["name"]) for one in seen["secrets"])
    lines = [json.dumps(seen["configuration"], indent=2, ensure_ascii=True), f"secrets: {names or 'none'}"]
    session.output.say("\n".join(lines), seen)


async def config_set(
    session: Session,
    tenant: TenantArgument,
    plugin: PluginArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON; - for standard input.")],
    reason: Reason = "",
) -> None:
    """Replace the configuration."""
    body = {"configuration": _document(file), "reason": reason}
    async with session.api() as api:
        seen = await api.call("PUT", f"{_at(tenant, plugin)}/config", body=body, repeatable=True)
    session.output.say(f"{plugin} is configured for {tenant}", seen)


async def secret_set(
    session: Session,
    tenant: TenantArgument,
    plugin: PluginArgument,
    name: SecretArgument,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read the value from standard input instead of asking.")
    ] = False,
) -> None:
    """Set a secret. It is asked for or piped, never an argument: those are seen by others on the machine."""
    value = sys.stdin.read().removesuffix("\n") if stdin else getpass.getpass(f"{name}: ")
    if not value:
        raise UsageFault("the secret is empty", "type it, or pipe it with --stdin")
    path = f"{_at(tenant, plugin)}/secrets/{quote(name, safe='')}"
    async with session.api() as api:
        await api.call("PUT", path, body={"value": value}, repeatable=True)
    session.output.say(f"{name} is set for {tenant}", {"tenant": tenant, "plugin": plugin, "name": name})


async def secret_delete(session: Session, tenant: TenantArgument, plugin: PluginArgument, name: SecretArgument) -> None:
    """Delete a secret."""
    async with session.api() as api:
        await api.call("DELETE", f"{_at(tenant, plugin)}/secrets/{quote(name, safe='')}")
    session.output.say(f"{name} is deleted", {"tenant": tenant, "plugin": plugin, "name": name})


async def rotate_keys(
    session: Session,
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", show_default=False)] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Wrap all tenants' data keys by the provider's newest key.")
    ] = False,
    reason: Reason = "",
) -> None:
    """Give a tenant a new data key and seal its secrets anew; or wrap every data key anew. Nothing stops meanwhile."""
    if (tenant is None) == (not everything):
        raise UsageFault("rotate-keys takes a tenant or --all", "hotswap tenant rotate-keys acme")
    told: dict[str, Any] = {"rewrapped": 0, "resealed": 0}
    body: dict[str, Any] = {"reason": reason} if tenant else {"after": ""}
    path = f"{API}/tenants/{quote(tenant, safe='')}/keys/rotate" if tenant else f"{API}/tenant-keys/rewrap"
    async with session.api() as api:
        for _ in range(MOST_PARTS):
            part = await api.call("POST", path, body=body, repeatable=True)
            for count in told:
                told[count] += part.get(count, 0)
            if part.get("done") or ("next" in part and part["next"] is None):
                break
            body = {"after": part["next"]} if not tenant else body
    session.output.say(f"{told['rewrapped']} data keys wrapped anew, {told['resealed']} plugins sealed anew", told)


def _at(tenant: str, plugin: str) -> str:
    return f"{API}/tenants/{quote(tenant, safe='')}/plugins/{quote(plugin, safe='')}"


def _say(session: Session, line: str, seen: dict[str, Any]) -> None:
    session.output.say(clean(line), seen)
    for warning in seen["warnings"]:
        session.output.note(clean(warning))


def _short(facts: dict[str, Any]) -> str:
    text = json.dumps(facts, ensure_ascii=True)
    return text if len(text) <= 60 else text[:59] + "…"


def _document(file: str) -> dict[str, Any]:
    try:
        document = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        what = "what is piped in" if file == "-" else file
        raise UsageFault(
            f"{what} cannot be read as JSON: {fault}", "give a file with a JSON object, or - and pipe it"
        ) from None
    if not isinstance(document, dict):
        raise UsageFault(f"{file} holds no JSON object", 'write {"name": value, ...}')
    return document
