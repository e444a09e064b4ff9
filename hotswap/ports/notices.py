"""Who is told when something that tenants use changes. Called inside the transaction of the change, so that it cannot be lost.

The facade brings one that writes audit entries (api.services.releases); whoever delivers notifications brings another.
"""

from typing import Protocol

from hotswap.domain.notices import VersionDeprecated
from hotswap.ports.records import UnitOfWork


class Notices(Protocol):
    async def version_deprecated(self, uow: UnitOfWork, notice: VersionDeprecated) -> None:
        """Write down what is to be sent. Raises Unavailable; then the change is undone too."""
        ...
