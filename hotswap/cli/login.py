"""Commands on who we are: login, logout, whoami. What they remember is in hotswap.cli.profiles."""

import getpass
import os
import sys
from typing import Annotated

import typer

from hotswap.cli.client import API, ApiClient
from hotswap.cli.connection import Connection, find_connection
from hotswap.cli.faults import ApiError, UsageFault
from hotswap.cli.output import clean
from hotswap.cli.profiles import DEFAULT, Profile, Profiles, tokens_of
from hotswap.cli.session import Session, command

PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of asking.")
]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    command(
        app,
        examples="""
hotswap login --url https://hotswap.example --user ada
hotswap login --url https://hotswap.example --profile production --with-token < token
hotswap login --user admin --password-stdin < .hotswap/admin-password
""",
    )(login)
    command(app, examples="hotswap logout\nhotswap logout --profile production")(logout)
    command(app, examples="hotswap whoami")(whoami)


async def login(
    session: Session,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Name (default: asked).", show_default=False)] = None,
    password_stdin: PasswordStdin = False,
    with_token: Annotated[
        bool, typer.Option("--with-token", help="Remember a token from standard input (identity provider, service).")
    ] = False,
) -> None:
    """Log in and remember it as a profile (--profile, default 'default'), which becomes the current one."""
    if session.user or session.token:
        raise UsageFault(
            "login takes no --as and no --token", "name yourself with --user, or pipe a token: --with-token"
        )
    profiles = _profiles()
    name = session.profile or DEFAULT
    url = _address(session, profiles, name)
    if with_token:
        profile = Profile(name=name, url=url, token=_one_line("token"))
        async with ApiClient(Connection(url, profile.token)) as api:
            told = await api.call("GET", f"{API}/authentication/me")
        profile = Profile(name=name, url=url, token=profile.token, user=str(told["user"]))
        roles = told["roles"]
    else:
        body = {"user": user or _ask("user: "), "password": secret(password_stdin)}
        async with ApiClient(Connection(url, None)) as api:
            answer = await api.call("POST", f"{API}/authentication/login", body=body)
        profile = Profile(name=name, url=url, **tokens_of(answer))
        roles = answer["user"]["roles"]
    profiles.save(profile)
    said = f"logged in at {url} as {clean(profile.user)} ({', '.join(map(clean, roles)) or 'no role'}), profile {name}"
    session.output.say(said, {"profile": name, "url": url, "user": profile.user, "roles": roles})


async def logout(session: Session) -> None:
    """End the login of a profile (--profile, default: the current one) and forget it."""
    profiles = _profiles()
    profile = profiles.find(session.profile)
    if profile is None:
        raise UsageFault("there is no such login", f"known profiles: {', '.join(profiles.names()) or 'none'}")
    try:
        async with ApiClient(Connection.by(profile, profiles)) as api:
            await api.call("POST", f"{API}/authentication/logout", repeatable=True)
    except ApiError as fault:
        if fault.status not in (401, 409):  # it has ended already, or is a token that has no login: forgetting is all
            raise
    profiles.remove(profile.name)
    session.output.say(f"logged out: profile {profile.name}", {"profile": profile.name})


async def whoami(session: Session) -> None:
    """Who the api takes us for, and what we may."""
    connection = session.connection()
    async with session.api() as api:
        told = await api.call("GET", f"{API}/authentication/me")
    more = "".join(
        f", {what} {', '.join(map(clean, told[key]))}"
        for key, what in (("tenants", "of"), ("environments", "in"))
        if told.get(key)
    )
    roles = ", ".join(map(clean, told["roles"])) or "no role"
    session.output.say(f"{clean(told['user'])} ({roles}{more}) at {connection.url}", told)


def secret(from_stdin: bool, prompt: str = "password: ") -> str:
    """A password, asked for without showing it, or the first line of standard input. Raises UsageFault."""
    if from_stdin:
        return _one_line("password")
    if not sys.stdin.isatty():
        raise UsageFault("there is no terminal to ask for the password", "pipe it in and give --password-stdin")
    return getpass.getpass(prompt)


def _one_line(what: str) -> str:
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise UsageFault(f"standard input holds no {what}", f"pipe the {what} in, on its first line")
    return line


def _ask(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise UsageFault("there is no terminal to ask for the user", "give --user NAME")
    return input(prompt)


def _profiles() -> Profiles:
    profiles = Profiles.of(os.environ)
    if profiles is None:
        raise UsageFault("nowhere to remember a login: neither XDG_CONFIG_HOME nor HOME is set", "set one of them")
    return profiles


def _address(session: Session, profiles: Profiles, name: str) -> str:
    """--url, HOTSWAP_URL, the profile's own address, the local stack's."""
    url = session.url or os.environ.get("HOTSWAP_URL")
    if url:
        return find_connection(url, "none").url
    known = profiles.find(name)
    return known.url if known is not None else find_connection().url
