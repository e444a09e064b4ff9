"""The audit's hash chain as facts and pure checks: seals, checkpoints, and what a verification finds wrong.

A seal is SHA-256(previous seal, newline, content); the content is one JSON array, as the server that keeps the entries
writes it. Neighbours: hotswap.adapters.postgres.audit reads seals that the server made, api.services.audit walks them.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence

from pydantic import Field

from hotswap.domain.base import Instant, Model
from hotswap.domain.registry import AuditEntry

GENESIS = "0" * 64
"""What the first seal follows."""

MOST_FAULTS = 20
"""Faults that one verification tells: the first says where to look, a thousand say no more."""


class Seal(Model):
    """A place in the chain. `audit_id` is the entry's row."""

    position: int = Field(ge=1)
    audit_id: int
    previous_hash: str
    hash: str


class SealedEntry(Model):
    """An entry with its seal. `content` is what was hashed, read anew from the row; None: the entry is gone."""

    seal: Seal
    content: str | None
    entry: AuditEntry | None


class Checkpoint(Model):
    """A signed word that the chain had `hash` at `position`. `truncates`: entries up to there were taken away."""

    position: int = Field(ge=1)
    hash: str
    truncates: bool = False
    entries_before: Instant | None = Field(default=None, description="what was asked to go: entries older than this")
    reason: str = ""
    created_by: str
    created_at: Instant
    previous_signature: str = Field(default="", description="of the checkpoint before: they are a chain too")
    key_id: str = ""
    signature: str = ""

    def signed_text(self) -> bytes:
        """What the signature covers: everything else of the checkpoint."""
        document = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Head(Model):
    """Where the chain ends. Kept elsewhere, it proves later that nothing before it was changed or cut off."""

    position: int = 0
    hash: str = GENESIS


class ChainReport(Model):
    """What a verification saw. `next`: go on behind it, there is more."""

    intact: bool
    entries: int = Field(description="seals looked at")
    first: int = Field(description="position of the first entry that is kept; 0 = none")
    head: Head = Field(description="the last seal looked at")
    complete: bool = Field(description="the chain was followed to its end")
    checkpoints: int = 0
    faults: tuple[str, ...] = ()


def seal_of(previous_hash: str, content: str) -> str:
    return hashlib.sha256(f"{previous_hash}\n{content}".encode()).hexdigest()


def key_id_of(key: str) -> str:
    """Names a signing key without telling it."""
    return hashlib.sha256(f"hotswap checkpoint key\n{key}".encode()).hexdigest()[:16]


def sign(checkpoint: Checkpoint, key: str) -> Checkpoint:
    named = checkpoint.model_copy(update={"key_id": key_id_of(key)})
    signature = hmac.new(key.encode(), named.signed_text(), hashlib.sha256).hexdigest()
    return named.model_copy(update={"signature": signature})


class ChainCheck:
    """Follows a chain from `head` on; feed it sealed entries in the order of their positions."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.first = 0
        self.entries = 0
        self._faults: list[str] = []

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(self._faults)

    def fault(self, text: str) -> None:
        if len(self._faults) < MOST_FAULTS:
            self._faults.append(text)

    def follow(self, sealed: Iterable[SealedEntry], expected: Sequence[Head] = ()) -> None:
        """`expected`: places whose hash is known from elsewhere (checkpoints, an earlier verification)."""
        known = {place.position: place.hash for place in expected}
        for one in sealed:
            seal = one.seal
            if seal.position != self.head.position + 1:
                lost = f"{self.head.position + 1} to {seal.position - 1}"
                self.fault(f"positions {lost} are missing: sealed entries were deleted")
            elif seal.previous_hash != self.head.hash:
                self.fault(f"position {seal.position} does not follow the one before it")
            if one.content is None:
                self.fault(f"position {seal.position}: its entry (row {seal.audit_id}) was deleted")
            elif seal_of(seal.previous_hash, one.content) != seal.hash:
                self.fault(f"position {seal.position}: its entry (row {seal.audit_id}) was changed after it was sealed")
            if known.get(seal.position, seal.hash) != seal.hash:
                self.fault(f"position {seal.position}: the chain was written anew; its hash is not what was known")
            self.first = self.first or seal.position
            self.entries += 1
            self.head = Head(position=seal.position, hash=seal.hash)


def check_checkpoints(checkpoints: Sequence[Checkpoint], keys: Sequence[str]) -> list[str]:
    """Faults of the checkpoints themselves, oldest first. A key that is not known is a fault too: it proves nothing."""
    by_id = {key_id_of(key): key for key in keys}
    faults = []
    previous = ""
    for checkpoint in checkpoints:
        name = f"the checkpoint of {checkpoint.created_at:%Y-%m-%d %H:%M:%S} UTC at position {checkpoint.position}"
        key = by_id.get(checkpoint.key_id)
        if key is None:
            faults.append(f"{name} is signed with key {checkpoint.key_id}, which this api does not have")
        elif not hmac.compare_digest(sign(checkpoint, key).signature, checkpoint.signature):
            faults.append(f"{name} has a wrong signature: it was changed, or not made by this platform")
        if checkpoint.previous_signature != previous:
            faults.append(f"{name} does not follow the checkpoint before it: one was deleted")
        previous = checkpoint.signature
    return faults[:MOST_FAULTS]
