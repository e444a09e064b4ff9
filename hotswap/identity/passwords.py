"""Passwords: argon2id hashes, made and checked in threads, a few at a time; nobody's password takes as long as anybody's."""

import asyncio
import secrets
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hotswap.domain.errors import FieldFault, InvalidInput

SHORTEST, LONGEST = 12, 1024
AT_ONCE = 2
"""Hashes at once: each takes 64 MiB and about 50 ms of two cores (argon2-cffi's defaults, RFC 9106 second choice)."""


class Passwords:
    """`hasher` decides the cost; a hash made with other costs still verifies, and is made anew at the next login."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._slots = asyncio.Semaphore(AT_ONCE)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash(secrets.token_bytes(16))

    async def hash(self, password: str) -> str:
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, known: str | None, password: str) -> bool:
        """Whether it is the password. Without a `known` hash it is not, and finding that out costs the same."""
        async with self._slots:
            return await asyncio.to_thread(self._verify, known, password)

    def outdated(self, known: str) -> bool:
        return self._hasher.check_needs_rehash(known)

    def _verify(self, known: str | None, password: str) -> bool:
        try:
            self._hasher.verify(known or self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return False
        return known is not None


def new_password() -> str:
    """144 random bits, for who did not choose one."""
    return secrets.token_urlsafe(18)


def check_password(password: str, field: str = "password") -> None:
    """Raises InvalidInput naming the fault; never repeats the password."""
    fault = ""
    if len(password) < SHORTEST:
        fault = f"is too short; choose at least {SHORTEST} characters, or leave it out to have one made"
    elif len(password) > LONGEST:
        fault = f"is too long; choose at most {LONGEST} characters"
    elif len(set(password)) < 5:
        fault = "repeats the same few characters; choose another"
    if fault:
        raise InvalidInput(f"{field}: {fault}", [FieldFault(field, fault)])
