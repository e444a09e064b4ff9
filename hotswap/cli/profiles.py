"""Logins that the command line remembers: named api addresses with their tokens, in a file that only its owner can read.

`$XDG_CONFIG_HOME/hotswap/profiles.json`, 0600. Neighbours: hotswap.cli.login writes it, hotswap.cli.connection finds an
api in it, hotswap.cli.client renews a token that is about to expire.
"""

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from hotswap.cli.faults import ApiError, UsageFault

DEFAULT = "default"

RENEW_WITHIN = timedelta(seconds=60)
"""A token with less than this left is renewed before it is used."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


@dataclass(frozen=True)
class Profile:
    """One login. A token that was given rather than logged in for has neither end nor refresh token here."""

    name: str
    url: str
    token: str
    user: str = ""
    refresh_token: str = ""
    expires_at: str = ""

    def is_due(self, now: datetime) -> bool:
        """Whether the token should be renewed before it is used."""
        if not self.refresh_token:
            return False
        try:
            return datetime.fromisoformat(self.expires_at) - now < RENEW_WITHIN
        except (ValueError, TypeError):
            return True


class Profiles:
    """The file, read anew for each question and replaced whole for each change."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Profiles | None":
        """None where neither XDG_CONFIG_HOME nor HOME says where."""
        config = environment.get("XDG_CONFIG_HOME")
        home = environment.get("HOME")
        folder = Path(config) if config else Path(home) / ".config" if home else None
        return None if folder is None else cls(folder / "hotswap" / "profiles.json")

    def find(self, name: str | None = None) -> Profile | None:
        """The profile of that name, or the current one. Raises UsageFault when the file is damaged."""
        content = self._read()
        return _profile(content, name or str(content.get("current", "")))

    def at(self, url: str) -> Profile | None:
        """The profile of an address, the current one first."""
        content = self._read()
        names = [str(content.get("current", "")), *_entries(content)]
        found = (_profile(content, name) for name in names)
        return next((one for one in found if one is not None and one.url == url), None)

    def names(self) -> list[str]:
        return sorted(_entries(self._read()))

    def save(self, profile: Profile, *, current: bool = True) -> None:
        """Raises UsageFault (name), OSError."""
        if not _NAME.match(profile.name):
            raise UsageFault(f"'{profile.name[:80]}' is no name for a profile", "use letters, digits, '.', '_' and '-'")
        with self._locked():
            self._put(profile, current=current)

    def remove(self, name: str) -> None:
        with self._locked():
            content = self._read()
            entries = _entries(content)
            entries.pop(name, None)
            current = content.get("current")
            self._write({"current": None if current == name else current, "profiles": entries})

    def renew(self, profile: Profile) -> Profile:
        """The profile with a token that lasts. Of several commands at once one asks the api, the others wait for it.

        Raises ApiError when the login has ended, httpx.TransportError when the api does not answer.
        """
        with self._locked():
            newest = self.find(profile.name) or profile
            if not newest.is_due(datetime.now(UTC)):
                return newest
            # trust_env=False: a token is never sent through whatever proxy the environment names.
            with httpx.Client(timeout=httpx.Timeout(30.0, connect=3.0), trust_env=False) as http:
                body = {"refreshToken": newest.refresh_token}
                answer = http.post(f"{newest.url}/api/v1/authentication/refresh", json=body)
            if answer.status_code != 200:
                raise ApiError(
                    answer.status_code,
                    "UNAUTHORIZED" if answer.status_code == 401 else f"HTTP_{answer.status_code}",
                    f"the login of profile '{newest.name}' cannot be renewed ({answer.status_code})",
                    retry_after=answer.headers.get("Retry-After", ""),
                )
            renewed = replace(newest, **tokens_of(answer.json()))
            self._put(renewed, current=False)
            return renewed

    def _put(self, profile: Profile, *, current: bool) -> None:
        content = self._read()
        entry = {name: value for name, value in vars(profile).items() if name != "name"}
        now = profile.name if current or not content.get("current") else content["current"]
        self._write({"current": now, "profiles": {**_entries(content), profile.name: entry}})

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as fault:
            raise UsageFault(f"{self.path} cannot be read: {fault}", "remove it and log in again") from None
        return content if isinstance(content, dict) else {}

    def _write(self, content: dict[str, Any]) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".profiles.")  # 0600 from its first byte
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def tokens_of(answer: Any) -> dict[str, str]:
    """What a login or a refresh answered, as fields of a Profile. Raises ApiError when it is none."""
    try:
        return {
            "token": str(answer["token"]),
            "refresh_token": str(answer["refreshToken"]),
            "expires_at": str(answer["expiresAt"]),
            "user": str(answer["user"]["name"]),
        }
    except (KeyError, TypeError):
        raise ApiError(200, "BAD_ANSWER", "the api's answer is no login: is it a HotSwap api?") from None


def _entries(content: Mapping[str, Any]) -> dict[str, Any]:
    entries = content.get("profiles")
    return dict(entries) if isinstance(entries, dict) else {}


def _profile(content: Mapping[str, Any], name: str) -> Profile | None:
    entry = _entries(content).get(name)
    if not isinstance(entry, dict) or not entry.get("url"):
        return None
    known = {key: str(entry.get(key, "")) for key in ("url", "token", "user", "refresh_token", "expires_at")}
    return Profile(name=name, **known)
