"""Who vouches for an artifact: publishers' Ed25519 keys and their detached signatures, as facts. Pure, no cryptography.

Neighbours: hotswap.runtime.signing computes, hotswap.runtime.signature_guard decides at every load, hotswap.ports.signatures
keeps the keys. The database may name keys, but an operator can pin them by id (HOTSWAP_SIGNATURES__TRUSTED_KEYS), because
an id is the SHA-256 of the key itself.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from hotswap.domain.base import BoundedText, Instant, Model, PluginName

KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of the 32 raw bytes of an Ed25519 public key, 64 lower-case hex digits."""

PublicKeyText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""The 32 raw bytes of an Ed25519 public key in base64."""

SignatureText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")]
"""The 64 bytes of an Ed25519 signature in base64."""


class Signature(Model):
    """A detached signature over one artifact's digest."""

    key_id: KeyId
    value: SignatureText


class PublisherKey(Model):
    """A publisher's public key, registered by an Admin. An empty `plugins` lets it sign every plugin."""

    key_id: KeyId
    publisher: str = Field(min_length=1, max_length=255)
    public_key: PublicKeyText
    plugins: tuple[PluginName, ...] = Field(default=(), max_length=1000)
    registered_by: str = Field(min_length=1, max_length=255)
    registered_at: Instant
    revoked_by: str | None = None
    revoked_at: Instant | None = None
    revoke_reason: BoundedText = ""

    def why_not_for(self, plugin: str) -> str:
        """Why a signature by this key does not count for `plugin`; "" when it does."""
        if self.revoked_at is not None:
            return f"was revoked by {self.revoked_by} ({self.revoke_reason})"
        if self.plugins and plugin not in self.plugins:
            return f"of {self.publisher} may sign {', '.join(self.plugins)} only"
        return ""


def signed_message(digest: str) -> bytes:
    """The bytes that are signed: not the bare digest, so that a signature made for something else is none here."""
    return f"hotswap:artifact:v1:sha256:{digest}".encode()
