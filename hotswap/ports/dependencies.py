"""What serves where with what it needs: the facts of dependency checks, behind `UnitOfWork.dependencies`."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from hotswap.dependencies.models import Release
from hotswap.domain.base import Model
from hotswap.domain.lifecycle import VersionStatus


class KnownRelease(Model):
    """A registered version, as far as dependencies care."""

    release: Release
    status: VersionStatus


class DependencyStore(Protocol):
    async def serving(self, environment: str) -> dict[str, list[Release]]:
        """By plugin what has tenants: the stable version, then a candidate with a share of them. One query."""
        ...

    async def releases(self, plugins: Iterable[str]) -> Sequence[KnownRelease]:
        """Every registered version of these plugins, by plugin, newest first. Unknown plugins have none."""
        ...

    async def lock(self, environment: str, release: Release) -> None:
        """Until this unit ends, hold up others that lock a release which is tied to this one, in either direction.

        What `serving` tells afterwards stays true of those until then. Others are not held up.
        """
        ...
