"""Tries a version before any traffic: unpack, load in a sandboxed host, smoke-test, report. Implements TrialRunner.

Neighbours: hotswap.runtime.bundle unpacks, launcher makes the host, smoke runs the tests, activities.trial asks for it.
"""

import asyncio
import contextlib
import logging
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import ParamSpec, TypeVar

from packaging.specifiers import SpecifierSet

from hotswap.config import SandboxSettings
from hotswap.domain.base import bounded
from hotswap.domain.errors import HostFailed, PluginError
from hotswap.domain.manifest import Manifest
from hotswap.ports.hosts import HostSpec
from hotswap.ports.sandbox import SmokeResult, TrialReport
from hotswap.runtime.bundle import unpack
from hotswap.runtime.caps import above
from hotswap.runtime.egress import EgressPolicy
from hotswap.runtime.handle import ZygoteHost
from hotswap.runtime.launcher import ZygoteLauncher
from hotswap.runtime.smoke import run_smoke_test, schema_check_by

logger = logging.getLogger(__name__)

_TENANT = "trial"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Findings:
    """What a trial has found so far, so that a report can be made however it ends."""

    load_ms: float = 0.0
    peak_memory_bytes: int = 0
    smoke: list[SmokeResult] = field(default_factory=list)
    limit: str = ""
    detail: str = ""

    def failed(self, detail: str, limit: str = "") -> None:
        """The first fault is the one that counts."""
        self.detail = self.detail or detail
        self.limit = self.limit or limit


class SandboxTrialRunner:
    """Runs up to `settings.max_instances` trials at once, each in a process and a directory of its own.

    Belongs to one event loop. `close` ends the zygote behind it; the zygote starts with the first trial.
    """

    def __init__(self, settings: SandboxSettings, work_dir: Path) -> None:
        self._settings = settings
        self._work_dir = work_dir
        self._launcher = ZygoteLauncher(
            settings.tier, settings.max_memory_mb, egress=EgressPolicy.of(settings), preload=settings.preload
        )
        self._places = asyncio.Semaphore(settings.max_instances)

    async def close(self) -> None:
        await self._launcher.close()

    async def run_trial(self, archive: Path, timeout: timedelta) -> TrialReport:
        limit = min(timeout, self._settings.timeout)
        async with self._places:
            started = perf_counter()
            await self._launcher.start()  # SandboxUnavailable is no fault of the plugin's
            async with self._scratch() as scratch:
                manifest = await _in_thread(unpack, archive, scratch / "bundle")
                findings = _Findings()
                try:
                    async with asyncio.timeout(max(0.0, limit.total_seconds() - (perf_counter() - started))):
                        await self._try(manifest, scratch / "bundle", limit, findings)
                except TimeoutError:
                    findings.failed(f"the trial took longer than {limit.total_seconds():g} s", "TIMEOUT")
            return TrialReport(
                passed=not findings.detail,
                sandbox_tier=self._launcher.sandbox_tier,
                load_ms=findings.load_ms,
                duration_ms=(perf_counter() - started) * 1000,
                peak_memory_bytes=findings.peak_memory_bytes,
                smoke_tests=tuple(findings.smoke),
                limit=findings.limit,
                detail=bounded(findings.detail),
            )

    @contextlib.asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Path]:
        self._work_dir.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="sandbox-", dir=self._work_dir.resolve()))
        try:
            yield scratch
        finally:
            await _in_thread(_remove, scratch)

    async def _try(self, manifest: Manifest, bundle: Path, limit: timedelta, findings: _Findings) -> None:
        python = platform.python_version()
        if not SpecifierSet(manifest.requires_python).contains(python, prereleases=True):
            findings.failed(
                f"requires-python {manifest.requires_python} excludes this node's Python {python}", "LOAD_FAILED"
            )
            return
        if over := above(manifest.resources, self._settings):
            findings.failed("; ".join(f"{fault.field} {fault.message}" for fault in over), "LOAD_FAILED")
            return
        spec = HostSpec.of(manifest, bundle, load_timeout=limit)
        try:
            host = await self._launcher.launch(spec, cpu_seconds=manifest.resources.cpu_seconds)
        except HostFailed as fault:
            findings.failed(fault.message, fault.limit)
            return
        try:
            findings.load_ms = host.load_ms
            await self._exercise(host, manifest, limit, findings)
        finally:
            findings.peak_memory_bytes = host.peak_memory_bytes()
            if host.output_limited:
                findings.limit = findings.limit or "OUTPUT_LIMIT"
            await asyncio.shield(host.close())

    async def _exercise(self, host: ZygoteHost, manifest: Manifest, limit: timedelta, findings: _Findings) -> None:
        try:
            await host.ping(limit)
        except (HostFailed, PluginError) as fault:
            findings.failed(f"its first probe failed: {fault.message}", getattr(fault, "limit", ""))
            return
        for test in manifest.smoke_tests:
            begun = perf_counter()
            found = await run_smoke_test(host, test, _TENANT, limit, schema_check_by(self._launcher))
            milliseconds = (perf_counter() - begun) * 1000
            why = found.why
            findings.limit = findings.limit or found.limit
            findings.smoke.append(
                SmokeResult(method=test.method, passed=not why, duration_ms=milliseconds, detail=bounded(why))
            )
            if why:
                findings.failed(f"smoke test of '{test.method}': {why}")
            if not host.alive:
                return


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, but a cancelled caller waits for the thread: it must not write into what is being removed."""
    work = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        work.exception()  # the cancellation goes before whatever the thread says
        raise asyncio.CancelledError
    return work.result()


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except OSError as fault:
        logger.warning("the trial's directory %s is left behind: %s; remove it by hand", directory, fault)
