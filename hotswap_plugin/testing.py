"""Runs a plugin on its author's machine as nodes run it: the same build, host process and sandbox. For tests of one's own.

    from hotswap_plugin.testing import run_plugin

    def test_greeting() -> None:
        with run_plugin("my-plugin", config={"greeting": "Hello"}) as plugin:
            assert plugin.call("greet", {"name": "Ada"}) == {"greeting": "Hello, Ada!"}

Needs the package `hotswap` (which brings this one) and Linux; everything else here is the standard library's. Not for use
in a host. Neighbour: hotswap.runtime.workbench does the work, `hotswap plugin test` is the same without a test file.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from hotswap.domain.errors import HostFailed, PluginError
from hotswap.runtime.workbench import TENANT, Given, Workbench, open_workbench

__all__ = ["HostFailed", "PluginClient", "PluginError", "run_plugin"]

T = TypeVar("T")


class PluginClient:
    """Calls one live plugin. Any thread may use it."""

    def __init__(self, bench: Workbench, loop: asyncio.AbstractEventLoop) -> None:
        self._bench = bench
        self._loop = loop

    @property
    def sandbox_tier(self) -> str:
        return self._bench.host.sandbox_tier

    def call(
        self, method: str, parameters: Mapping[str, Any] | None = None, *, tenant: str = TENANT, timeout: float = 30.0
    ) -> Any:
        """The method's result. Raises PluginError (its `kind` is the exception's class) and HostFailed (its `limit`)."""
        return self._run(self._bench.call(method, parameters or {}, tenant, timedelta(seconds=timeout)))

    def check_health(self, timeout: float = 5.0) -> None:
        """Probe it. Raises PluginError or HostFailed when it is not well."""
        self._run(self._bench.host.ping(timedelta(seconds=timeout)))

    def configure(self, config: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None) -> None:
        """Give it another configuration and other secrets, from the next call on, as an operator would."""

        async def put() -> None:
            self._bench.configure(config, secrets)

        self._run(put())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def run_plugin(
    source: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    tier: Literal["strong", "standard", "none"] = "standard",
) -> Iterator[PluginClient]:
    """Build the plugin's folder (or take its zip), start it, give a client; end it afterwards.

    `secrets` need secrets.read in requiredPermissions. `tier` "none" runs without a sandbox, where there is none: code you
    trust only. Raises HotSwapError of hotswap.domain.errors saying what is wrong with the plugin or this machine.
    """
    loop = asyncio.new_event_loop()
    # Hosts live as long as the thread that started their zygote, so all of it happens in one.
    thread = threading.Thread(target=loop.run_forever, name="run_plugin", daemon=True)
    thread.start()
    stack = AsyncExitStack()
    try:
        given = Given(tier=tier, config=config, secrets=secrets)
        opening = stack.enter_async_context(open_workbench(Path(source), given))
        bench = asyncio.run_coroutine_threadsafe(opening, loop).result()
        yield PluginClient(bench, loop)
    finally:
        asyncio.run_coroutine_threadsafe(_end(stack), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(stack: AsyncExitStack) -> None:
    await stack.aclose()
    await asyncio.get_running_loop().shutdown_default_executor()
