"""Makes plugin hosts by way of a zygote. Implements hotswap.ports.hosts.HostLauncher; composition roots build it.

Neighbours: zygote_link (the zygote process), handle (one host). Works on uvloop and on plain asyncio. When the zygote
dies, its hosts die with it and say so through `on_exit`; the next launch starts another.
"""

import asyncio
import contextlib
import fcntl
import logging
import mmap
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from time import perf_counter

from hotswap.domain.errors import HostFailed, SandboxUnavailable
from hotswap.domain.permissions import SECRETS_READ, NetworkGrant, network_grants
from hotswap.ports.hosts import HostSpec
from hotswap.ports.tenant_settings import TenantSettingsProvider
from hotswap.runtime import protocol
from hotswap.runtime.egress import EgressGate, EgressPolicy
from hotswap.runtime.handle import SpareLines, ZygoteHost
from hotswap.runtime.host import Assignment
from hotswap.runtime.masking import SecretMask
from hotswap.runtime.output import PluginOutput
from hotswap.runtime.sandbox import Tier
from hotswap.runtime.tenant_ledger import TenantLedger
from hotswap.runtime.zygote_link import ZygoteLink

logger = logging.getLogger(__name__)

MIB = 1024 * 1024


class ZygoteLauncher:
    """Belongs to the event loop (and thread) of its first use. `max_memory_mb` caps what a manifest may ask for."""

    def __init__(
        self,
        tier: Tier,
        max_memory_mb: int,
        *,
        close_grace: timedelta = timedelta(seconds=1),
        tenants: TenantSettingsProvider | None = None,
        egress: EgressPolicy | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        """close_grace: how long a closed host may take for its `close` hook before it is killed.

        tenants: whose configuration and secrets its hosts are given; None = every tenant has the manifest's defaults.
        egress: what holds for connections of hosts whose manifest grants some; None = public addresses alone.
        preload: modules that every host has imported already (hotswap.runtime.preload).
        """
        self._tier = tier
        self._max_memory_mb = max_memory_mb
        self._close_grace = close_grace.total_seconds()
        self._tenants = tenants
        self._egress = egress or EgressPolicy()
        self._preload = tuple(preload)
        self._masks: dict[str, SecretMask] = {}
        """Of plugins whose hosts are told secrets by routers too, which the node hears of in `learn_secrets` alone."""
        self._link: ZygoteLink | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def sandbox_tier(self) -> str:
        return self._tier

    @property
    def zygote_pid(self) -> int:
        """0 when none is running."""
        return self._link.pid if self._link is not None and self._link.alive else 0

    async def start(self) -> None:
        if self._tier == "none":
            logger.warning("sandbox tier 'none': plugins run WITHOUT isolation, as explicitly set; never in Production")
        await self._zygote()

    async def launch(
        self,
        spec: HostSpec,
        *,
        cpu_seconds: int | None = None,
        library_paths: Sequence[Path] = (),
        told: Callable[[str], None] | None = None,
        tenants: TenantSettingsProvider | None = None,
    ) -> ZygoteHost:
        """As the port says, and Unavailable when its tenants' settings cannot be read for the first time.

        cpu_seconds: for a trial, over the host's whole life. library_paths: more to import from.
        told: hears each line that the plugin writes to stdout or stderr, within the output's limits.
        tenants: whose configuration this host is given, instead of the launcher's own.
        """
        tenants = tenants if tenants is not None else self._tenants
        if not spec.bundle_dir.is_dir():
            raise HostFailed(f"the bundle of {spec.plugin} {spec.version} is not at {spec.bundle_dir}", "LOAD_FAILED")
        if spec.resources.scratch_mb and self._tier != "strong":
            raise HostFailed(
                f"{spec.plugin} {spec.version} asks for resources.scratchMb, which sandbox tier {self._tier} cannot bound; "
                "set HOTSWAP_SANDBOX__TIER=strong, or do without",
                "LOAD_FAILED",
            )
        if tenants is not None:
            await tenants.ensure(spec.plugin)
        ordered_at = perf_counter()
        try:
            grants = network_grants(spec.permissions)
        except ValueError as fault:
            raise HostFailed(f"requiredPermissions of {spec.plugin} {spec.version}: {fault}", "LOAD_FAILED") from None
        link = await self._zygote()
        assignment = Assignment(
            plugin=spec.plugin,
            version=spec.version,
            bundle_dir=str(spec.bundle_dir.resolve()),
            entry_point=spec.entry_point,
            methods=list(spec.methods),
            library_paths=[str(path) for path in library_paths],
            memory_bytes=min(spec.resources.memory_mb, self._max_memory_mb) * MIB,
            threads=spec.resources.processes,
            open_files=spec.resources.open_files,
            cpu_seconds=cpu_seconds,
            max_reply_bytes=spec.max_reply_bytes,
            scratch_bytes=spec.resources.scratch_mb * MIB,
            secrets_granted=SECRETS_READ in spec.permissions,
            network_granted=bool(grants),
            certificates=_certificates() if grants else "",
            tls_libraries=_tls_libraries() if grants else [],
            core=spec.core,
            lines=spec.lines,
        )
        host, theirs = await self._connect(spec, link, cpu_seconds, grants, told, tenants)
        try:
            try:
                await link.fork(assignment, theirs, host)
            finally:
                for fd in theirs:
                    os.close(fd)
            await host.wait_ready(ordered_at)
        except BaseException:
            await asyncio.shield(host.kill())
            raise
        return host

    def learn_secrets(self, plugin: str, values: Iterable[str]) -> None:
        """Before any of its hosts is told one of these by somebody else: keep them out of what those hosts say."""
        self._masks.setdefault(plugin, SecretMask()).add(values)

    async def close(self) -> None:
        self._closed = True
        async with self._starting:
            link, self._link = self._link, None
        if link is not None:
            await asyncio.gather(*(host.close() for host in link.hosts))
            await link.close()

    async def _zygote(self) -> ZygoteLink:
        async with self._starting:
            if self._closed:
                raise HostFailed("the launcher is closed", "DIED")
            if self._link is None or not self._link.alive:
                if sys.platform != "linux":
                    raise SandboxUnavailable(
                        "plugin hosts need Linux (Landlock, seccomp, pidfd); run nodes in a Linux VM"
                    )
                link = ZygoteLink(self._tier, self._zygote_ended, self._preload)
                try:
                    await link.wait_ready()
                except BaseException:
                    link.kill()
                    await asyncio.shield(link.close())
                    raise
                self._link = link
            return self._link

    def _zygote_ended(self, link: ZygoteLink) -> None:
        if link is self._link:
            logger.error("the zygote ended and took its hosts along; the next launch starts another")
            self._link = None

    async def _connect(
        self,
        spec: HostSpec,
        link: ZygoteLink,
        cpu_seconds: int | None,
        grants: Sequence[NetworkGrant],
        told: Callable[[str], None] | None,
        tenants: TenantSettingsProvider | None,
    ) -> tuple[ZygoteHost, list[int]]:
        """The host's node side, and the descriptors for its own: channel, log pipe, watermark, with grants the way out, and
        its ends of the lines. The caller closes those.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            undo.callback(theirs.close)
            log_reader, log_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            undo.callback(os.close, log_writer)
            watermark_fd = _watermark()
            undo.callback(os.close, watermark_fd)
            watermark = mmap.mmap(watermark_fd, protocol.WATERMARK_BYTES)
            undo.callback(watermark.close)
            mask = self._masks.setdefault(spec.plugin, SecretMask()) if spec.lines else SecretMask()
            output = PluginOutput(log_reader, spec.plugin, spec.version, loop, mask, told)
            undo.callback(output.close)
            gate, ways_out = None, list[int]()
            if grants:
                gate_end, way_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                gate = EgressGate(gate_end, grants, self._egress, spec.plugin, spec.version, loop)
                undo.callback(gate.close)
                ways_out.append(way_out.detach())
                undo.callback(os.close, ways_out[0])
            pairs = [socket.socketpair() for _ in range(spec.lines)]
            lines = SpareLines([mine for mine, _ in pairs], os.dup(watermark_fd) if pairs else -1)
            undo.callback(lines.close)
            line_ends = [theirs.detach() for _, theirs in pairs]
            for end in line_ends:
                undo.callback(os.close, end)
            host = ZygoteHost(
                spec,
                self._tier,
                watermark,
                output,
                mask=mask,
                ledger=TenantLedger(spec, tenants, mask) if tenants is not None else None,
                gate=gate,
                lines=lines,
                cpu_limit=cpu_seconds,
                close_grace=self._close_grace,
                order_kill=link.kill_host,
                zygote_hangs=link.kill,
            )
            ours.setblocking(False)
            await loop.create_unix_connection(lambda: host, sock=ours)
            undo.pop_all()
        return host, [theirs.detach(), log_writer, watermark_fd, *ways_out, *line_ends]


def _certificates() -> str:
    """The file of the certificate authorities that this machine trusts; "" when it has none."""
    file = ssl.get_default_verify_paths().cafile
    return str(Path(file).resolve()) if file else ""


@cache
def _tls_libraries() -> list[str]:
    """Where this process, which has imported ssl, got libssl and libcrypto from. None when they are part of Python."""
    lines = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
    mapped = {line[73:].strip() for line in lines if "/libssl" in line or "/libcrypto" in line}
    return sorted(path for path in mapped if Path(path).is_file())


def _watermark() -> int:
    """Shared memory that the host cannot resize: reading past a shrunken end would kill the node by SIGBUS."""
    fd = os.memfd_create("hotswap-watermark", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, protocol.WATERMARK_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd
