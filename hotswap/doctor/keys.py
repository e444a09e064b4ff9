"""Check of keys: the signing keys open under the key that is set, and the provider unwraps every tenant's data keys."""

from collections import Counter
from collections.abc import Sequence

from hotswap.doctor.report import Finding, Severity
from hotswap.doctor.site import Site
from hotswap.domain.accounts import SigningKey
from hotswap.domain.errors import Unavailable
from hotswap.domain.tenants import DataKey
from hotswap.identity.key_material import GENERATE, decode_key
from hotswap.identity.sealing import Sealer
from hotswap.identity.tokens import unsealed
from hotswap.keys.ring import wrapped_key
from hotswap.ports.keys import KeyProvider

AT_ONCE = 250
"""Data keys unwrapped by one question to the provider."""


async def signing_keys(site: Site) -> Sequence[Finding]:
    async with site.database.unit_of_work() as uow:
        keys = await uow.signing_keys.list()
    setting = site.settings.auth.key_encryption_key
    if setting is None:
        if site.settings.oidc.issuer and not keys:
            return []  # people come from an identity provider, and tenants by a gateway's token
        return [
            Finding(
                severity=Severity.CRITICAL if keys else Severity.WARNING,
                what="HOTSWAP_AUTH__KEY_ENCRYPTION_KEY is not set here"
                + (f", and {len(keys)} signing keys are sealed under one" if keys else ""),
                why="nobody can log in by password, and no tenant's token can be made; nodes only verify",
                remedy=f"set it on the api (make one: {GENERATE}); where you run the doctor beside a worker, which must "
                "not have it, use --skip signing-keys",
            )
        ]
    sealer = Sealer(decode_key(setting.get_secret_value()))
    shut = [key for key in keys if not _opens(key, sealer)]
    if not shut:
        return []
    return [
        Finding(
            severity=Severity.CRITICAL if len(shut) == len(keys) else Severity.WARNING,
            what=f"{len(shut)} of {len(keys)} signing keys do not open under HOTSWAP_AUTH__KEY_ENCRYPTION_KEY "
            f"(the first: {shut[0].kid})",
            why="with none that opens nobody can log in and no tenant's token can be made",
            remedy="set the key-encryption key they were sealed under, or `hotswap auth rotate-keys` for new ones",
        )
    ]


def _opens(key: SigningKey, sealer: Sealer) -> bool:
    try:
        unsealed(key, sealer)
    except Unavailable:
        return False
    return True


async def key_provider(site: Site) -> Sequence[Finding]:
    provider = site.keys
    if provider is None:
        async with site.database.inspection() as looking:
            if not await looking.secrets_exist():
                return []
        return [
            Finding(
                severity=Severity.CRITICAL,
                what="tenants have secrets, but HOTSWAP_KEYS__PROVIDER is none here",
                why="their plugins get no secrets on a node with these settings",
                remedy="set HOTSWAP_KEYS__* as on the api and the nodes (docs/tenants.md)",
            )
        ]
    lost: Counter[str] = Counter()
    example: dict[str, DataKey] = {}
    after = ""
    while True:
        async with site.database.unit_of_work() as uow:
            page = await uow.data_keys.page(after, AT_ONCE)
        if not page:
            break
        after = page[-1].key_id
        try:
            opened = await _unwrap(provider, page)
        except Unavailable as fault:
            return [
                Finding(
                    severity=Severity.CRITICAL,
                    what=f"the key provider ({site.settings.keys.provider}) unwraps nothing: {fault.message}",
                    why="nodes that start give plugins no secrets; those that run have theirs in memory",
                    remedy="mend what the message names, or correct HOTSWAP_KEYS__*; docs/tenants.md",
                )
            ]
        for key, plain in zip(page, opened, strict=True):
            if plain is None:
                lost[key.wrapped_by] += 1
                example.setdefault(key.wrapped_by, key)
    return [
        Finding(
            severity=Severity.CRITICAL,
            what=f"{count} data keys wrapped by {wrapped_by} cannot be unwrapped (e.g. of tenant {example[wrapped_by].tenant})",
            why="the secrets of these tenants cannot be opened by anybody",
            remedy="give the wrapping key back to the provider (a backup of HotSwap never holds it), then "
            "`hotswap tenant rotate-keys --all`; without it the tenants' secrets must be set anew",
        )
        for wrapped_by, count in sorted(lost.items())
    ]


async def _unwrap(provider: KeyProvider, keys: Sequence[DataKey]) -> Sequence[bytes | None]:
    return await provider.unwrap([wrapped_key(key) for key in keys])
