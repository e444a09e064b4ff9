"""Commands on a version's life: submit, approve, deprecate, reinstate, archive, who uses it, what it needs, what goes."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from hotswap.cli import registry_calls as calls
from hotswap.cli.client import environment_name
from hotswap.cli.faults import OTHER
from hotswap.cli.output import clean, size
from hotswap.cli.plugins import PluginArgument, VersionArgument
from hotswap.cli.session import Session, command

ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why; goes into the audit log.", show_default=False)]
WholeArgument = Annotated[
    str | None, typer.Argument(help="Version, e.g. 1.0.0; without one, the plugin itself.", show_default=False)
]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    command(app, examples="hotswap plugin submit phone-format 1.1.0")(submit)
    command(app, examples="hotswap plugin approve phone-format 1.1.0 --as lead")(approve)
    command(app, examples='hotswap plugin deprecate phone-format 1.0.0 -m "use 2.x"')(deprecate)
    command(app, examples='hotswap plugin reinstate phone-format 1.0.0 -m "2.x is worse"')(reinstate)
    command(app, examples='hotswap plugin archive phone-format 0.9.0 -m "nobody uses it"')(archive)
    command(app, examples="hotswap plugin adoption phone-format 1.0.0")(adoption)
    command(app, examples="hotswap plugin dependencies reports\nhotswap plugin dependencies reports -e qa")(
        dependencies
    )
    command(app, examples="hotswap plugin validate reports 3.0.0 -e production")(validate)
    command(app, examples="hotswap plugin retention\nhotswap plugin retention --apply")(retention)


async def submit(session: Session, plugin: PluginArgument, version: VersionArgument) -> None:
    """Offer a Draft for approval: it may go to QA and Staging from then on."""
    await _move(session, plugin, version, "submit", "")


async def approve(session: Session, plugin: PluginArgument, version: VersionArgument) -> None:
    """Let a version into Production. Takes an Admin who did not upload it."""
    await _move(session, plugin, version, "approve", "")


async def deprecate(
    session: Session, plugin: PluginArgument, version: WholeArgument = None, reason: ReasonOption = ""
) -> None:
    """Advise against a version, or the plugin as a whole, and tell its tenants. What serves it goes on."""
    await _advise(session, plugin, version, "deprecate", reason)


async def reinstate(
    session: Session, plugin: PluginArgument, version: WholeArgument = None, reason: ReasonOption = ""
) -> None:
    """Take a deprecation back; a version has to be approved anew."""
    await _advise(session, plugin, version, "reinstate", reason)


async def archive(
    session: Session, plugin: PluginArgument, version: VersionArgument, reason: ReasonOption = ""
) -> None:
    """Close a version that nothing needs, for good. Retention removes its artifact later."""
    await _move(session, plugin, version, "archive", reason)


async def _advise(session: Session, plugin: str, version: str | None, name: str, reason: str) -> None:
    if version is not None:
        await _move(session, plugin, version, name, reason)
        return
    async with session.api() as api:
        done = await calls.advise(api, plugin, name, reason)
    session.output.say(f"{clean(plugin)} is {done['status']}", done)


async def _move(session: Session, plugin: str, version: str, name: str, reason: str) -> None:
    async with session.api() as api:
        done = await calls.move(api, plugin, version, name, reason)
    session.output.say(f"{clean(plugin)} {clean(version)} is {done['status']}", done)


async def adoption(session: Session, plugin: PluginArgument, version: VersionArgument) -> None:
    """Show who gets a version now: exact for tenants on record, by weight for all others."""
    async with session.api() as api:
        found = await calls.adoption(api, plugin, version)
    rows = [
        (
            place["environment"],
            place["role"],
            f"{place['weightPercent']:g} %",
            place["knownTenants"],
            place["pinnedTenants"],
            place["generation"],
        )
        for place in found["environments"]
    ]
    columns = ("environment", "role", "weight", "tenants on record", "pinned", "generation")
    session.output.table(columns, rows, found, f"nobody gets {clean(plugin)} {clean(version)}")
    if session.output.live and found["tenants"]:
        more = found["tenantCount"] - len(found["tenants"])
        session.output.note(f"tenants: {', '.join(found['tenants'])}{f' and {more} more' if more else ''}")


async def dependencies(
    session: Session,
    plugin: PluginArgument,
    version: Annotated[
        str | None, typer.Option("--version", help="Of this version (default: what serves).", show_default=False)
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Only there (default: all).", show_default=False)
    ] = None,
) -> int:
    """Show what a plugin needs and what of it serves, in each environment. Exit code 1: something is missing there."""
    where = environment_name(environment) if environment else None
    async with session.api() as api:
        found = await calls.dependencies(api, plugin, version, where)
    rows = [row for place in found["environments"] for row in _lines(place)]
    columns = ("environment", "needs", "constraint", "serves", "state")
    session.output.table(columns, rows, found, f"{clean(plugin)} needs nothing")
    for place in found["environments"]:
        if session.output.live and place["dependents"]:
            session.output.note(f"{place['environment']}: needed by {', '.join(place['dependents'])}")
    # Where the plugin serves nothing, nothing is broken.
    broken = any(not place["satisfied"] and (where or place["serves"]) for place in found["environments"])
    return OTHER if broken else 0


def _lines(place: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    pending = [(0, need) for need in reversed(place["dependencies"])]
    while pending:
        depth, need = pending.pop()
        state = "–" if need["satisfied"] is None else "ok" if need["satisfied"] else "MISSING"
        if need["serves"] and state == "MISSING":
            state = "MISFIT"
        optional = ", optional" if need["optional"] else ""
        name = f"{'  ' * depth}{need['name']}"
        kind = f"{state} (package)" if need["type"] == "Package" else f"{state}{optional}"
        yield place["environment"], name, need["versionConstraint"], ", ".join(need["serves"]) or "–", kind
        pending += [(depth + 1, inner) for inner in reversed(need["dependencies"])]


async def validate(
    session: Session,
    plugin: PluginArgument,
    version: VersionArgument,
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="Development, QA, Staging or Production.", show_default=False)
    ],
) -> int:
    """Say whether dependencies would let a version into an environment, and what to deploy first. Exit code 1: no."""
    where = environment_name(environment)
    async with session.api() as api:
        found = await calls.validate(api, plugin, version, where)
    rows = [(problem["kind"], problem["message"], " -> ".join(problem["chain"])) for problem in found["problems"]]
    fits = f"{clean(plugin)} {clean(version)} fits {where}"
    if found["valid"]:
        session.output.say(fits, found)
    else:
        session.output.table(("problem", "what", "chain"), rows, found, fits)
    if not session.output.as_json:
        for note in (*found["warnings"], found["suggestion"]):
            if note:
                session.output.note(note)
    return 0 if found["valid"] else OTHER


async def retention(
    session: Session,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it now (default: only say what would go).")] = False,
) -> None:
    """Show, or remove, artifacts of archived versions that nothing needs and uploads that nobody completed."""
    async with session.api() as api:
        found = await calls.retention(api, apply)
    verb = "removed" if apply else "would go"
    rows = [(verb, one["plugin"], one["version"], size(one["sizeBytes"]), "") for one in found["removed"]]
    rows += [("stays", one["plugin"], one["version"], "", "; ".join(one["reasons"])) for one in found["kept"]]
    columns = ("", "plugin", "version", "size", "why")
    session.output.table(columns, rows, found, "no archived version has an artifact")
    if not session.output.as_json:
        session.output.note(f"{size(found['freedBytes'])} and {found['uploads']} unfinished uploads {verb}")
