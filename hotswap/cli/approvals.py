"""Commands on approvals: what waits for you, approve it, refuse it. An approval is bound to the plan that was shown."""

import uuid
from typing import Annotated, Any

import typer

from hotswap.cli.client import API, ApiClient, environment_name
from hotswap.cli.deployments import EnvironmentOption, NeededReason
from hotswap.cli.faults import UsageFault
from hotswap.cli.output import clean, clock, instant
from hotswap.cli.session import Session, command

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="From `approvals list`; a unique beginning is enough.")]
Why = Annotated[str, typer.Option("--reason", "-m", help="Why; goes on record with the approval.")]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    group = typer.Typer(help="See and decide what waits for people.", no_args_is_help=True, rich_markup_mode="rich")
    command(group, name="list", examples="hotswap approvals list --as approver\nhotswap approvals list --mine")(
        list_approvals
    )
    command(group, examples="hotswap approvals approve dep_3f2a -m 'read the plan'")(approve)
    command(group, examples="hotswap approvals reject dep_3f2a -m 'not on a Friday'")(reject)
    app.add_typer(group, name="approvals")


async def list_approvals(
    session: Session,
    mine: Annotated[bool, typer.Option("--mine", help="Only what you may approve now.")] = False,
    environment: EnvironmentOption = None,
    plugin: Annotated[str | None, typer.Option("--plugin", "-p", help="Only this plugin.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
) -> None:
    """What waits for approval: yours first, and of those what expires first."""
    query: dict[str, Any] = {
        "environment": environment_name(environment) if environment else None,
        "pluginId": plugin,
        "limit": limit,
    }
    async with session.api() as api:
        page = await api.call("GET", f"{API}/approvals", mine="true" if mine else None, **query)
    rows = [
        (
            _short(item["id"]) if session.output.live else item["id"],
            f"{item['plugin']} {item['version']}",
            item["environment"],
            item["initiatedBy"],
            item["missing"],
            ", ".join(given["approver"] for given in item["approvals"]),
            _until(item.get("expiresAt"), session.output.live),
            "yours" if item["mine"] else item["whyNot"],
        )
        for item in page["items"]
    ]
    columns = ("id", "version", "environment", "by", "needs", "approved by", "expires", "you")
    session.output.table(columns, rows, page, "nothing waits for approval")


async def approve(session: Session, approval: IdArgument, reason: Why = "") -> None:
    """Approve what waits, for the plan that is shown; never what you initiated yourself."""
    async with session.api() as api:
        item = await _resolve(api, approval)
        plan_hash = item.get("planHash") or ""
        if not session.output.as_json:
            digest, plan = item["digest"][:12], f", plan {plan_hash[:12]}" if plan_hash else ""
            what = f"{item['plugin']} {item['version']} to {item['environment']} by {item['strategy']}"
            session.output.note(f"{clean(what)}, artifact {digest}{plan}, initiated by {clean(item['initiatedBy'])}")
        body = {"reason": reason} | ({"planHash": plan_hash} if plan_hash else {})
        result = await _decide(api, item["id"], "approve", body)
    session.output.say(f"{clean(result['status'])}: {clean(result['message'])}", result)


async def reject(session: Session, approval: IdArgument, reason: NeededReason = "") -> None:
    """Refuse what waits; that ends it, and nothing was changed."""
    if not reason.strip():
        raise UsageFault("reject needs a reason", f'hotswap approvals reject {approval} --reason "why"')
    async with session.api() as api:
        item = await _resolve(api, approval)
        result = await _decide(api, item["id"], "reject", {"reason": reason})
    session.output.say(f"{clean(result['status'])}: {clean(result['message'])}", result)


async def _decide(api: ApiClient, approval_id: str, verb: str, body: dict[str, Any]) -> Any:
    return await api.call("POST", f"{API}/approvals/{approval_id}/{verb}", body=body, key=f"{verb}-{uuid.uuid4().hex}")


async def _resolve(api: ApiClient, name: str) -> Any:
    """The approval that an id, or a unique beginning of it among the first 100, means. Raises UsageFault."""
    page = await api.call("GET", f"{API}/approvals", limit=100)
    wanted = name if name.startswith(("dep_", "pip_")) else f"dep_{name}"
    found = [item for item in page["items"] if item["id"].startswith(wanted)]
    exact = [item for item in found if item["id"] == wanted]
    if exact or len(found) == 1:
        return (exact or found)[0]
    if found:
        raise UsageFault(f"'{name}' fits {len(found)} approvals", "write more digits of it")
    raise UsageFault(
        f"nothing that begins with '{name}' waits for approval", "`hotswap approvals list` shows what does"
    )


def _short(approval_id: str) -> str:
    """A beginning, as `approve` takes it; a gate's stays whole, since its stage stands at the end."""
    return approval_id if "." in approval_id else approval_id[:12]


def _until(value: Any, live: bool) -> str:
    at = instant(value)
    if not live or at is None:
        return clean(value)
    return f"{at:%a} {clock(value)}"
