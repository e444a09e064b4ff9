"""Commands on pipelines: one version through environments, with soak times and gates between them."""

import asyncio
import uuid
from typing import Annotated, Any

import typer
from rich.text import Text

from hotswap.cli.client import API, ApiClient, environment_name
from hotswap.cli.deployments import NeededReason, ReasonOption
from hotswap.cli.durations import iso_duration
from hotswap.cli.faults import INTERRUPTED, UsageFault, not_one
from hotswap.cli.output import Output, ago, clean
from hotswap.cli.request import read_config
from hotswap.cli.session import Session, command
from hotswap.cli.watch import EXIT_OF_STATUS

PipelineArgument = Annotated[str, typer.Argument(metavar="ID", help="The id, or a unique beginning of it.")]
WatchOption = Annotated[
    bool, typer.Option("--watch/--no-watch", "-w/-W", help="Follow it to its end; the exit code is its outcome.")
]
ID_LENGTH = 36
LOOK_EVERY = 2.0
"""Seconds between two looks of --watch: half of the 60 reads a minute that the api allows."""

ENDED = frozenset({"Completed", "RolledBack", "Rejected", "Aborted", "Failed"})


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    group = typer.Typer(help="Promote one version through environments.", no_args_is_help=True, rich_markup_mode="rich")
    command(
        group,
        examples="""
hotswap pipeline start phone-format 2.0.0 --through development,qa,staging --soak 1h --gate approver --watch
hotswap pipeline start phone-format 2.0.0 --stages @stages.json -m "release 12"
""",
    )(start)
    command(group, examples="hotswap pipeline status pip_3f2a --watch")(status)
    command(group, name="list", examples="hotswap pipeline list --plugin phone-format")(list_pipelines)
    for verb, sentence, needed in (
        ("approve", "Agree at the gate it waits at. Approvals of a stage are given to its deployment.", False),
        ("reject", "Refuse at the gate it waits at.", True),
        ("pause", "Hold it before its next stage, and pause the deployment that runs.", False),
        ("resume", "Let it go on.", False),
        ("abort", "End it: the running deployment is undone, earlier environments keep the version.", True),
        ("retry", "Begin the stage again that ended it, within 48 hours.", False),
    ):
        command(group, name=verb, examples=f"hotswap pipeline {verb} pip_3f2a")(_verb(verb, sentence, needed=needed))
    app.add_typer(group, name="pipeline")


async def start(
    session: Session,
    plugin: Annotated[str, typer.Argument(help="Name of the plugin.")],
    version: Annotated[str, typer.Argument(help="Version to promote.")],
    through: Annotated[
        str | None, typer.Option("--through", "-t", help="Environments in their order.", show_default=False)
    ] = None,
    soak: Annotated[
        str | None, typer.Option("--soak", help="How long each must serve before the next: 1h.", show_default=False)
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option("--gate", help="Role that must agree before each stage but the first.", show_default=False),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option("--stages", help='{"stages": [...]} as JSON or @file, instead of --through.', show_default=False),
    ] = None,
    on_conflict: Annotated[
        str, typer.Option("--on-conflict", help="When another deployment runs in an environment: wait or fail.")
    ] = "wait",
    override_freeze: Annotated[
        str, typer.Option("--override-freeze", metavar="REASON", help="Why freezes must not hold it (an Admin only).")
    ] = "",
    watching: WatchOption = False,
    reason: ReasonOption = "",
) -> int:
    """Promote a version through environments: each stage is a deployment with its own approvals and guards."""
    body: dict[str, Any] = {
        "pluginId": plugin,
        "version": version,
        "stages": pipeline_stages(through, soak, gate, stages),
        "onConflict": on_conflict,
    }
    if reason:
        body["reason"] = reason
    if override_freeze:
        body["freezeOverrideReason"] = override_freeze
    async with session.api() as api:
        pipeline = await api.call("POST", f"{API}/pipelines", body=body, key=_key("start"))
        if watching:
            return await _watch(api, str(pipeline["pipelineId"]), session.output)
    session.output.say(f"{pipeline['pipelineId']} {pipeline['status']}", pipeline)
    if not session.output.as_json:
        session.output.note(f"follow it: hotswap pipeline status {pipeline['pipelineId'][:12]} --watch")
    return 0


async def status(session: Session, pipeline: PipelineArgument, watching: WatchOption = False) -> int:
    """Show a pipeline as it stands; with --watch follow it to its end."""
    async with session.api() as api:
        pipeline_id = await _resolve(api, pipeline)
        if watching:
            return await _watch(api, pipeline_id, session.output)
        document = await api.call("GET", f"{API}/pipelines/{pipeline_id}")
    if session.output.as_json:
        session.output.document(document)
    else:
        for line in pipeline_lines(document):
            session.output.say(line)
    return 0


async def list_pipelines(
    session: Session,
    plugin: Annotated[
        str | None, typer.Option("--plugin", "-p", help="Only of this plugin.", show_default=False)
    ] = None,
    state: Annotated[
        str | None, typer.Option("--status", help="Only in this status, e.g. InProgress.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
) -> None:
    """List pipelines, newest first."""
    async with session.api() as api:
        page = await api.call("GET", f"{API}/pipelines", pluginId=plugin, status=state, limit=limit)
    rows = [
        (
            item["pipelineId"][:12] if session.output.live else item["pipelineId"],
            item["plugin"],
            item["version"],
            item["status"],
            f"{item['stageNumber']}/{len(item['stages'])}",
            item.get("waitingFor") or item.get("outcomeReason") or "",
            ago(item["requestedAt"]) if session.output.live else item["requestedAt"],
            item["initiatedBy"],
        )
        for item in page["items"]
    ]
    columns = ("id", "plugin", "version", "status", "stage", "waits for", "requested", "by")
    session.output.table(columns, rows, page, "no pipelines yet: hotswap pipeline start PLUGIN VERSION --through ...")


def pipeline_stages(through: str | None, soak: str | None, gate: str | None, stages: str | None) -> list[Any]:
    """The stages' JSON from what was typed. Raises UsageFault."""
    if stages is not None:
        if through or soak or gate:
            raise UsageFault("--stages says it all", "leave --through, --soak and --gate away")
        found = read_config(stages).get("stages")
        if not isinstance(found, list):
            raise UsageFault("--stages needs a list under the key stages", 'like {"stages": [{"environment": "QA"}]}')
        return found
    if not through:
        raise UsageFault("which environments?", "--through development,qa,staging, or --stages @file")
    made: list[Any] = []
    role = _role(gate) if gate else ""
    names = [environment_name(part.strip()) for part in through.split(",") if part.strip()]
    for number, name in enumerate(names):
        stage: dict[str, Any] = {"environment": name}
        if soak and number < len(names) - 1:
            stage["soak"] = iso_duration(soak, "--soak")
        if role and number:
            stage["gate"] = {"role": role}
        made.append(stage)
    return made


def pipeline_lines(pipeline: dict[str, Any]) -> list[str]:
    """A pipeline in plain lines: itself, each stage, what it waits for."""
    lines = [
        f"{pipeline['pipelineId']} | {clean(pipeline['plugin'])} {clean(pipeline['version'])} | {clean(pipeline['status'])}"
    ]
    for stage in pipeline["stages"]:
        words = [f"  {clean(stage['environment'])} by {clean(stage['strategy'])}: {clean(stage['state'])}"]
        if stage.get("deploymentId"):
            told = " ".join(clean(stage.get(key)) for key in ("deploymentId", "deploymentStatus", "stepTitle"))
            words.append(told.strip())
        if stage.get("detail"):
            words.append(clean(stage["detail"]))
        lines.append(" | ".join(words))
    for word, key in (("waits for", "waitingFor"), ("because", "outcomeReason"), ("what to do", "whatToDo")):
        if pipeline.get(key):
            lines.append(f"{word} {clean(pipeline[key])}")
    return lines


def _verb(verb: str, sentence: str, *, needed: bool) -> Any:
    async def send(session: Session, pipeline: PipelineArgument, reason: str = "") -> None:
        if needed and not reason.strip():
            raise UsageFault(f"{verb} needs a reason", f'hotswap pipeline {verb} {pipeline} --reason "why"')
        async with session.api() as api:
            pipeline_id = await _resolve(api, pipeline)
            body = {"reason": reason} if reason else {}
            result = await api.call("POST", f"{API}/pipelines/{pipeline_id}/{verb}", body=body, key=_key(verb))
        session.output.say(f"{pipeline_id[:12]} {clean(result['status'])}: {clean(result['message'])}", result)

    send.__name__, send.__doc__ = verb, sentence
    send.__annotations__["reason"] = NeededReason if needed else ReasonOption
    return send


async def _watch(api: ApiClient, pipeline_id: str, output: Output) -> int:
    """Print what changed until it has ended; Ctrl-C leaves it running."""
    shown: list[str] = []
    try:
        while True:
            document = await api.call("GET", f"{API}/pipelines/{pipeline_id}")
            lines = pipeline_lines(document)
            if lines != shown and not output.as_json:
                for line in lines:
                    if line not in shown:
                        output.say(Text(line) if output.live else line)
            shown = lines
            if document["status"] in ENDED:
                if output.as_json:
                    output.document(document)
                return EXIT_OF_STATUS.get(document["status"], 1)
            await asyncio.sleep(LOOK_EVERY)
    except asyncio.CancelledError:
        output.note(f"it goes on; come back: hotswap pipeline status {pipeline_id[:12]} --watch")
        return INTERRUPTED


async def _resolve(api: ApiClient, name: str) -> str:
    """A pipeline's full id from itself or a unique beginning of it among the newest 100. Raises UsageFault."""
    name = name if name.startswith("pip_") else f"pip_{name}"
    if len(name) == ID_LENGTH:
        return name
    page = await api.call("GET", f"{API}/pipelines", limit=100)
    found = [str(item["pipelineId"]) for item in page["items"] if str(item["pipelineId"]).startswith(name)]
    if len(found) != 1:
        raise not_one(name, found, "pipeline", "`hotswap pipeline list` shows them")
    return found[0]


def _role(text: str) -> str:
    known = ("Admin", "Developer", "TenantOwner", "Approver")
    folded = text.replace("-", "").replace("_", "").lower()
    for role in known:
        if role.lower() == folded:
            return role
    raise UsageFault(f"--gate '{text}' is not a role", f"known: {', '.join(known)}")


def _key(verb: str) -> str:
    return f"pipeline-{verb}-{uuid.uuid4().hex}"
