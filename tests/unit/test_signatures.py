"""Signatures: made and verified by us and by openssl, and every way in which one must not count."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hotswap.adapters.memory.records import MemoryRecords
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import InvalidInput, SignatureRefused, Unavailable
from hotswap.domain.registry import PluginVersion
from hotswap.domain.signatures import PublisherKey, Signature, signed_message
from hotswap.runtime import signing
from hotswap.runtime.signature_guard import RegistrySignatureGuard
from tests.contract.factories import make_plugin, make_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PRODUCTION, QA = Environment.PRODUCTION, Environment.QA


class Publisher:
    def __init__(self, folder: Path, name: str = "acme", **more: Any) -> None:
        self.path = folder / f"{name}.pem"
        public = signing.generate(self.path)
        self.private = signing.read_private(self.path)
        self.key = PublisherKey(
            key_id=signing.key_id_of(public),
            publisher=name,
            public_key=public,
            registered_by="admin",
            registered_at=NOW,
            **more,
        )

    def sign(self, digest: str) -> Signature:
        return signing.sign(self.private, digest)


async def registry(*keys: PublisherKey, version: PluginVersion) -> MemoryRecords:
    records = MemoryRecords()
    async with records.unit_of_work() as uow:
        await uow.plugins.add(make_plugin(version.plugin))
        await uow.versions.add(version)
        for key in keys:
            await uow.publisher_keys.add(key)
        await uow.commit()
    return records


def test_a_signature_fits_its_digest_and_its_key_alone(tmp_path: Path) -> None:
    one, other = Publisher(tmp_path), Publisher(tmp_path, "other")
    signature = one.sign("a" * 64)
    assert signing.fits(signature, one.key, "a" * 64)
    assert not signing.fits(signature, one.key, "b" * 64)
    assert not signing.fits(signature, other.key, "a" * 64)
    # a registry in which somebody put his own public key under a trusted id
    forged = one.key.model_copy(update={"public_key": other.key.public_key})
    assert not signing.fits(signature.model_copy(update={"value": other.sign("a" * 64).value}), forged, "a" * 64)
    # the bare digest, signed for something else, is no signature here
    bare = base64.b64encode(one.private.sign(b"a" * 64)).decode()
    assert not signing.fits(signature.model_copy(update={"value": bare}), one.key, "a" * 64)


OPENSSL_KEY = "MC4CAQAwBQYDK2VwBCIEIAHTXpR0EtRbFL4/dTOj8Ln5uwgc/Q5lguSmO7xiUraB"
OPENSSL_SIGNATURE = "ep+wTV0AIlbPincGL3MYLDOAgmpj3wsU3tCXxIVGnHn/E9rD2W0BL0JhFNKRgB0EuiwQd7M6RGCZNyjoy/KkBQ=="


def test_what_openssl_made_and_signed_counts(tmp_path: Path) -> None:
    """Recorded: openssl genpkey -algorithm ed25519; pkeyutl -sign -rawin over hotswap:artifact:v1:sha256:cccc..."""
    private = tmp_path / "key.pem"
    kind = "PRIVATE KEY"
    private.write_text(f"-----BEGIN {kind}-----\n{OPENSSL_KEY}\n-----END {kind}-----\n")
    assert signed_message("c" * 64) == b"hotswap:artifact:v1:sha256:" + b"c" * 64
    public = signing.read_public(private)
    signature = signing.sign(signing.read_private(private), "c" * 64)
    assert signature == Signature(key_id=signing.key_id_of(public), value=OPENSSL_SIGNATURE)
    (tmp_path / "public.pem").write_text(signing.public_pem(public))
    assert signing.read_public(tmp_path / "public.pem") == public


def test_a_private_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    signing.generate(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        signing.generate(path)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="holds no"):
        signing.read_private(path)
    with pytest.raises(InvalidInput, match="holds no"):
        signing.read_public(path)
    with pytest.raises(InvalidInput, match="publicKey"):
        signing.key_id_of("A" * 40)


async def test_only_a_signature_that_counts_opens_an_environment_that_asks_for_one(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    plain = make_version("billing")
    signed = plain.model_copy(update={"signature": publisher.sign(plain.digest)})
    of_tax = publisher.key.model_copy(update={"plugins": ("tax",)})
    revoked = publisher.key.model_copy(update={"revoked_by": "admin", "revoked_at": NOW, "revoke_reason": "leaked"})
    cases = (
        (signed, (publisher.key,), (), ""),
        (signed, (publisher.key,), (publisher.key.key_id,), ""),
        (plain, (publisher.key,), (), "carries no signature"),
        (signed, (), (), "is not registered"),
        (signed, (of_tax,), (), "may sign tax only"),
        (signed, (revoked,), (), "was revoked by admin (leaked)"),
        (signed, (publisher.key,), ("0" * 64,), "HOTSWAP_SIGNATURES__TRUSTED_KEYS"),
    )
    for version, keys, trusted, refusal in cases:
        records = await registry(*keys, version=version)
        guard = RegistrySignatureGuard(records.unit_of_work, [PRODUCTION], trusted)
        await guard.check(version.ref, QA)
        await guard.check(version.ref, None)
        if not refusal:
            await guard.check(version.ref, PRODUCTION)
            continue
        with pytest.raises(SignatureRefused) as caught:
            await guard.check(version.ref, PRODUCTION)
        assert refusal in caught.value.message
        assert "Production takes signed versions only" in caught.value.message


async def test_a_signature_that_does_not_fit_is_refused_everywhere(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    wrong = make_version("billing", signature=publisher.sign("f" * 64))
    guard = RegistrySignatureGuard((await registry(publisher.key, version=wrong)).unit_of_work)
    for environment in (None, QA, PRODUCTION):
        with pytest.raises(SignatureRefused, match="does not fit its bytes"):
            await guard.check(wrong.ref, environment)
    # signed rightly, but the node was told to load other bytes under the same name
    right = make_version("billing")
    signed = right.model_copy(update={"signature": publisher.sign(right.digest)})
    guard = RegistrySignatureGuard((await registry(publisher.key, version=signed)).unit_of_work, [PRODUCTION])
    with pytest.raises(SignatureRefused, match="does not fit"):
        await guard.check(signed.ref.model_copy(update={"digest": "e" * 64}), PRODUCTION)


async def test_while_the_registry_is_away_what_was_known_still_counts(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    plain = make_version("billing")
    signed = plain.model_copy(update={"signature": publisher.sign(plain.digest)})
    records = await registry(publisher.key, version=signed)
    guard, fresh = (RegistrySignatureGuard(records.unit_of_work, [PRODUCTION]) for _ in range(2))
    await guard.check(signed.ref, PRODUCTION)
    records.away = True
    await guard.check(signed.ref, PRODUCTION)
    await fresh.check(signed.ref, QA)
    with pytest.raises(Unavailable):
        await fresh.check(signed.ref, PRODUCTION)
    records.away = False
    async with records.unit_of_work() as uow:
        await uow.publisher_keys.revoke(publisher.key.key_id, "admin", "leaked", NOW)
        await uow.commit()
    with pytest.raises(SignatureRefused, match="revoked"):
        await guard.check(signed.ref, PRODUCTION)


async def test_an_unregistered_version_is_an_unsigned_one() -> None:
    records = await registry(version=make_version("billing"))
    ref = make_version("billing", "9.9.9").ref
    await RegistrySignatureGuard(records.unit_of_work).check(ref, PRODUCTION)
    with pytest.raises(SignatureRefused, match="carries no signature"):
        await RegistrySignatureGuard(records.unit_of_work, [PRODUCTION]).check(ref, PRODUCTION)
