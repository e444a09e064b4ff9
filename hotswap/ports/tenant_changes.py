"""Word that tenants' rows have changed, so that a node looks at once: hotswap.adapters.postgres.tenant_changes."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class TenantChanges(Protocol):
    def listen(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Entered once the server will tell: what is committed afterwards is heard. Ends, or raises Unavailable, when the
        connection is lost. Many changes may be told of as one. Never truth: the reconcile beat finds what was not heard.
        """
        ...
