"""How long the facade waits for the object store while a client waits for the facade.

The store's adapter gives up on one that is silent; this bounds one that is slow, or that many are waiting for, below what
clients wait for us: so that they hear what is wrong and not merely that nothing came.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hotswap.domain.errors import Unavailable

PATIENCE_SECONDS = 25.0
"""Less than the 30 s after which `hotswap` and many a proxy give up on an answer."""

LEAST_BYTES_PER_SECOND = 4 * 1024 * 1024
"""What a store must do at least beyond that: large artifacts may take longer."""


@asynccontextmanager
async def store_patience(doing: str, size_bytes: int) -> AsyncIterator[None]:
    """Bounds what is done within. Raises Unavailable (a repeat helps) naming the store; `doing` ends "the object store did not"."""
    seconds = PATIENCE_SECONDS + size_bytes / LEAST_BYTES_PER_SECOND
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable(
            f"the object store did not {doing} within {seconds:.0f} s, so nothing was done; look at it (GET /ready and "
            "`hotswap doctor` say how it is), then send the same again"
        ) from None
