"""Commands on the platform itself: up, demo, nodes, environments, ping."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli.client import environment_name
from hotswap.cli.faults import OTHER, ApiError, UsageFault
from hotswap.cli.output import Output, ago, clean
from hotswap.cli.session import Session, command


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    app.command(epilog="[bold]Examples[/bold]\n\nhotswap up\n\nhotswap up --nodes 5 -e staging --data-dir /tmp/one")(up)
    app.command(epilog="[bold]Examples[/bold]\n\nhotswap demo\n\nhotswap demo --no-keep --data-dir /tmp/story")(demo)
    command(app, examples="hotswap nodes\nhotswap nodes -e staging --json")(nodes)
    command(app, examples="hotswap environments")(environments)
    command(app, examples="hotswap ping")(ping)


def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", help="Where everything is kept (default: HOTSWAP_HOME or .hotswap).", show_default=False
        ),
    ] = None,
    node_count: Annotated[int, typer.Option("--nodes", min=0, max=50, help="How many nodes.")] = 3,
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="Environment that the nodes serve.")
    ] = "Development",
    servers_only: Annotated[
        bool, typer.Option("--servers-only", help="Only the servers: no api, worker and nodes.")
    ] = False,
) -> None:
    """Start everything on this machine, on loopback, until Ctrl-C: servers, api, worker and nodes."""
    from hotswap.domain.deployment import Environment
    from hotswap.embedded.run import run_up

    output = Output()
    try:
        served = Environment(environment_name(environment))
    except UsageFault as fault:
        output.fault(fault)
        raise typer.Exit(fault.exit_code) from None
    raise typer.Exit(run_up(data_dir, node_count, served, servers_only=servers_only, progress=output.line))


def demo(
    keep: Annotated[
        bool | None,
        typer.Option("--keep/--no-keep", help="Stay up afterwards (default: on a terminal).", show_default=False),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Keep data and logs there (default: a temporary folder).", show_default=False),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", help="Folder of the example plugins.", show_default=False)
    ] = None,
) -> None:
    """See it work, in under 90 s: a canary under traffic, a killed worker, a bad version taken back by itself.

    Exit code 0 when every claim of the summary holds.
    """
    from hotswap.demo.story import run_demo

    raise typer.Exit(run_demo(data_dir, keep, examples))


async def nodes(
    session: Session,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Only of this environment.", show_default=False)
    ] = None,
) -> None:
    """List the nodes and when each was last seen."""
    where = environment_name(environment) if environment else None
    async with session.api() as api:
        page = await api.nodes(where)
    items = [item for item in page["items"] if where in (None, item["environment"])]
    rows = [
        (
            item["nodeId"],
            item["environment"],
            item["routerUrl"],
            item["sandboxTier"],
            ago(item["lastSeenAt"]) if session.output.live else item["lastSeenAt"],
        )
        for item in items
    ]
    columns = ("node", "environment", "router", "sandbox", "seen")
    session.output.table(columns, rows, {**page, "items": items}, "no nodes: start some with `hotswap up`")


async def environments(session: Session) -> None:
    """List the environments and what each asks of a deployment."""
    async with session.api() as api:
        page = await api.environments()
    rows = [
        (
            item["name"],
            item["defaultStrategy"],
            item["requiredApprovals"],
            "yes" if item.get("requireAdminApproval") else "no",
        )
        for item in page["items"]
    ]
    columns = ("environment", "default strategy", "approvals", "one by an admin")
    session.output.table(columns, rows, page, "no environments: run the migrations")


async def ping(session: Session) -> int:
    """Check that the api answers, that what is behind it is ready, and that our token is known."""
    connection = session.connection()
    checks: list[tuple[str, bool, str]] = []
    async with session.api() as api:
        began = time.perf_counter()
        await api.health()
        checks.append(("api answers", True, f"{connection.url}, {1000 * (time.perf_counter() - began):.0f} ms"))
        ready, told = await api.ready()
        checks.append(("ready", ready, _parts(told)))
        try:
            await api.deployments(limit=1)
        except ApiError as fault:
            checks.append(("token", False, f"{fault.message}; {fault.remedy}"))
        else:
            checks.append(("token", True, connection.user or "known"))
    rows = [(name, "ok" if good else "FAILED", detail) for name, good, detail in checks]
    document = {"url": connection.url, "checks": [{"name": n, "ok": g, "detail": d} for n, g, d in checks]}
    session.output.table(("check", "", ""), rows, document, "nothing checked")
    return 0 if all(good for _, good, _ in checks) else OTHER


def _parts(told: Any) -> str:
    """What /ready says of each dependency, in one line."""
    dependencies = told.get("dependencies") if isinstance(told, dict) else None
    if not isinstance(dependencies, dict):
        return clean(told)
    return ", ".join(
        f"{clean(name)} {clean(one.get('state'))}" + (f" ({clean(one['detail'])})" if one.get("detail") else "")
        for name, one in dependencies.items()
    )
