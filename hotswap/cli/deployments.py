"""Commands on deployments: deploy, status, list, events and the decisions a person takes."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Any

import typer
from rich.text import Text

from hotswap.cli.client import ApiClient, environment_name
from hotswap.cli.faults import INTERRUPTED, CliError, UsageFault
from hotswap.cli.follow import Kind, follow
from hotswap.cli.output import Output, ago, clean, clock
from hotswap.cli.render import commands_for, deployment_tree, expected_line, own_metric_line, short_id, status_line
from hotswap.cli.request import conflict_options, deployment_request
from hotswap.cli.session import Session, command
from hotswap.cli.watch import EXIT_OF_STATUS, how_to_return, watch

DeploymentArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="The id, a unique beginning of it, or PLUGIN@ENVIRONMENT (the newest there)."),
]
ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why; goes into the audit log.")]
NeededReason = Annotated[str, typer.Option("--reason", "-m", help="Why (required); goes into the audit log.")]
WatchOption = Annotated[
    bool, typer.Option("--watch/--no-watch", "-w/-W", help="Follow it to its end; the exit code is its outcome.")
]
EnvironmentOption = Annotated[
    str | None, typer.Option("--environment", "-e", help="Development, QA, Staging or Production.", show_default=False)
]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    command(
        app,
        examples="""
hotswap deploy phone-format 2.0.0 -e staging --strategy canary --steps 10,30,50,100 --period PT10S --watch
hotswap deploy phone-format 2.0.0 -e production --config @canary.json --plan
hotswap deploy phone-format 1.0.0 -e development -m "first version"
""",
    )(deploy)
    command(app, examples="hotswap status dep_3f2a --watch\nhotswap status phone-format@staging")(status)
    command(app, name="list", examples="hotswap list -e staging\nhotswap list --plugin phone-format --json")(
        list_deployments
    )
    command(app, examples="hotswap events phone-format@staging\nhotswap events dep_3f2a --follow")(events)
    command(app, examples="hotswap approve phone-format@staging --as approver")(approve)
    command(app, examples='hotswap reject dep_3f2a --as approver -m "not before Monday"')(reject)
    command(app, examples="hotswap pause dep_3f2a")(pause)
    command(app, examples="hotswap resume dep_3f2a")(resume)
    command(app, examples="hotswap promote dep_3f2a")(promote)
    command(app, name="promote-full", examples='hotswap promote-full dep_3f2a -m "seen in QA"')(promote_full)
    command(app, examples="hotswap retry dep_3f2a --watch\nhotswap retry phone-format@staging")(retry)
    command(app, examples='hotswap abort dep_3f2a -m "wrong version"')(abort)
    command(app, examples='hotswap rollback phone-format@staging -m "customers complain"')(rollback)


async def deploy(
    session: Session,
    plugin: Annotated[str, typer.Argument(help="Name of the plugin.")],
    version: Annotated[str, typer.Argument(help="Version to bring into the environment.")],
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="Development, QA, Staging or Production.", show_default=False)
    ],
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            "-s",
            help="direct, rolling, canary, blue-green or ab-testing; default: the environment's.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", help="Percentages of tenants, e.g. 10,30,50,100.", show_default=False)
    ] = None,
    period: Annotated[
        str | None, typer.Option("--period", help="How long to watch each step: PT10S or 10s.", show_default=False)
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", help="The strategy's settings, as JSON or @file.", show_default=False),
    ] = None,
    watching: WatchOption = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would happen; nothing is started.")] = False,
    reason: ReasonOption = "",
    override_hold: Annotated[
        str,
        typer.Option("--override-hold", metavar="REASON", help="Why a version that was taken back may come again."),
    ] = "",
    override_freeze: Annotated[
        str,
        typer.Option("--override-freeze", metavar="REASON", help="Why freezes must not hold it (an Admin only)."),
    ] = "",
    allow_deprecated: Annotated[
        bool, typer.Option("--allow-deprecated", help="A Deprecated version is meant.")
    ] = False,
    on_conflict: Annotated[
        str | None,
        typer.Option(
            "--on-conflict",
            help="When another one runs there: reject (default), queue or supersede.",
            show_default=False,
        ),
    ] = None,
    hotfix: Annotated[
        bool,
        typer.Option("--hotfix", help="Do not wait longer than the evidence needs; trial, approvals, guards stay."),
    ] = False,
) -> int:
    """Bring a version of a plugin into an environment, durably.

    With --watch the exit code is the outcome: 0 Completed, 10 RolledBack, 11 Aborted, 12 Rejected, 13 Superseded,
    14 Failed (a person must act).
    """
    body = deployment_request(
        plugin, version, environment, strategy=strategy, steps=steps, period=period, config=config, reason=reason
    )
    if override_hold:
        body["overrideHold"] = override_hold
    if override_freeze:
        body["freezeOverrideReason"] = override_freeze
    if allow_deprecated:
        body["allowDeprecated"] = True
    body |= conflict_options(on_conflict, hotfix=hotfix)
    async with session.api() as api:
        if plan:
            _show_plan(session.output, await api.plan(body))
            return 0
        deployment = await api.deploy(body)
        if watching:
            return await _watch(api, str(deployment["deploymentId"]), session.output)
        name = short_id(deployment["deploymentId"])
        session.output.say(f"{deployment['deploymentId']} {deployment['status']}", deployment)
        if not session.output.as_json:
            session.output.note(f"follow it: hotswap status {name} --watch")
        return 0


async def status(session: Session, deployment: DeploymentArgument, watching: WatchOption = False) -> int:
    """Show a deployment as it stands; with --watch follow it to its end."""
    async with session.api() as api:
        deployment_id = await api.resolve(deployment)
        if watching:
            return await _watch(api, deployment_id, session.output)
        document = await api.deployment(deployment_id)
        if session.output.as_json:
            session.output.document(document)
        elif session.output.live:
            session.output.console.print(deployment_tree(document, ()))
        else:
            session.output.line(f"{document['deploymentId']} | {status_line(document)}")
            for line in commands_for(document):
                session.output.line(f"you can: {line}")
        return 0


async def list_deployments(
    session: Session,
    plugin: Annotated[
        str | None, typer.Option("--plugin", "-p", help="Only of this plugin.", show_default=False)
    ] = None,
    environment: EnvironmentOption = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only in this status, e.g. InProgress.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
    offset: Annotated[int, typer.Option("--offset", min=0, help="How many newer ones to leave out.")] = 0,
) -> None:
    """List deployments, newest first."""
    where = environment_name(environment) if environment else None
    async with session.api() as api:
        page = await api.deployments(pluginId=plugin, environment=where, status=status, limit=limit, offset=offset)
    rows = [
        (
            short_id(item["deploymentId"]) if session.output.live else item["deploymentId"],
            item["plugin"],
            item.get("fromVersion") or "–",
            item["toVersion"],
            item["environment"],
            item["strategy"],
            item["status"],
            f"{item.get('stepNumber', 0)}/{item.get('stepCount', 0)}",
            ago(item["requestedAt"]) if session.output.live else item["requestedAt"],
            item["initiatedBy"],
        )
        for item in page["items"]
    ]
    columns = ("id", "plugin", "from", "to", "environment", "strategy", "status", "step", "requested", "by")
    session.output.table(columns, rows, page, "no deployments yet: hotswap deploy PLUGIN VERSION -e ENVIRONMENT")
    if session.output.live and page.get("hasMore"):
        session.output.note(f"{page['total']} in all; more with --offset {page.get('nextOffset')}")


async def events(
    session: Session,
    deployment: DeploymentArgument,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the deployment ends.")] = False,
) -> None:
    """Show the timeline of a deployment."""
    output = session.output
    async with session.api() as api:
        deployment_id = await api.resolve(deployment)
        try:
            async with aclosing(follow(api, deployment_id)) as happenings:
                async for happening in happenings:
                    if happening.kind is Kind.TIMELINE:
                        _show_event(output, happening.data)
                    elif happening.kind is Kind.STATUS and not following:
                        return  # the backlog comes before the first status
        except asyncio.CancelledError:
            output.note(how_to_return(deployment_id))
            raise


def _show_event(output: Output, event: dict[str, Any]) -> None:
    if output.as_json:
        output.document(event, indent=None)
        return
    line = Text(f"{clock(event.get('at'))} ", style="dim" if output.live else "")
    line.append(f"{clean(event.get('kind'))}: ", style="cyan")
    line.append(clean(event.get("message")), style="none")
    output.say(line if output.live else line.plain)


async def approve(session: Session, deployment: DeploymentArgument, reason: ReasonOption = "") -> None:
    """Approve a deployment that waits for it. Bound to the plan that you see: another plan voids it."""
    async with session.api() as api:
        deployment_id = await api.resolve(deployment)
        plan_hash = str((await api.deployment(deployment_id)).get("planHash") or "")
        _told(session.output, await api.command(deployment_id, "approve", reason, plan_hash))


async def reject(session: Session, deployment: DeploymentArgument, reason: NeededReason = "") -> None:
    """Reject a deployment that waits for approval; what was prepared is undone."""
    await _decide(session, deployment, "reject", reason, needed=True)


async def pause(session: Session, deployment: DeploymentArgument, reason: ReasonOption = "") -> None:
    """Stop at the present step. The guards stay on: a bad version is still taken back."""
    await _decide(session, deployment, "pause", reason)


async def resume(session: Session, deployment: DeploymentArgument, reason: ReasonOption = "") -> None:
    """Go on after a pause."""
    await _decide(session, deployment, "resume", reason)


async def promote(session: Session, deployment: DeploymentArgument, reason: ReasonOption = "") -> None:
    """End the present wait and take the next step."""
    await _decide(session, deployment, "promote", reason)


async def promote_full(session: Session, deployment: DeploymentArgument, reason: ReasonOption = "") -> None:
    """Skip every wait that is left. Each observation still takes one look, a Fail still stops; approvals stay."""
    await _decide(session, deployment, "promote-full", reason)


async def retry(
    session: Session, deployment: DeploymentArgument, reason: ReasonOption = "", watching: WatchOption = False
) -> int:
    """Start a deployment that was rolled back, aborted, rejected or failed anew: same request, same tenants first."""
    async with session.api() as api:
        result = await api.command(await api.resolve(deployment), "retry", reason)
        if watching:
            return await _watch(api, str(result["deploymentId"]), session.output)
        _told(session.output, result)
        return 0


async def abort(session: Session, deployment: DeploymentArgument, reason: NeededReason = "") -> None:
    """Stop a running deployment and undo everything it did."""
    await _decide(session, deployment, "abort", reason, needed=True)


async def rollback(session: Session, deployment: DeploymentArgument, reason: NeededReason = "") -> None:
    """Go back to the version before, during a deployment or after it completed."""
    await _decide(session, deployment, "rollback", reason, needed=True)


async def _decide(session: Session, deployment: str, verb: str, reason: str, *, needed: bool = False) -> None:
    if needed and not reason.strip():
        raise UsageFault(f"{verb} needs a reason", f'hotswap {verb} {deployment} --reason "why"')
    async with session.api() as api:
        deployment_id = await api.resolve(deployment)
        _told(session.output, await api.command(deployment_id, verb, reason))


def _told(output: Output, result: dict[str, Any]) -> None:
    text = Text(f"{short_id(result.get('deploymentId'))} ")
    text.append(clean(result.get("status")), style="bold")
    text.append(f": {clean(result.get('message'))}" if result.get("message") else "")
    output.say(text if output.live else text.plain, result)


async def _watch(api: ApiClient, deployment_id: str, output: Output) -> int:
    """Watch to the end; Ctrl-C leaves the rollout running and says how to come back."""
    try:
        code = await watch(api, deployment_id, output)
    except asyncio.CancelledError:
        output.note(how_to_return(deployment_id))
        return INTERRUPTED
    except CliError:
        output.note(how_to_return(deployment_id))
        raise
    if not output.as_json and not output.live:
        outcome = next((name for name, value in EXIT_OF_STATUS.items() if value == code), "ended")
        output.line(f"{short_id(deployment_id)} {outcome} (exit code {code})")
    return code


def _show_plan(output: Output, answer: dict[str, Any]) -> None:
    if output.as_json:
        output.document(answer)
        return
    output.say(
        f"{clean(answer['plan']['plugin'])} {clean(answer.get('fromVersion') or '(nothing)')} ->"
        f" {clean(answer['toVersion'])} in {clean(answer['plan']['environment'])}, {clean(answer['strategy'])};"
        " nothing was started"
    )
    for planned in answer["steps"]:
        details = ", ".join(
            f"{clean(name)} {clean(value)}"
            for name, value in planned["step"].items()
            if name not in ("kind", "expectedSample") and not isinstance(value, dict)
        )
        output.say(f"  {planned['number']:>2}. {clean(planned['title'])}" + (f" ({details})" if details else ""))
        if finds := expected_line(planned["step"]):
            output.say(f"      {finds}")
    for metric in answer["plan"].get("metrics") or ():
        output.say(f"own metric {own_metric_line(metric)}")
    output.say(f"plan hash {clean(answer['planHash'])}; approvals needed: {answer['approvalsRequired']}")
    if answer.get("running"):
        output.say(f"it cannot start now: {clean(answer['running'])} is running there")
