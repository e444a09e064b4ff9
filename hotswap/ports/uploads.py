"""Uploads that were promised a place in the object store: the store behind `UnitOfWork.uploads`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from hotswap.domain.uploads import PendingUpload


class PendingUploadStore(Protocol):
    async def open(self, upload: PendingUpload) -> None:
        """Raises Conflict when the id is taken."""
        ...

    async def get(self, upload_id: str) -> PendingUpload:
        """Raises NotFound."""
        ...

    async def complete(self, upload_id: str, at: datetime) -> None:
        """Note that it was judged and registered; a repeat keeps the first instant. Raises NotFound."""
        ...

    async def over(self, before: datetime, limit: int) -> Sequence[PendingUpload]:
        """Those that expired before this instant, oldest first."""
        ...

    async def remove(self, upload_id: str) -> None:
        """Unknown ids are fine."""
        ...
