"""Real pages in a real browser: `page` is a fresh tab that can reach this machine only; `live` the system behind it.

    page      playwright Page (async), its own profile, 1600 x 1000; what it asked elsewhere is refused and listed
    live      tests.e2e.live.Live, shared with the end-to-end tests

Every test here is marked `browser`.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Route, async_playwright, expect

from tests.browser.chromium import FLAGS, find_chromium

PATIENCE = 60_000
"""Milliseconds that a page may take to show something: a busy machine is slow, not wrong."""

expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS), timeout=PATIENCE)
        yield opened
        await opened.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(PATIENCE)
    await context.route("**/*", _this_machine_only)
    yield await context.new_page()
    await context.close()


async def _this_machine_only(route: Route) -> None:
    if urlsplit(route.request.url).hostname in ("127.0.0.1", "localhost", None):
        await route.continue_()
    else:
        await route.abort()
