"""The fixture `live`: one whole live system with three nodes for a worker's end-to-end and browser tests.

Offered by tests.conftest; stack.scheduling keeps those tests on one xdist worker, as they kill parts of it.
"""

from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.live import Live


@pytest.fixture(scope="session")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator["Live"]:
    from hotswap.domain.deployment import Environment
    from hotswap.embedded.stack import EmbeddedStack
    from tests.e2e.live import Live, live_settings
    from tests.stack.otlp import OtlpReceiver

    scratch = tmp_path_factory.mktemp("live")
    stack = EmbeddedStack(scratch / "stack", nodes=3, environment=Environment.DEVELOPMENT)
    with OtlpReceiver() as spans:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in spans.environment().items():
                patch.setenv(name, value)
            await stack.start()
        with pytest.MonkeyPatch.context() as patch:
            settings = live_settings(stack, patch.setenv)
        try:
            async with Live(stack, scratch, settings, spans) as system:
                yield system
        finally:
            await stack.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A failed test of the live system says which of its parts have died so far, and how they came back."""
    report = yield
    system = getattr(item, "funcargs", {}).get("live")
    if report.failed and system is not None:
        died = "\n".join(str(restart) for restart in system.stack.restart_events) or "none"
        report.sections.append(("parts of the live system that died", died))
    return report
