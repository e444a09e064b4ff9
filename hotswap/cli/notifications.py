"""Commands on notifications: who hears of what, a test, and the log of what was delivered."""

from typing import Annotated, Any

import typer

from hotswap.cli.client import API, environment_name
from hotswap.cli.faults import UsageFault
from hotswap.cli.output import ago, clean
from hotswap.cli.session import Session, command

BASE = f"{API}/notifications"

RuleArgument = Annotated[str, typer.Argument(metavar="RULE", help="The rule's id: small letters, digits, hyphens.")]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    group = typer.Typer(help="Say who hears of what.", no_args_is_help=True, rich_markup_mode="rich")
    command(group, examples="hotswap notifications rules")(rules)
    command(
        group,
        name="set",
        examples="""
hotswap notifications set oncall --email oncall@example.com --event deployment.failed --event deployment.paused
hotswap notifications set prod-room --slack releases -e production
hotswap notifications set tickets --webhook https://hooks.example:8443/hotswap --secret hooks --event deployment.rolled-back
""",
    )(set_rule)
    command(group, examples="hotswap notifications delete prod-room")(delete)
    command(group, examples="hotswap notifications test oncall")(test)
    command(group, examples="hotswap notifications log --failed\nhotswap notifications log --rule oncall")(log)
    app.add_typer(group, name="notifications")


async def rules(session: Session) -> None:
    """List the rules."""
    async with session.api() as api:
        page = await api.call("GET", f"{BASE}/rules", limit=100)
    rows = [
        (
            rule["ruleId"],
            rule["target"]["kind"],
            _target(rule["target"]),
            ", ".join(rule["events"]) or "all events",
            ", ".join(rule["environments"]) or "everywhere",
            ", ".join(rule["plugins"]) or "all plugins",
            "on" if rule["enabled"] else "off",
        )
        for rule in (stored["rule"] for stored in page["items"])
    ]
    columns = ("rule", "channel", "to", "events", "environments", "plugins", "state")
    session.output.table(columns, rows, page, "no rules: nobody is notified")


async def set_rule(
    session: Session,
    rule: RuleArgument,
    webhook: Annotated[
        str | None, typer.Option("--webhook", help="URL; its host must be allowed.", show_default=False)
    ] = None,
    secret: Annotated[
        str | None, typer.Option("--secret", help="Name of the signing secret of that host.", show_default=False)
    ] = None,
    email: Annotated[list[str] | None, typer.Option("--email", help="Address; repeat for more.")] = None,
    slack: Annotated[
        str | None, typer.Option("--slack", help="Name of a Slack channel of the settings.", show_default=False)
    ] = None,
    event: Annotated[list[str] | None, typer.Option("--event", help="Repeat for more; default: all.")] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--environment", "-e", help="Repeat for more; default: all.")
    ] = None,
    plugin: Annotated[list[str] | None, typer.Option("--plugin", "-p", help="Repeat for more; default: all.")] = None,
    subject: Annotated[str, typer.Option("--subject", help="Template, e.g. '{plugin} {version}: {event}'.")] = "",
    body: Annotated[str, typer.Option("--body", help="Template; default: the event's own words.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Keep the rule, but switch it off.")] = False,
) -> None:
    """Make a rule, or replace it as a whole."""
    targets: list[dict[str, Any]] = []
    if webhook:
        if not secret:
            raise UsageFault("a webhook is signed", "name the secret: --secret NAME (HOTSWAP_NOTIFICATIONS__SECRETS)")
        targets.append({"kind": "webhook", "url": webhook, "secret": secret})
    if email:
        targets.append({"kind": "email", "to": email})
    if slack:
        targets.append({"kind": "slack", "channel": slack})
    if len(targets) != 1:
        raise UsageFault(f"a rule has one target, but {len(targets)} are given", "give --webhook, --email or --slack")
    document = {
        "target": targets[0],
        "events": event or [],
        "environments": [environment_name(name) for name in environment or []],
        "plugins": plugin or [],
        "subject": subject,
        "body": body,
        "enabled": not off,
    }
    async with session.api() as api:
        stored = await api.call("PUT", f"{BASE}/rules/{_id(rule)}", body=document, repeatable=True)
    session.output.say(f"{rule} set", stored)
    session.output.note(f"try it: hotswap notifications test {rule}")


async def delete(session: Session, rule: RuleArgument) -> None:
    """Delete a rule; what it has not delivered yet is not delivered any more."""
    async with session.api() as api:
        await api.call("DELETE", f"{BASE}/rules/{_id(rule)}", repeatable=True)
    session.output.say(f"{rule} deleted", {"ruleId": rule})


async def test(session: Session, rule: RuleArgument) -> None:
    """Send a test by this rule alone."""
    async with session.api() as api:
        told = await api.call("POST", f"{BASE}/rules/{_id(rule)}/test")
    session.output.say(f"announced {clean(told['deliveryId'])}", told)
    session.output.note(f"how it went: hotswap notifications log --rule {rule}")


async def log(
    session: Session,
    rule: Annotated[str | None, typer.Option("--rule", help="Only this rule.", show_default=False)] = None,
    event: Annotated[str | None, typer.Option("--event", help="Only this event.", show_default=False)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what could not be delivered.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
) -> None:
    """What was delivered, or not and why; newest first."""
    query: dict[str, Any] = {"ruleId": rule, "event": event, "status": "Failed" if failed else None, "limit": limit}
    async with session.api() as api:
        page = await api.call("GET", f"{BASE}/deliveries", **query)
    rows = [
        (
            ago(item["createdAt"]) if session.output.live else item["createdAt"],
            item["ruleId"],
            item["kind"],
            item["target"],
            item["status"],
            str(item["attempts"]),
            item["lastError"],
        )
        for item in page["items"]
    ]
    columns = ("when", "rule", "event", "to", "status", "attempts", "last error")
    session.output.table(columns, rows, page, "nothing was delivered yet")


def _target(target: dict[str, Any]) -> str:
    match target["kind"]:
        case "webhook":
            return f"{target['url']} (secret {target['secret']})"
        case "email":
            return ", ".join(target["to"])
        case _:
            return str(target.get("channel", ""))


def _id(rule: str) -> str:
    if not rule or not all(char.isascii() and (char.isalnum() or char == "-") for char in rule):
        raise UsageFault(f"'{rule[:80]}' is no rule's id", "use small letters, digits and inner hyphens, e.g. oncall")
    return rule
