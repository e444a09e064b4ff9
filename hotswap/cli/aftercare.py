"""Commands on the time after a rollout: drift of an environment and its repair, versions that are held."""

from typing import Annotated, Any

import typer

from hotswap.cli.client import environment_name
from hotswap.cli.faults import OTHER
from hotswap.cli.output import Output, ago, clean
from hotswap.cli.session import Session, command

EnvironmentOption = Annotated[
    str, typer.Option("--environment", "-e", help="Development, QA, Staging or Production.", show_default=False)
]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    command(app, examples='hotswap drift -e staging\nhotswap drift -e staging --repair -m "node-2 was cut off"')(drift)
    command(app, examples="hotswap held -e production")(held)


async def drift(
    session: Session,
    environment: EnvironmentOption,
    repair: Annotated[
        bool, typer.Option("--repair", help="Let every node that differs make itself what the routes say.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; goes into the audit log.")] = "",
) -> int:
    """Compare what the nodes run now with what the routes say.

    The exit code is 1 while something differs that no running deployment explains.
    """
    where = environment_name(environment)
    async with session.api() as api:
        if repair:
            done = await api.repair_drift(where, reason)
            _show_repair(session.output, where, done)
            return OTHER if done["left"] else 0
        report = await api.drift(where)
    rows = [
        (
            item["nodeId"],
            item["kind"],
            item.get("plugin") or "–",
            item.get("version") or "–",
            item["expected"],
            item["found"],
            item.get("explainedBy") or "",
        )
        for item in report["items"]
    ]
    columns = ("node", "difference", "plugin", "version", "expected", "found", "explained by")
    empty = f"no drift: {report['nodes']} nodes run what the routes of {report['plugins']} plugins say"
    session.output.table(columns, rows, report, empty)
    if session.output.live and report["drifted"]:
        session.output.note(f"repair it: hotswap drift -e {where} --repair")
    return OTHER if report["drifted"] else 0


def _show_repair(output: Output, where: str, done: dict[str, Any]) -> None:
    if output.as_json:
        output.document(done)
        return
    output.say(f"{where}: {done['found']} differences found, {done['left']} left")
    for node in done.get("nodes", ()):
        output.say(f"  {clean(node)} made itself right")
    for node, fault in (done.get("faults") or {}).items():
        output.say(f"  {clean(node)} could not: {clean(fault)}")


async def held(session: Session, environment: EnvironmentOption) -> None:
    """List versions that were taken back by their health monitor and come again only with --override-hold."""
    async with session.api() as api:
        page = await api.held_versions(environment_name(environment))
    rows = [
        (
            item["plugin"],
            item["version"],
            ago(item["heldAt"]) if session.output.live else item["heldAt"],
            item["deploymentId"],
            item["reason"],
        )
        for item in page["items"]
    ]
    session.output.table(("plugin", "version", "held", "taken back", "reason"), rows, page, "no version is held there")
