"""Finds the api and who we are: flags, HOTSWAP_URL and HOTSWAP_TOKEN, a named profile, stack.json, the current profile.

The local stack's stack.json stands before the current profile on purpose: in a checkout with a running `hotswap up` a
command goes to that stack, and to production only when it is named (--profile, HOTSWAP_PROFILE).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hotswap.cli.faults import UsageFault
from hotswap.cli.profiles import Profile, Profiles

DEFAULT_USER = "admin"


@dataclass(frozen=True)
class Connection:
    """Where the api is and with which token we speak. `stack` is the content of stack.json, empty without one."""

    url: str
    token: str | None
    user: str = ""
    stack_file: Path | None = None
    stack: Mapping[str, Any] = field(default_factory=dict)
    profile: Profile | None = None
    profiles: Profiles | None = None

    def users(self) -> tuple[str, ...]:
        """Names that --as knows."""
        return tuple(str(entry["user"]) for entry in _users(self.stack))

    def as_user(self, user: str) -> "Connection":
        """The same api, spoken to as somebody else of the stack. Raises UsageFault for an unknown name."""
        return Connection(self.url, _token_of(self.stack, user, self.stack_file), user, self.stack_file, self.stack)

    @classmethod
    def by(cls, profile: Profile, profiles: Profiles) -> "Connection":
        return cls(profile.url, profile.token, profile.user, profile=profile, profiles=profiles)

    def again(self) -> "Connection":
        """Read stack.json once more: a part that restarted may have moved. The same connection when it is unreadable."""
        if self.stack_file is None:
            return self
        try:
            stack = read_stack(self.stack_file)
        except UsageFault:  # being rewritten or gone: what we knew still stands
            return self
        url = str(stack.get("apiUrl", self.url)).rstrip("/")
        return Connection(url, self.token, self.user, self.stack_file, stack)


def stack_path(environment: Mapping[str, str] = os.environ, directory: Path | None = None) -> Path:
    """Where `hotswap up` writes: $HOTSWAP_HOME/stack.json, else .hotswap/stack.json of the directory."""
    home = environment.get("HOTSWAP_HOME")
    return (Path(home) if home else (directory or Path.cwd()) / ".hotswap") / "stack.json"


def read_stack(path: Path) -> dict[str, Any]:
    """The stack file as JSON. Raises UsageFault saying what to do when it is missing or damaged."""
    try:
        stack = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageFault(
            f"no api is known: there is no {path}",
            "start one with `hotswap up`, log in with `hotswap login --url ...`, or name one with --url and --token "
            "(HOTSWAP_URL, HOTSWAP_TOKEN)",
        ) from None
    except (OSError, ValueError) as fault:
        raise UsageFault(
            f"{path} cannot be read: {fault}", "stop the stack and start it again with `hotswap up`"
        ) from None
    if not isinstance(stack, dict) or not isinstance(stack.get("apiUrl"), str):
        raise UsageFault(f"{path} holds no apiUrl", "stop the stack and start it again with `hotswap up`")
    return stack


def find_connection(
    url: str | None = None,
    token: str | None = None,
    user: str | None = None,
    environment: Mapping[str, str] = os.environ,
    directory: Path | None = None,
    profile: str | None = None,
) -> Connection:
    """Flags win over the environment, the environment over what is remembered. Raises UsageFault with the remedy.

    Tokens of a stack or a profile are only ever sent to its own address: a --url elsewhere needs its own --token.
    """
    profiles = Profiles.of(environment)
    if profile and (url or token or user):
        raise UsageFault("--profile says where the api is and who we are", "leave out --url, --token and --as")
    if not url and not token and not user and (name := profile or environment.get("HOTSWAP_PROFILE")):
        return _by_name(profiles, name)
    url = url or environment.get("HOTSWAP_URL")
    token = token or (None if user else environment.get("HOTSWAP_TOKEN"))
    path = stack_path(environment, directory)
    if url and not url.startswith(("http://", "https://")):
        raise UsageFault(f"'{url}' is not an address", "write it whole, e.g. --url http://127.0.0.1:8080")
    if url and token and not user:
        return Connection(url.rstrip("/"), token)
    if not url and not user and not path.exists() and (current := profiles.find() if profiles else None) is not None:
        assert profiles is not None
        return Connection.by(current, profiles) if token is None else Connection(current.url, token)
    stack = read_stack(path) if not url or path.exists() else {}
    own = str(stack.get("apiUrl", "")).rstrip("/")
    if url and url.rstrip("/") != own:
        if user:
            raise UsageFault(f"--as {user} is known to the stack of {path} only", "give --token for another api")
        if token is None and profiles is not None and (there := profiles.at(url.rstrip("/"))) is not None:
            return Connection.by(there, profiles)
        return Connection(url.rstrip("/"), token)
    if token is None:
        known = [str(entry["user"]) for entry in _users(stack)]
        user = user or (DEFAULT_USER if DEFAULT_USER in known or not known else known[0])
        token = _token_of(stack, user, path)
    return Connection(own, token, user or "", path, stack)


def _by_name(profiles: Profiles | None, name: str) -> Connection:
    found = profiles.find(name) if profiles is not None else None
    if found is None or profiles is None:
        known = ", ".join(profiles.names()) if profiles is not None else ""
        raise UsageFault(f"there is no profile '{name}'", f"known: {known or 'none'}; `hotswap login --profile {name}`")
    return Connection.by(found, profiles)


def _users(stack: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    users = stack.get("users")
    entries = users if isinstance(users, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and {"user", "token"} <= entry.keys()]


def _token_of(stack: Mapping[str, Any], user: str, path: Path | None) -> str:
    for entry in _users(stack):
        if entry["user"] == user:
            return str(entry["token"])
    known = ", ".join(str(entry["user"]) for entry in _users(stack)) or "nobody"
    raise UsageFault(f"--as {user}: {path} does not know that user", f"known there: {known}")
