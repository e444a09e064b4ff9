"""Commands on sandbox sessions: call a version in isolation before anybody depends on it."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli.client import API, ApiClient, environment_name
from hotswap.cli.deployments import ReasonOption
from hotswap.cli.durations import iso_duration
from hotswap.cli.faults import INTERRUPTED, OTHER, UsageFault, not_one
from hotswap.cli.output import Output, ago, clean, duration, size
from hotswap.cli.session import Session, command

SandboxArgument = Annotated[str, typer.Argument(metavar="ID", help="The sandbox's id, or a unique beginning of it.")]
ID_LENGTH = 36
WAIT_ONCE = "PT20S"
"""How long one request waits for a result; the next one waits on. Below the client's own 30 s."""
LOOK_EVERY = 2.0
"""Seconds between two looks of `list --watch`, and at a result that takes longer: half of the 60 reads a minute allowed."""

FINISHED = frozenset({"Succeeded", "Failed", "Lost", "Cancelled"})


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    group = typer.Typer(
        help="Call a version in isolation, without tenants.", no_args_is_help=True, rich_markup_mode="rich"
    )
    command(
        group,
        examples="""
hotswap sandbox create phone-format 2.0.0
hotswap sandbox create phone-format 2.0.0 --ttl 10m --timeout 5s --memory 128
""",
    )(create)
    command(
        group,
        examples="""
hotswap sandbox execute sbx_3f2a format '{"number": "+49 30 1234"}'
hotswap sandbox execute sbx_3f2a format @request.json --tenant acme --timeout 2s --json
""",
    )(execute)
    command(
        group,
        examples="""
hotswap sandbox results sbx_3f2a
hotswap sandbox results sbx_3f2a --execution exe_91c0 --json
""",
    )(results)
    command(group, name="list", examples="hotswap sandbox list --environment development --watch")(list_sandboxes)
    command(group, examples='hotswap sandbox delete sbx_3f2a -m "seen enough"')(delete)
    app.add_typer(group, name="sandbox")


async def create(
    session: Session,
    plugin: Annotated[str, typer.Argument(help="Name of the plugin.")],
    version: Annotated[str, typer.Argument(help="Version to call.")],
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="Whose places and limits count.")
    ] = "Development",
    ttl: Annotated[str | None, typer.Option("--ttl", help="How long it lives: 10m; at most 1h.")] = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Longest execution: 5s; at most 5m.")] = None,
    memory: Annotated[
        int | None, typer.Option("--memory", help="MiB of one execution instead of the manifest's.")
    ] = None,
    resources: Annotated[
        str | None, typer.Option("--resources", help="More limits as JSON or @file: '{\"cpuSeconds\": 2}'.")
    ] = None,
) -> None:
    """Make a sandbox: a place where this version may be called for a while. It ends by itself."""
    body: dict[str, Any] = {
        "pluginId": plugin,
        "version": version,
        "environment": environment_name(environment),
        "resources": _object(resources, "--resources") | ({"memoryMb": memory} if memory is not None else {}),
    }
    if ttl:
        body["ttl"] = iso_duration(ttl, "--ttl")
    if timeout:
        body["executionTimeout"] = iso_duration(timeout, "--timeout")
    async with session.api() as api:
        made = await api.call("POST", f"{API}/sandbox/create", body=body, key=_key("create"))
    session.output.say(f"{made['sandboxId']} until {made['expiresAt']}, tier {clean(made['tier'])}", made)
    if not session.output.as_json:
        session.output.note(f"call it: hotswap sandbox execute {made['sandboxId'][:12]} METHOD '{{...}}'")


async def execute(
    session: Session,
    sandbox: SandboxArgument,
    method: Annotated[str, typer.Argument(help="One of the manifest's methods.")],
    parameters: Annotated[str, typer.Argument(help="Its parameters: a JSON object, or @file.")] = "{}",
    tenant: Annotated[str | None, typer.Option("--tenant", help="What the plugin is told as its tenant.")] = None,
    configuration: Annotated[
        str | None, typer.Option("--config", help="Its tenant's configuration: JSON or @file.", show_default=False)
    ] = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Longest time it may take: 2s.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", "-w/-W", help="Wait for the result; exit 1 unless it Succeeded.")
    ] = True,
) -> int:
    """Call a method in a fresh isolated process and print its result; its log goes to stderr."""
    body: dict[str, Any] = {"method": method, "parameters": _object(parameters, "PARAMETERS")}
    if tenant:
        body["tenant"] = tenant
    if configuration is not None:
        body["configuration"] = _object(configuration, "--config")
    if timeout:
        body["timeout"] = iso_duration(timeout, "--timeout")
    if wait:
        body["wait"] = WAIT_ONCE
    async with session.api() as api:
        sandbox_id = await _resolve(api, sandbox)
        found = await api.call("POST", f"{API}/sandbox/{sandbox_id}/execute", body=body, key=_key("execute"))
        try:
            while wait and found["status"] not in FINISHED:
                await asyncio.sleep(LOOK_EVERY)
                found = await _result(api, sandbox_id, found["executionId"])
        except asyncio.CancelledError:
            session.output.note(f"it goes on; its result: {_come_back(found)}")
            return INTERRUPTED
    if not wait:
        session.output.say(f"{found['executionId']} {found['status']}", found)
        if not session.output.as_json:
            session.output.note(f"its result: {_come_back(found)}")
        return 0
    _tell(session.output, found)
    return 0 if found["status"] == "Succeeded" else OTHER


async def results(
    session: Session,
    sandbox: SandboxArgument,
    execution: Annotated[
        str | None, typer.Option("--execution", "-x", help="One alone, by its id or a unique beginning: whole.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
) -> None:
    """List what a sandbox's executions came to, newest first; also after its end."""
    async with session.api() as api:
        sandbox_id = await _resolve(api, sandbox)
        if execution is not None:
            found = await _result(api, sandbox_id, await _resolve_execution(api, sandbox_id, execution))
            _tell(session.output, found)
            return
        page = await api.call("GET", f"{API}/sandbox/{sandbox_id}/results", limit=limit)
    rows = [
        (
            item["executionId"][:12] if session.output.live else item["executionId"],
            item["method"],
            item["status"],
            item["limit"],
            duration(item["durationMs"] / 1000) if session.output.live else item["durationMs"],
            size(item["peakMemoryBytes"]) if session.output.live else item["peakMemoryBytes"],
            ago(item["queuedAt"]) if session.output.live else item["queuedAt"],
            item["exitReason"],
        )
        for item in page["items"]
    ]
    columns = ("id", "method", "status", "limit", "took", "memory", "queued", "why")
    session.output.table(columns, rows, page, "nothing was executed yet: hotswap sandbox execute ID METHOD '{...}'")


async def list_sandboxes(
    session: Session,
    plugin: Annotated[
        str | None, typer.Option("--plugin", "-p", help="Only of this plugin.", show_default=False)
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Only of this environment.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended too.")] = False,
    watching: Annotated[
        bool, typer.Option("--watch/--no-watch", "-w/-W", help="Print again whenever it changes, until Ctrl-C.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
) -> int:
    """List sandboxes that live, newest first."""
    query: dict[str, Any] = {
        "pluginId": plugin,
        "environment": environment_name(environment) if environment else None,
        "status": None if every else "Active",
        "limit": limit,
    }
    shown: Any = None
    try:
        async with session.api() as api:
            while True:
                page = await api.call("GET", f"{API}/sandbox", **query)
                if page != shown:
                    _table(session.output, page)
                    shown = page
                if not watching:
                    return 0
                await asyncio.sleep(LOOK_EVERY)
    except asyncio.CancelledError:
        return INTERRUPTED


def _table(output: Output, page: dict[str, Any]) -> None:
    rows = [
        (
            item["sandboxId"][:12] if output.live else item["sandboxId"],
            item["pluginId"],
            item["version"],
            item["environment"],
            item["status"],
            item["tier"],
            item["expiresAt"],
            item["createdBy"],
            item["endReason"],
        )
        for item in page["items"]
    ]
    columns = ("id", "plugin", "version", "environment", "status", "tier", "until", "by", "why")
    output.table(columns, rows, page, "no sandboxes: hotswap sandbox create PLUGIN VERSION")


async def delete(session: Session, sandbox: SandboxArgument, reason: ReasonOption = "") -> None:
    """End a sandbox: what runs is killed, what waits is cancelled. A repeat is fine; its results stay for 7 days."""
    async with session.api() as api:
        sandbox_id = await _resolve(api, sandbox)
        path = f"{API}/sandbox/{sandbox_id}/cleanup"
        await api.call("POST", path, body={"reason": reason} if reason else {}, repeatable=True)
    session.output.say(f"{sandbox_id} has ended", {"sandboxId": sandbox_id, "ended": True})


def _tell(output: Output, found: dict[str, Any]) -> None:
    """The result as JSON on stdout; what the plugin printed, and how it went, on stderr."""
    if output.as_json:
        output.document(found)
        return
    for line in str(found["logs"]).splitlines():
        output.note(f"| {clean(line)}")
    if found["status"] == "Succeeded":
        output.line(_printable(json.dumps(found["output"], indent=2, ensure_ascii=False)))
    words = [clean(found["status"])]
    if found["limit"]:
        words.append(clean(found["limit"]))
    words.append(clean(found["exitReason"]))
    cost = (
        f"{duration(found['durationMs'] / 1000)}, {size(found['peakMemoryBytes'])}, tier {clean(found['tier']) or '-'}"
    )
    output.note(f"{': '.join(word for word in words if word)} ({cost})")


def _printable(document: str) -> str:
    """JSON in which what could steer a terminal is escaped, as JSON allows."""
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in document)


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) > 0x7F else f"\\u{ord(char):04x}"


def _come_back(found: dict[str, Any]) -> str:
    return f"hotswap sandbox results {found['sandboxId'][:12]} -x {found['executionId'][:12]}"


async def _result(api: ApiClient, sandbox_id: str, execution_id: str) -> dict[str, Any]:
    page = await api.call("GET", f"{API}/sandbox/{sandbox_id}/results", executionId=execution_id)
    found: dict[str, Any] = page["items"][0]
    return found


async def _resolve(api: ApiClient, name: str) -> str:
    """A sandbox's full id from itself or a unique beginning of it among the newest 100. Raises UsageFault."""
    name = name if name.startswith("sbx_") else f"sbx_{name}"
    if len(name) == ID_LENGTH:
        return name
    page = await api.call("GET", f"{API}/sandbox", limit=100)
    known = [str(item["sandboxId"]) for item in page["items"]]
    return _only(name, known, "sandbox", "`hotswap sandbox list --all` shows them")


async def _resolve_execution(api: ApiClient, sandbox_id: str, name: str) -> str:
    name = name if name.startswith("exe_") else f"exe_{name}"
    if len(name) == ID_LENGTH:
        return name
    page = await api.call("GET", f"{API}/sandbox/{sandbox_id}/results", limit=100)
    known = [str(item["executionId"]) for item in page["items"]]
    return _only(name, known, "execution", "`hotswap sandbox results ID` shows them")


def _only(name: str, known: list[str], kind: str, where: str) -> str:
    found = [one for one in known if one.startswith(name)]
    if len(found) != 1:
        raise not_one(name, found, kind, where)
    return found[0]


def _object(text: str | None, option: str) -> dict[str, Any]:
    """A JSON object as typed, or out of @file. Raises UsageFault."""
    if not text:
        return {}
    source = text
    if text.startswith("@"):
        try:
            source = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise UsageFault(
                f"{option}: {text[1:]} cannot be read: {fault}", "name a file with a JSON object"
            ) from None
    try:
        document = json.loads(source)
    except (ValueError, RecursionError) as fault:
        raise UsageFault(f"{option} is not JSON: {fault}", "write an object in quotes, such as '{\"a\": 1}'") from None
    if not isinstance(document, dict):
        raise UsageFault(f"{option} must be a JSON object", "such as '{\"a\": 1}'")
    return document


def _key(verb: str) -> str:
    return f"sandbox-{verb}-{uuid.uuid4().hex}"
