"""`site`: the facade over in-memory twins, see tests/http/site.py."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.http.site import PEOPLE, Site, make_site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = make_site(tmp_path)
    async with AsyncExitStack() as stack:
        transport = httpx.ASGITransport(made.app)
        for user in (*PEOPLE, "nobody"):
            headers = {} if user == "nobody" else {"Authorization": f"Bearer token-of-{user}"}
            client = httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers, timeout=20)
            made.clients[user] = await stack.enter_async_context(client)
        yield made
        made.container.streams.close()
