"""Follows a page: runs its commands in bash against a live system, as the person on call would, and holds it to its word."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.e2e.live import Live
from tests.runbooks.page import ROOT, Block, Command, Page

PATIENCE = 120.0
"""Seconds for one command, and for what must become true: a busy machine's, not the product's."""

StandIn = Callable[[], Awaitable[object]]


class Reader:
    """Somebody with a shell, the page's variables, and hands for what is done elsewhere."""

    def __init__(self, live: Live, page: Page, folder: Path, variables: Mapping[str, str]) -> None:
        self._page = page
        self.folder = folder
        self._kept = folder / "variables"
        self._beside: list[asyncio.subprocess.Process] = []
        info = live.stack.info
        own = {
            "HOTSWAP_URL": str(info["apiUrl"]),
            "HOTSWAP_TOKEN": next(one["token"] for one in info["users"] if one["user"] == "admin"),
            "TEMPORAL_ADDRESS": str(info["temporalAddress"]),
            "TEMPORAL_NAMESPACE": str(info["namespace"]),
            "NODE_URL": str(info["nodes"][0]["routerUrl"]),
            "NODE_ADMIN_URL": str(info["nodes"][0]["adminUrl"]),
            "TENANT_TOKEN": str(info["tenantToken"]),
            **variables,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HOTSWAP_", "TEMPORAL"))}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
        self._environment = inherited | {"PATH": programs, "TERM": "dumb", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        self._kept.write_text("".join(f"export {name}={shlex.quote(text)}\n" for name, text in own.items()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for process in self._beside:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def follow(self, *sections: str, **stand_ins: StandIn) -> None:
        """Do what these sections say. Fails with what was printed when a command does not keep its promise."""
        for block in self._page.of(*sections):
            if block.kind == "elsewhere":
                assert block.name in stand_ins, f"{self._page.name}: nobody does '{block.name}' here"
                await stand_ins[block.name]()
                continue
            for command in block.commands:
                await self._carry_out(block, command)

    async def _carry_out(self, block: Block, command: Command) -> None:
        if block.kind == "beside":
            self._beside.append(await self._start(command.text, asyncio.subprocess.DEVNULL))
            return
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            code, printed = await self._run(command.text)
            if code == command.exit_code and command.says in printed:
                return
            told = f"{self._page.name}, {block.section}: {command.text}\nended with {code}, said:\n{printed}"
            assert block.kind == "over", f"{told}\npromised: exit code {command.exit_code}, {command.says!r}"
            assert asyncio.get_running_loop().time() < deadline, f"not over after {PATIENCE:.0f} s: {told}"
            await asyncio.sleep(0.2)

    async def _run(self, text: str) -> tuple[int, str]:
        """A command that sets a variable sets it for those that follow."""
        kept = shlex.quote(str(self._kept))
        process = await self._start(
            f"{text}\nended=$?\nexport -p > {kept}\nexit $ended",
            asyncio.subprocess.PIPE,
            f"set -a -o pipefail; . {kept}",
        )
        try:
            async with asyncio.timeout(PATIENCE):
                printed, _ = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode is not None
        return process.returncode, printed.decode("utf-8", "replace")

    async def _start(self, text: str, output: int, before: str = "") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", f"{before or f'. {shlex.quote(str(self._kept))}'}\n{text}"),
            cwd=self.folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
