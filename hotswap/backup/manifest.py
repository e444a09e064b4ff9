"""What a backup holds, and whether it still does: manifest.json, written last, with the SHA-256 of everything. No server.

DIR/manifest.json                            this model; a directory without one is no backup
DIR/postgres/{table}.copy.gz                 PostgreSQL's COPY in text form
DIR/objects/artifacts/{plugin}/{digest}.zip  as in the object store
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from hotswap.domain.base import Digest, Instant, Model
from hotswap.domain.errors import InvalidInput

FORMAT = 1
MANIFEST = "manifest.json"
TABLES = "postgres"
OBJECTS = "objects"
_CHUNK = 1024 * 1024


class TableFile(Model):
    name: str = Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    columns: tuple[str, ...]
    rows: int = Field(ge=0)
    sha256: Digest = Field(description="of the compressed file")

    @property
    def path(self) -> str:
        return f"{TABLES}/{self.name}.copy.gz"


class Sequence(Model):
    name: str
    last_value: int
    is_called: bool


class ObjectFile(Model):
    key: str = Field(pattern=r"^artifacts/[a-z0-9-]{1,63}/[0-9a-f]{64}\.zip$")
    sha256: Digest
    size_bytes: int = Field(ge=1)

    @property
    def path(self) -> str:
        return f"{OBJECTS}/{self.key}"


class NeededKeys(Model):
    """Ids of keys without which what is sealed stays shut. The keys themselves are never in a backup."""

    key_encryption: tuple[str, ...] = Field(default=(), description="HOTSWAP_AUTH__KEY_ENCRYPTION_KEY")
    wrapping: tuple[str, ...] = Field(default=(), description="of the key provider, HOTSWAP_KEYS__...")


class Manifest(Model):
    format: int = FORMAT
    taken_at: Instant = Field(description="by PostgreSQL's clock; everything is as of then")
    hotswap: str = Field(description="version of the release that made it")
    schema_revision: str
    postgres: int = Field(description="major version of the server")
    tables: tuple[TableFile, ...] = Field(description="in an order in which they can be filled")
    sequences: tuple[Sequence, ...] = ()
    objects: tuple[ObjectFile, ...] = ()
    gone: tuple[str, ...] = Field(default=(), description="keys that retention took away while the backup was made")
    damaged: tuple[str, ...] = Field(default=(), description="keys that the object store did not have, or not right")
    needed_keys: NeededKeys = NeededKeys()

    def write(self, directory: Path) -> None:
        """Last of all: a backup that broke off has no manifest."""
        part = directory / f".{MANIFEST}.part"
        part.write_text(self.model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8")
        part.replace(directory / MANIFEST)


def read_manifest(directory: Path) -> Manifest:
    """Raises InvalidInput: no backup, of a later format, or not readable."""
    path = directory / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.get("format") != FORMAT:
            raise InvalidInput(
                f"{path} is of format {document.get('format')}, this release reads {FORMAT}: restore it with the release "
                "that made it"
            )
        return Manifest.model_validate(document)
    except OSError as fault:
        raise InvalidInput(
            f"{directory} is no whole backup: {MANIFEST} cannot be read ({fault.strerror}); it is written last, so one "
            "that broke off has none"
        ) from None
    except ValidationError as fault:
        first = fault.errors()[0]
        raise InvalidInput(f"{path} is damaged: {first['loc']}: {first['msg']}") from None
    except ValueError as fault:
        raise InvalidInput(f"{path} is damaged: {fault}") from None


def faults_of(directory: Path, manifest: Manifest) -> Iterator[str]:
    """Every file that is missing or has other bytes than were written. Reads everything once."""
    for table in manifest.tables:
        yield from _fault(directory / table.path, table.sha256)
    for one in manifest.objects:
        yield from _fault(directory / one.path, one.sha256)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fault(path: Path, sha256: str) -> Iterator[str]:
    try:
        found = sha256_of(path)
    except OSError as fault:
        yield f"{path}: {fault.strerror}"
        return
    if found != sha256:
        yield f"{path}: has SHA-256 {found}, not {sha256}"
