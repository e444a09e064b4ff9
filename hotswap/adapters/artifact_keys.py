"""What an artifact's key and digest must look like: shared by every ArtifactStore, so that none accepts another's mistake.

Object stores normalise odd keys (SeaweedFS folds `a//b`), so only the form that hotswap.domain.ids.artifact_key makes passes.
"""

import re

from hotswap.domain.errors import ArtifactCorrupt, ArtifactMissing, ArtifactTooLarge, FieldFault, InvalidInput

_UPLOAD = re.compile(r"uploads/[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?/upl_[0-9a-f]{32}\.zip")
_KEY = re.compile(r"artifacts/[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?/([0-9a-f]{64})\.zip")


def check_key(key: str, digest: str | None = None) -> None:
    """Raises InvalidInput when `key` is not `artifacts/{plugin}/{digest}.zip`, or is of another digest."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidInput(
            f"'{key[:120]}' is not an artifact key", [FieldFault("key", "must read artifacts/{plugin}/{sha-256}.zip")]
        )
    if digest is not None and match[1] != digest:
        raise InvalidInput(
            f"the key is of digest {match[1]} but {digest[:64]} is expected",
            [FieldFault("digest", "must be the digest in the key")],
        )


def check_upload_key(key: str) -> None:
    """Raises InvalidInput when `key` is not `uploads/{plugin}/{upload id}.zip`."""
    if _UPLOAD.fullmatch(key) is None:
        raise InvalidInput(
            f"'{key[:120]}' is not an upload key", [FieldFault("key", "must read uploads/{plugin}/upl_{32 hex}.zip")]
        )


def check_any_key(key: str) -> None:
    """Raises InvalidInput for what is neither an artifact's nor an upload's key."""
    if _UPLOAD.fullmatch(key) is None:
        check_key(key)


def never_came(key: str) -> ArtifactMissing:
    return ArtifactMissing(
        f"nothing was uploaded to {key}; send the file to the url you were given, then complete again"
    )


def missing(key: str) -> ArtifactMissing:
    return ArtifactMissing(
        f"the object store has no {key}, though the registry names it; upload the version's artifact again"
    )


def corrupt(what: str, found: str, digest: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(f"{what} has SHA-256 {found}, not {digest}; it is not used")


def too_large(key: str, max_bytes: int) -> ArtifactTooLarge:
    return ArtifactTooLarge(f"{key} is over the limit of {max_bytes} bytes; it is not read further")
