"""An upload that goes to the object store directly, past the facade: what was promised before it, until it is judged."""

from pydantic import Field

from hotswap.domain.base import Digest, Instant, Model, PluginName
from hotswap.domain.manifest import SemVer


class PendingUpload(Model):
    """A place in the object store that somebody may fill until `expires_at`, with exactly these bytes.

    The row stays until the sweep after its end, completed or not: until then its URL can still bring bytes.
    """

    upload_id: str = Field(pattern=r"^upl_[0-9a-f]{32}$")
    plugin: PluginName
    version: SemVer
    digest: Digest
    size_bytes: int = Field(ge=1)
    created_by: str = Field(min_length=1, max_length=255)
    created_at: Instant
    expires_at: Instant
    completed_at: Instant | None = None
