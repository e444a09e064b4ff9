"""Ed25519 over an artifact's digest: make keys, sign, verify. The only module that touches cryptography for signatures.

Private keys are PKCS#8 PEM files (what `openssl genpkey -algorithm ed25519` writes); public keys and signatures travel as
base64 (hotswap.domain.signatures). Neighbours: hotswap.cli signs, signature_guard and the facade verify.
"""

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from hotswap.domain.errors import FieldFault, InvalidInput
from hotswap.domain.signatures import PublisherKey, Signature, signed_message

MAX_KEY_BYTES = 16 * 1024


def generate(path: Path) -> str:
    """Write a new private key, readable by its owner alone, and return the public one. Raises OSError; never overwrites."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return _text(private.public_key())


def read_private(path: Path) -> Ed25519PrivateKey:
    """Raises OSError, or InvalidInput saying what the file should be."""
    try:
        key = load_pem_private_key(_content(path), password=None)
    except TypeError:
        raise _unusable(path, "is encrypted; decrypt it first: openssl pkey -in KEY -out PLAIN") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable(path, "holds no private key in PEM; make one: hotswap plugin keygen FILE") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "is no Ed25519 key; make one: hotswap plugin keygen FILE")
    return key


def read_public(path: Path) -> str:
    """The public key of a PEM file, public or private, as text. Raises OSError, InvalidInput."""
    content = _content(path)
    if b"PRIVATE KEY" in content:
        return _text(read_private(path).public_key())
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable(path, "holds no key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(path, "is no Ed25519 key")
    return _text(key)


def public_pem(public_key: str) -> str:
    """For openssl and for people. Raises InvalidInput."""
    return _public(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_id_of(public_key: str) -> str:
    """The id of a public key: SHA-256 of its 32 bytes. Raises InvalidInput naming `publicKey`."""
    return hashlib.sha256(_public(public_key).public_bytes_raw()).hexdigest()


def sign(private: Ed25519PrivateKey, digest: str) -> Signature:
    """A signature over an artifact's SHA-256 (64 hex digits)."""
    value = base64.b64encode(private.sign(signed_message(digest))).decode()
    return Signature(key_id=key_id_of(_text(private.public_key())), value=value)


def fits(signature: Signature, key: PublisherKey, digest: str) -> bool:
    """Whether this key made this signature over this digest, and is the key that its id says."""
    if key.key_id != signature.key_id or key_id_of(key.public_key) != key.key_id:
        return False
    try:
        _public(key.public_key).verify(base64.b64decode(signature.value), signed_message(digest))
    except InvalidSignature:
        return False
    return True


def _public(text: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        message = "is not the base64 of 32 bytes of an Ed25519 public key"
        raise InvalidInput(f"publicKey: {message}", [FieldFault("publicKey", message)]) from None


def _text(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_KEY_BYTES)


def _unusable(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{path} {why}", [FieldFault("key", why)])
