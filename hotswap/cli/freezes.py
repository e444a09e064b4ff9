"""Commands on freezes: list, add, lift, the switch that stops everything, and letting one deployment through."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from hotswap.cli.client import API, ApiClient, environment_name
from hotswap.cli.deployments import DeploymentArgument, EnvironmentOption, NeededReason
from hotswap.cli.faults import UsageFault, not_one
from hotswap.cli.output import clean
from hotswap.cli.session import Session, command
from hotswap.cli.windows import freeze_window, window_text

PluginOption = Annotated[
    str | None, typer.Option("--plugin", "-p", help="Only this plugin; default: all.", show_default=False)
]
ID_LENGTH = 36


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    group = typer.Typer(
        help="Say when environments must not move forward.", no_args_is_help=True, rich_markup_mode="rich"
    )
    command(group, name="list", examples="hotswap freeze list\nhotswap freeze list -e production --all")(list_freezes)
    command(
        group,
        examples="""
hotswap freeze add -e production --weekly "Fri 16:00-Mon 08:00" --time-zone Europe/Berlin -m "weekends are quiet"
hotswap freeze add --from 2026-12-20T00:00+01:00 --until 2027-01-04T00:00+01:00 -m "end of the year"
hotswap freeze add -e production --allow --daily 09:00-16:00 --time-zone Europe/Berlin -m "office hours"
hotswap freeze add --for 2h -m "database maintenance"
""",
    )(add)
    command(group, examples="hotswap freeze lift frz_3f2a -m done")(lift)
    app.add_typer(group, name="freeze")
    command(app, name="stop-everything", examples='hotswap stop-everything -m "incident 7"')(stop_everything)
    command(app, name="release-everything", examples='hotswap release-everything -m "incident 7 is over"')(
        release_everything
    )
    command(app, name="override-freeze", examples='hotswap override-freeze dep_3f2a -m "security fix, agreed"')(
        override_freeze
    )


async def list_freezes(
    session: Session,
    environment: EnvironmentOption = None,
    plugin: PluginOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that were lifted, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
) -> None:
    """List freezes, newest first."""
    where = environment_name(environment) if environment else None
    query: dict[str, Any] = {"environment": where, "pluginId": plugin, "limit": limit}
    if not everything:
        query["lifted"] = "false"
    async with session.api() as api:
        page = await api.call("GET", f"{API}/freezes", **query)
    rows = [
        (
            item["freezeId"][:12] if session.output.live else item["freezeId"],
            item["kind"],
            item.get("environment") or "all",
            item.get("plugin") or "all",
            window_text(item["window"]),
            "lifted" if item.get("liftedAt") else "stands",
            item["reason"],
            item["createdBy"],
        )
        for item in page["items"]
    ]
    columns = ("id", "kind", "environment", "plugin", "window", "state", "reason", "by")
    session.output.table(columns, rows, page, "no freezes")


async def add(
    session: Session,
    reason: NeededReason = "",
    environment: EnvironmentOption = None,
    plugin: PluginOption = None,
    allow: Annotated[
        bool, typer.Option("--allow", help="Allow inside of the window only, instead of denying inside of it.")
    ] = False,
    starts: Annotated[
        str | None, typer.Option("--from", help="Instant it starts; default: now.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Instant it ends; default: when lifted.", show_default=False)
    ] = None,
    lasting: Annotated[
        str | None, typer.Option("--for", help="How long it lasts: 2h, PT2H.", show_default=False)
    ] = None,
    daily: Annotated[str | None, typer.Option("--daily", help="Every day: 22:00-06:00.", show_default=False)] = None,
    weekly: Annotated[
        str | None,
        typer.Option("--weekly", help="'Mon,Tue 09:00-17:00' or 'Fri 16:00-Mon 08:00'.", show_default=False),
    ] = None,
    time_zone: Annotated[str, typer.Option("--time-zone", "-z", help="IANA name, for --daily and --weekly.")] = "UTC",
) -> None:
    """Hold rollouts in a window of time: they keep their step, guards stay on, rollback and abort pass."""
    if not reason.strip():
        raise UsageFault("a freeze needs a reason", 'hotswap freeze add ... --reason "why"')
    body: dict[str, Any] = {
        "kind": "allow" if allow else "deny",
        "reason": reason,
        "window": freeze_window(
            starts=starts,
            until=until,
            lasting=lasting,
            daily=daily,
            weekly=weekly,
            time_zone=time_zone,
            now=datetime.now(UTC),
        ),
    }
    if environment:
        body["environment"] = environment_name(environment)
    if plugin:
        body["pluginId"] = plugin
    async with session.api() as api:
        freeze = await api.call("POST", f"{API}/freezes", body=body, key=f"freeze-{uuid.uuid4().hex}")
    session.output.say(f"{freeze['freezeId']} {freeze['kind']}: {clean(window_text(freeze['window']))}", freeze)


async def lift(
    session: Session,
    freeze: Annotated[str, typer.Argument(metavar="ID", help="The id, or a unique beginning of it.")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; goes into the audit log.")] = "",
) -> None:
    """Lift a freeze; what it held goes on at once."""
    async with session.api() as api:
        freeze_id = await _resolve(api, freeze)
        await api.call("DELETE", f"{API}/freezes/{freeze_id}", repeatable=True, reason=reason or None)
    session.output.say(f"{freeze_id} lifted", {"freezeId": freeze_id})


async def stop_everything(session: Session, reason: NeededReason = "") -> None:
    """Hold every rollout everywhere at its step, whatever is allowed or overridden. Rollback and abort still pass."""
    if not reason.strip():
        raise UsageFault("stop-everything needs a reason", 'hotswap stop-everything --reason "why"')
    async with session.api() as api:
        freeze = await api.call("POST", f"{API}/freezes/stop", body={"reason": reason}, repeatable=True)
    session.output.say(
        f"everything is stopped ({freeze['freezeId']}, by {clean(freeze['createdBy'])}: {clean(freeze['reason'])})",
        freeze,
    )
    session.output.note('let go again: hotswap release-everything --reason "why"')


async def release_everything(session: Session, reason: NeededReason = "") -> None:
    """Let go on what `stop-everything` holds. Freezes made by `freeze add` stay."""
    if not reason.strip():
        raise UsageFault("release-everything needs a reason", 'hotswap release-everything --reason "why"')
    async with session.api() as api:
        freeze = await api.call("POST", f"{API}/freezes/stop/lift", body={"reason": reason})
    session.output.say("released: rollouts go on, but for what other freezes hold", freeze)


async def override_freeze(session: Session, deployment: DeploymentArgument, reason: NeededReason = "") -> None:
    """Let one deployment through every freeze but the stop switch (an Admin only)."""
    if not reason.strip():
        raise UsageFault("override-freeze needs a reason", f'hotswap override-freeze {deployment} --reason "why"')
    async with session.api() as api:
        result = await api.command(await api.resolve(deployment), "override-freeze", reason)
    session.output.say(f"{clean(result.get('status'))}: {clean(result.get('message'))}", result)


async def _resolve(api: ApiClient, name: str) -> str:
    """A freeze's full id from itself or a unique beginning of it among the newest 100 that stand. Raises UsageFault."""
    name = name if name.startswith("frz_") else f"frz_{name}"
    if len(name) == ID_LENGTH:
        return name
    page = await api.call("GET", f"{API}/freezes", lifted="false", limit=100)
    found = [str(item["freezeId"]) for item in page["items"] if str(item["freezeId"]).startswith(name)]
    if len(found) != 1:
        raise not_one(name, found, "freeze", "`hotswap freeze list` shows them")
    return found[0]
