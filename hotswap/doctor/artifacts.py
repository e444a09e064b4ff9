"""Check of what is stored: every registered version's zip is there, of its size, and with `deep` of its digest."""

import asyncio
from collections.abc import Sequence

from hotswap.adapters.postgres.inspection import StoredArtifact
from hotswap.doctor.report import Finding, Severity
from hotswap.doctor.site import Site
from hotswap.domain.errors import ArtifactCorrupt, ArtifactMissing, ArtifactTooLarge
from hotswap.domain.ids import artifact_key

AT_ONCE = 4
"""Artifacts read through at the same time: enough to keep a network busy, and 4 x 1 MiB in memory."""


async def artifacts(site: Site) -> Sequence[Finding]:
    async with site.database.inspection() as looking:
        registered = await looking.artifacts()
    stored = await site.bucket.sizes()
    findings: list[Finding] = []
    sound: list[StoredArtifact] = []
    for one in registered:
        size = stored.get(one.key)
        if one.key != artifact_key(one.plugin, one.digest):
            findings.append(_bad(one, f"is registered under {one.key[:120]}, which is not the key of its digest"))
        elif size is None:
            findings.append(_bad(one, "has no artifact in the object store"))
        elif size != one.size_bytes:
            findings.append(_bad(one, f"has {size} bytes in the object store, not {one.size_bytes}"))
        else:
            sound.append(one)
    if site.deep:
        findings += await _read_through(site, sound)
    orphans = stored.keys() - {one.key for one in registered}
    if orphans:
        findings.append(
            Finding(
                severity=Severity.NOTE,
                what=f"{len(orphans)} objects under artifacts/ belong to no registered version (e.g. {min(orphans)})",
                why="an upload that broke off leaves one; they cost storage, nothing else",
                remedy="none needed; when the registry was restored from a backup, upload their versions again",
            )
        )
    return findings


async def _read_through(site: Site, registered: Sequence[StoredArtifact]) -> list[Finding]:
    places = asyncio.Semaphore(AT_ONCE)

    async def read(one: StoredArtifact) -> Finding | None:
        async with places:
            try:
                await site.artifacts.verify(one.key, one.digest, one.size_bytes)
            except (ArtifactCorrupt, ArtifactMissing, ArtifactTooLarge) as fault:
                return _bad(one, f"is damaged in the object store: {fault.message}")
        return None

    return [finding for finding in await asyncio.gather(*(read(one) for one in registered)) if finding is not None]


def _bad(one: StoredArtifact, what: str) -> Finding:
    used = f"{one.used_by} needs it: a node that starts cannot load it" if one.used_by else "it cannot be deployed"
    return Finding(
        severity=Severity.CRITICAL if one.used_by else Severity.WARNING,
        what=f"{one.plugin} {one.version} ({one.status}) {what}",
        why=f"{used}; digests are compared at every load, so wrong bytes never run",
        remedy=f"upload the same zip (SHA-256 {one.digest}) again: `hotswap plugin push`; or take it from a backup "
        "(docs/backup.md) or from the bucket's older versions",
    )
