"""What people do to versions, as clients write it: moves, signatures, presigned uploads, publishers' keys, dependencies."""

from pydantic import Field

from api.schemas.common import Flag, Line
from hotswap.dependencies.models import Problem, Release
from hotswap.dependencies.tree import Need
from hotswap.domain.base import Digest, Instant, Model, PluginName
from hotswap.domain.deployment import Environment
from hotswap.domain.manifest import SemVer
from hotswap.domain.signatures import KeyId, PublicKeyText, PublisherKey, SignatureText


class MoveIn(Model):
    """Body of approve, deprecate, archive...; deprecate, reinstate and archive need the reason."""

    reason: Line = Field(default="", max_length=2000)


class SignIn(Model):
    """Body of POST .../sign: a signature over the version's digest, made after the upload."""

    key_id: KeyId
    signature: SignatureText


class PresignIn(Model):
    """Body of POST .../versions/presigned: exactly these bytes may be sent to the object store."""

    version: SemVer
    digest: Digest = Field(description="SHA-256 of the zip, 64 lower-case hex digits")
    size_bytes: int = Field(ge=1)


class PresignOut(Model):
    """A form: send `fields` in any order, then the zip as the last field, `file`; then complete."""

    upload_id: str
    method: str = "POST"
    url: str
    fields: dict[str, str]
    size_bytes: int = Field(description="the object store takes no byte more and no byte less")
    expires_at: Instant


class CompleteIn(Model):
    """Body of POST .../versions/complete: the fields of an ordinary upload but the binary."""

    upload_id: str = Field(pattern=r"^upl_[0-9a-f]{32}$")
    release_notes: Line = Field(default="", max_length=20_000)
    manifest: Line = Field(default="", description="JSON; must equal the manifest in the zip")
    signature: Line = ""
    key_id: Line = ""
    draft: Flag = False


class PublisherKeyIn(Model):
    publisher: Line = Field(min_length=1, max_length=255)
    public_key: PublicKeyText = Field(description="the 32 bytes of an Ed25519 public key in base64")
    plugins: tuple[PluginName, ...] = Field(default=(), max_length=1000, description="empty: it may sign all")


class RevokeIn(Model):
    reason: Line = Field(default="", max_length=500)
    force: Flag = Field(default=False, description="although nodes would not load what serves any more")


class PublisherKeyOut(PublisherKey):
    trusted: bool = Field(description="false: not among HOTSWAP_SIGNATURES__TRUSTED_KEYS, so it counts for nothing")


class EnvironmentDependencies(Model):
    """What a release needs, and what serves of it there now."""

    environment: Environment
    serves: SemVer | None = Field(description="of the plugin itself")
    version: SemVer | None = Field(description="whose needs are drawn: the one asked for, or the one that serves")
    satisfied: bool
    dependencies: tuple[Need, ...]
    problems: tuple[Problem, ...]
    dependents: tuple[str, ...] = Field(description="what serves there and names this plugin as a dependency")


class DependenciesOut(Model):
    plugin_id: PluginName
    environments: tuple[EnvironmentDependencies, ...]


class ValidateIn(Model):
    version: SemVer
    environment: Environment


class DeployStep(Model):
    plugin_id: PluginName
    version: SemVer

    @classmethod
    def of(cls, release: Release) -> "DeployStep":
        return cls(plugin_id=release.plugin, version=release.version)


class ValidateOut(Model):
    """`valid`: a deployment of this version would be let in, as far as dependencies go. `first`: what would make it so."""

    plugin_id: PluginName
    version: SemVer
    environment: Environment
    valid: bool
    problems: tuple[Problem, ...]
    first: tuple[DeployStep, ...]
    suggestion: str
    warnings: tuple[str, ...] = ()
