"""Commands on who may do what: users, service tokens, tenants' tokens, signing keys, the first Admin."""

import importlib
import uuid
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hotswap.cli import tenants as tenant_commands
from hotswap.cli.client import API, ApiClient, environment_name
from hotswap.cli.durations import iso_duration
from hotswap.cli.faults import UsageFault
from hotswap.cli.login import PasswordStdin, secret
from hotswap.cli.output import ago, clean
from hotswap.cli.session import Session, command

ROLES = ("Admin", "Developer", "TenantOwner", "Approver", "Viewer")

RolesOption = Annotated[
    list[str] | None, typer.Option("--role", "-r", help=f"One of {', '.join(ROLES)}; repeatable.", show_default=False)
]
TenantsOption = Annotated[
    list[str] | None, typer.Option("--tenant", "-t", help="Tenant of a TenantOwner; repeatable.", show_default=False)
]
EnvironmentsOption = Annotated[
    list[str] | None,
    typer.Option("--environment", "-e", help="Reach only this environment; repeatable.", show_default=False),
]
UserArgument = Annotated[str, typer.Argument(metavar="USER")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    users = typer.Typer(help="Manage who can log in.", no_args_is_help=True, rich_markup_mode="rich")
    command(users, examples="hotswap user create ada -r Developer\nhotswap user create eve -r TenantOwner -t acme")(
        create
    )
    command(users, name="list", examples="hotswap user list")(list_users)
    command(users, examples="hotswap user disable ada")(disable)
    command(users, examples="hotswap user enable ada")(enable)
    command(users, name="set-roles", examples="hotswap user set-roles ada Developer Approver")(set_roles)
    command(users, name="set-tenants", examples="hotswap user set-tenants eve acme")(set_tenants)
    command(users, name="set-password", examples="hotswap user set-password ada --password-stdin < file")(set_password)
    app.add_typer(users, name="user")

    tokens = typer.Typer(help="Manage tokens of machines.", no_args_is_help=True, rich_markup_mode="rich")
    command(tokens, name="create", examples="hotswap token create ci -r Developer -e qa --for 30d")(create_token)
    command(tokens, name="list", examples="hotswap token list")(list_tokens)
    command(tokens, name="revoke", examples="hotswap token revoke ci")(revoke_token)
    app.add_typer(tokens, name="token")

    tenants = typer.Typer(help="Let tenants call their plugins.", no_args_is_help=True, rich_markup_mode="rich")
    command(tenants, name="token", examples="hotswap tenant token acme --for 30d -p invoice")(tenant_token)
    command(tenants, name="tokens", examples="hotswap tenant tokens acme")(tenant_tokens)
    command(tenants, name="revoke-token", examples="hotswap tenant revoke-token acme tnt_3f2a...")(revoke_tenant_token)
    tenant_commands.add_commands(tenants)
    app.add_typer(tenants, name="tenant")

    auth = typer.Typer(help="Look after the installation's keys.", no_args_is_help=True, rich_markup_mode="rich")
    command(
        auth, name="rotate-keys", examples='hotswap auth rotate-keys\nhotswap auth rotate-keys --revoke -m "incident 9"'
    )(rotate_keys)
    command(auth, examples="hotswap auth keys")(keys)
    auth.command(epilog="[bold]Examples[/bold]\n\nhotswap auth bootstrap --password-file /run/admin-password")(
        bootstrap
    )
    app.add_typer(auth, name="auth")


# -- users ---------------------------------------------------------------------------------------------------------


async def create(
    session: Session,
    name: UserArgument,
    role: RolesOption = None,
    tenant: TenantsOption = None,
    display_name: Annotated[str, typer.Option("--display-name", help="How people know them.")] = "",
    password_stdin: PasswordStdin = False,
) -> None:
    """Make a user. Without --password-stdin a password is made and told once."""
    body: dict[str, Any] = {
        "name": name,
        "displayName": display_name,
        "roles": _roles(role or []),
        "tenants": tenant or [],
    }
    if password_stdin:
        body["password"] = secret(True)
    async with session.api() as api:
        made = await api.call("POST", f"{API}/users", body=body, key=f"user-{uuid.uuid4().hex}")
    _tell_password(session, made)


async def list_users(session: Session, limit: Limit = 100) -> None:
    """List users."""
    async with session.api() as api:
        page = await api.call("GET", f"{API}/users", limit=limit)
    rows = [
        (
            item["name"],
            ", ".join(item["roles"]),
            ", ".join(item["tenants"]),
            "disabled" if item["disabled"] else "",
            item["displayName"],
        )
        for item in page["items"]
    ]
    session.output.table(("user", "roles", "tenants", "", "name"), rows, page, "no users: `hotswap auth bootstrap`")


async def disable(session: Session, name: UserArgument) -> None:
    """Keep a user out: their logins end everywhere within seconds."""
    await _change(session, name, {"disabled": True}, "disabled")


async def enable(session: Session, name: UserArgument) -> None:
    """Let a user log in again."""
    await _change(session, name, {"disabled": False}, "enabled")


async def set_roles(session: Session, name: UserArgument, roles: list[str]) -> None:
    """Give a user these roles and no others. Their logins end."""
    await _change(session, name, {"roles": _roles(roles)}, f"now {', '.join(_roles(roles))}")


async def set_tenants(session: Session, name: UserArgument, tenants: list[str]) -> None:
    """Let a TenantOwner own these tenants and no others. Their logins end."""
    await _change(session, name, {"tenants": tenants}, f"now of {', '.join(tenants)}")


async def set_password(session: Session, name: UserArgument, password_stdin: PasswordStdin = False) -> None:
    """Set a password, or have one made and told once. The user's logins end."""
    body = {"password": secret(True)} if password_stdin else {}
    async with session.api() as api:
        made = await api.call("PUT", f"{API}/users/{quote(name, safe='')}/password", body=body)
    _tell_password(session, made)


async def _change(session: Session, name: str, body: dict[str, Any], said: str) -> None:
    async with session.api() as api:
        user = await api.call("PUT", f"{API}/users/{quote(name, safe='')}", body=body, repeatable=True)
    session.output.say(f"{clean(user['name'])}: {said}", user)


def _tell_password(session: Session, made: dict[str, Any]) -> None:
    user = made["user"]
    roles = ", ".join(user["roles"]) or "no role"
    if made.get("password"):
        session.output.say(f"{clean(user['name'])} ({roles}), password {made['password']}", made)
        session.output.note("this password is told once; they change it with POST /authentication/password")
    else:
        session.output.say(f"{clean(user['name'])} ({roles})", made)


# -- machines ------------------------------------------------------------------------------------------------------


async def create_token(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and hyphens.")],
    role: RolesOption = None,
    environment: EnvironmentsOption = None,
    tenant: TenantsOption = None,
    lasting: Annotated[str, typer.Option("--for", help="How long it lasts: 30d, P30D.")] = "90d",
) -> None:
    """Make a token for a machine (CI). It is told once."""
    if not role:
        raise UsageFault("a token needs a role", f"hotswap token create {name} --role Developer")
    body = {
        "name": name,
        "roles": _roles(role),
        "environments": [environment_name(one) for one in environment or []],
        "tenants": tenant or [],
        "lifetime": iso_duration(lasting, "--for"),
    }
    async with session.api() as api:
        made = await api.call("POST", f"{API}/service-tokens", body=body, key=f"token-{uuid.uuid4().hex}")
    session.output.say(made["token"], made)
    session.output.note(
        f"{made['serviceToken']['tokenId']} until {made['serviceToken']['expiresAt']}; told once, keep it"
    )


async def list_tokens(session: Session, limit: Limit = 20) -> None:
    """List machines' tokens, newest first."""
    async with session.api() as api:
        page = await api.call("GET", f"{API}/service-tokens", limit=limit)
    rows = [
        (
            item["tokenId"],
            item["name"],
            f"{item['prefix']}...",
            ", ".join(item["roles"]),
            ", ".join(item["environments"]) or "all",
            f"revoked by {item['revokedBy']}" if item.get("revokedAt") else item["expiresAt"],
            (ago(item["lastUsedAt"]) if session.output.live else item["lastUsedAt"]) if item["lastUsedAt"] else "never",
        )
        for item in page["items"]
    ]
    columns = ("id", "name", "begins", "roles", "environments", "until", "last used")
    session.output.table(columns, rows, page, "no service tokens")


async def revoke_token(
    session: Session, name: Annotated[str, typer.Argument(metavar="NAME|ID", help="The name, or the id.")]
) -> None:
    """Revoke a machine's token, everywhere within seconds."""
    async with session.api() as api:
        token_id = name if name.startswith("svc_") else await _token_id(api, name)
        await api.call("DELETE", f"{API}/service-tokens/{quote(token_id, safe='')}", repeatable=True)
    session.output.say(f"{clean(name)} revoked", {"tokenId": token_id})


async def _token_id(api: ApiClient, name: str) -> str:
    offset: int | None = 0
    while offset is not None:
        page = await api.call("GET", f"{API}/service-tokens", limit=100, offset=offset)
        for item in page["items"]:
            if item["name"] == name and not item.get("revokedAt"):
                return str(item["tokenId"])
        offset = page.get("nextOffset")
    raise UsageFault(f"no token '{name}' is in use", "`hotswap token list` shows them")


# -- tenants -------------------------------------------------------------------------------------------------------


async def tenant_token(
    session: Session,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", "-p", help="Only this plugin; repeatable.", show_default=False)
    ] = None,
    environment: EnvironmentsOption = None,
    lasting: Annotated[
        str | None, typer.Option("--for", help="How long it lasts (default: the longest allowed).", show_default=False)
    ] = None,
    description: Annotated[str, typer.Option("--description", "-m", help="What it is for.")] = "",
) -> None:
    """Make a token that calls a tenant's plugins on the nodes. It is told once."""
    body: dict[str, Any] = {
        "plugins": plugin or [],
        "environments": [environment_name(one) for one in environment or []],
        "description": description,
    }
    if lasting:
        body["lifetime"] = iso_duration(lasting, "--for")
    async with session.api() as api:
        path = f"{API}/tenants/{quote(tenant, safe='')}/tokens"
        made = await api.call("POST", path, body=body, key=f"tenant-token-{uuid.uuid4().hex}")
    session.output.say(made["token"], made)
    session.output.note(f"{made['tenantToken']['tokenId']} of {tenant} until {made['tenantToken']['expiresAt']}")


async def tenant_tokens(
    session: Session, tenant: Annotated[str, typer.Argument(metavar="TENANT")], limit: Limit = 20
) -> None:
    """List the tokens made for a tenant, newest first."""
    async with session.api() as api:
        page = await api.call("GET", f"{API}/tenants/{quote(tenant, safe='')}/tokens", limit=limit)
    rows = [
        (
            item["tokenId"],
            ", ".join(item["plugins"]) or "all",
            ", ".join(item["environments"]) or "all",
            f"revoked by {item['revokedBy']}" if item.get("revokedAt") else item["expiresAt"],
            item["createdBy"],
            item["description"],
        )
        for item in page["items"]
    ]
    session.output.table(("id", "plugins", "environments", "until", "by", "for"), rows, page, "no tokens")


async def revoke_tenant_token(
    session: Session,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    token_id: Annotated[str, typer.Argument(metavar="ID")],
) -> None:
    """Revoke a tenant's token: nodes refuse it within their reconcile beat."""
    async with session.api() as api:
        path = f"{API}/tenants/{quote(tenant, safe='')}/tokens/{quote(token_id, safe='')}"
        await api.call("DELETE", path, repeatable=True)
    session.output.say(f"{clean(token_id)} revoked", {"tokenId": token_id})


# -- keys ----------------------------------------------------------------------------------------------------------


async def rotate_keys(
    session: Session,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="End everything that the old keys signed, at once: every login and token.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; goes into the audit log.")] = "",
) -> None:
    """Make new signing keys. What the old ones signed goes on until it expires."""
    if revoke and not reason.strip():
        raise UsageFault("ending every login needs a reason", 'hotswap auth rotate-keys --revoke --reason "why"')
    async with session.api() as api:
        body = {"revoke": revoke, "reason": reason}
        made = await api.call("POST", f"{API}/authentication/signing-keys/rotate", body=body)
    lines = [f"{key['kid']} signs for {key['purpose']} from {key['signsFrom']}" for key in made["items"]]
    session.output.say("\n".join(lines), made)


async def keys(session: Session) -> None:
    """List the keys that verify tokens."""
    async with session.api() as api:
        found = await api.call("GET", f"{API}/authentication/signing-keys")
    rows = [(key["kid"], key["purpose"], key["signsFrom"], key["verifyUntil"] or "in use") for key in found["items"]]
    session.output.table(("key", "for", "signs from", "verifies until"), rows, found, "no keys yet: none has logged in")


def bootstrap(
    user: Annotated[str, typer.Option("--user", help="Name of the first Admin.")] = "admin",
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", help="Read the password there, or write a made one.", show_default=False),
    ] = None,
) -> None:
    """Make the first Admin, where the api's settings (HOTSWAP_POSTGRES__URL ...) are. Nothing where one can log in."""
    options = ["--user", user] + (["--password-file", str(password_file)] if password_file else [])
    # Not an import: this is the one command that works beside the api instead of asking it, as nobody can log in yet.
    raise typer.Exit(importlib.import_module("api.bootstrap").main(options))


def _roles(given: list[str]) -> list[str]:
    """Roles as the api writes them, in whatever case they were typed. Raises UsageFault."""
    known = {role.lower(): role for role in ROLES}
    for name in given:
        if name.lower() not in known:
            raise UsageFault(f"'{name}' is not a role", f"known: {', '.join(ROLES)}")
    return [known[name.lower()] for name in given]
