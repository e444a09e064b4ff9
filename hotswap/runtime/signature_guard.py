"""Decides at every deployment and every load whether an artifact is vouched for (hotswap.ports.signatures.SignatureGuard).

It asks the registry for the signature and the key each time, so that a signature added later and a key revoked now both
count at the next load. The environments that require one refuse everything else; everywhere a signature that does not fit
its bytes is refused, since somebody changed something. Neighbours: signing verifies, hotswap.node.bundles and activities ask.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from hotswap.config import SignatureSettings
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import FieldFault, NotFound, SignatureRefused, Unavailable
from hotswap.domain.routes import ArtifactRef
from hotswap.domain.signatures import PublisherKey, Signature
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from hotswap.runtime.signing import fits

log = logging.getLogger(__name__)

REMEMBERED = 1_000
"""Versions whose signature is remembered for when PostgreSQL is away: more than a node holds."""


@dataclass(frozen=True, slots=True)
class Vouching:
    """What the registry says of one artifact: its signature and the key, as far as there are any."""

    signature: Signature | None
    key: PublisherKey | None


class RegistrySignatureGuard:
    """`trusted_keys` pins key ids: then a key that only the database knows counts for nothing."""

    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        required_in: Collection[Environment] = (),
        trusted_keys: Collection[str] = (),
    ) -> None:
        self._unit_of_work = unit_of_work
        self._required_in = frozenset(required_in)
        self._trusted = frozenset(trusted_keys)
        self._seen: dict[ArtifactRef, Vouching] = {}
        self._fitting: set[ArtifactRef] = set()

    async def check(self, ref: ArtifactRef, environment: Environment | None) -> None:
        if ref in self._fitting and environment not in self._required_in:
            return  # bytes and signature do not change, and nobody asks for more: a restart of a host need not wait
        try:
            vouching = await self._vouching(ref)
        except Unavailable:
            if environment is not None and environment not in self._required_in:
                return  # an unsigned version would do here too: PostgreSQL away must keep nothing from serving
            raise
        self.judge(ref, vouching, environment)
        self._fitting.add(ref)

    def judge(self, ref: ArtifactRef, vouching: Vouching, environment: Environment | None) -> None:
        """Raises SignatureRefused. The facade calls it with what an upload brings."""
        name = f"{ref.plugin} {ref.version}"
        signature, key = vouching.signature, vouching.key
        if signature is not None and key is not None and not fits(signature, key, ref.digest):
            message = f"the signature of {name} by {key.publisher} does not fit its bytes (sha256 {ref.digest})"
            raise SignatureRefused(f"{message}; it is not used", [FieldFault("signature", message)])
        why = self.why_not(ref.plugin, vouching)
        if why and environment in self._required_in:
            message = f"{name} {why}, and {environment} takes signed versions only"
            remedy = "sign it: hotswap plugin sign, with a key that an Admin has registered"
            raise SignatureRefused(f"{message}; {remedy}", [FieldFault("version", f"{message}; {remedy}")])

    def why_not(self, plugin: str, vouching: Vouching) -> str:
        """Why a signature counts for nothing here; "" when it counts."""
        signature, key = vouching.signature, vouching.key
        if signature is None:
            return "carries no signature"
        if key is None:
            return f"is signed with the key {signature.key_id}, which is not registered"
        if self._trusted and key.key_id not in self._trusted:
            return f"is signed with the key {key.key_id}, which is not among HOTSWAP_SIGNATURES__TRUSTED_KEYS"
        why = key.why_not_for(plugin)
        return f"is signed with the key {key.key_id}, which {why}" if why else ""

    async def _vouching(self, ref: ArtifactRef) -> Vouching:
        try:
            async with self._unit_of_work() as uow:
                found = await vouching_of(uow, ref)
        except Unavailable:
            remembered = self._seen.get(ref)
            if remembered is None:
                raise
            log.info("PostgreSQL is away: %s %s is judged by what was known of it", ref.plugin, ref.version)
            return remembered
        if len(self._seen) >= REMEMBERED:
            forgotten = next(iter(self._seen))
            del self._seen[forgotten]
            self._fitting.discard(forgotten)
        self._seen[ref] = found
        return found


async def vouching_of(uow: UnitOfWork, ref: ArtifactRef) -> Vouching:
    """A version that is not registered carries no signature."""
    try:
        signature = (await uow.versions.get(ref.plugin, ref.version)).signature
    except NotFound:
        signature = None
    return Vouching(signature, await key_of(uow, signature))


async def key_of(uow: UnitOfWork, signature: Signature | None) -> PublisherKey | None:
    if signature is None:
        return None
    try:
        return await uow.publisher_keys.get(signature.key_id)
    except NotFound:
        return None


def guard_of(settings: SignatureSettings, unit_of_work: UnitOfWorkFactory) -> RegistrySignatureGuard:
    return RegistrySignatureGuard(unit_of_work, settings.required_in, settings.trusted_keys)
