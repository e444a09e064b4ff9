"""Isolated plugin processes: the port between hotswap.node (who serves with them) and hotswap.runtime (who makes them)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from hotswap.domain.base import Model
from hotswap.domain.manifest import Manifest, Resources

SchemaCheck = Callable[[dict[str, Any], Any, timedelta], Awaitable[str]]
"""(JSON Schema, result, timeout) -> why the result does not fit, or "". Isolated: both are the plugin author's."""


class HostSpec(Model):
    """One host process to make: an unpacked, verified bundle and what it may use."""

    plugin: str
    version: str
    bundle_dir: Path
    entry_point: str
    resources: Resources
    methods: tuple[str, ...] = ()
    """What the host may be asked for: the manifest's methods. A missing one fails the load. Empty = every public method."""
    permissions: tuple[str, ...] = ()
    """The manifest's requiredPermissions (hotswap.domain.permissions). None = no secrets, no network."""
    config_defaults: dict[str, Any] = Field(default_factory=dict)
    """What a tenant's configuration has where it does not say: the defaults of the manifest's configurationSchema."""
    max_reply_bytes: int = 4 * 1024 * 1024
    load_timeout: timedelta = timedelta(seconds=30)
    concurrency: int = 1
    """How many processes of this version serve side by side; a launch makes one of them."""
    core: int | None = None
    """The processor core to pin this process to; None = the system's choice. Not pinned where the system refuses."""
    lines: int = Field(default=0, ge=0)
    """Channels besides the node's own, for routers in processes of their own; each is given away once (`LinedHost`)."""

    @classmethod
    def of(cls, manifest: Manifest, bundle_dir: Path, **more: Any) -> "HostSpec":
        """What the manifest asks for; `more` overrides."""
        fields = {
            "plugin": manifest.name,
            "version": manifest.version,
            "bundle_dir": bundle_dir,
            "entry_point": manifest.entry_point,
            "resources": manifest.resources,
            "methods": tuple(method.name for method in manifest.methods),
            "permissions": manifest.required_permissions,
            "config_defaults": manifest.config_defaults(),
        }
        return cls(**(fields | more))


@dataclass(frozen=True, slots=True)
class Reply:
    """A host's answer to one call.

    ok: `body` is the result as JSON. Otherwise `body` is a UTF-8 message (bounded), `kind` the plugin's exception class
    or "" when the host itself failed, `limit` the limit that was hit (TIMEOUT, REPLY_TOO_LARGE, BAD_REPLY, DIED...) or "",
    and `unknown_method` says that the plugin has no such method, `invalid` that the body is no JSON object.
    `started` False is a proof that the plugin never saw the call: sending it to another host is safe. `begun` False is none:
    the host had not begun it when its time ran out, and may do so before it hears that nobody waits.
    """

    ok: bool
    body: bytes
    kind: str = ""
    limit: str = ""
    unknown_method: bool = False
    invalid: bool = False
    started: bool = True
    begun: bool = True


class CallTaker(Protocol):
    """What the router needs of a host process. All methods belong to one event loop."""

    @property
    def alive(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...

    def submit(
        self,
        method: str,
        tenant: str,
        body: bytes,
        timeout: float,
        done: Callable[[Reply], None],
        traceparent: bytes = b"",
    ) -> None:
        """Hot path: send one call (`body` is a JSON object, untouched; `timeout` in seconds) and call `done` exactly once.

        The plugin is told the instant at which `timeout` ends as its context's deadline, and `traceparent` (W3C, as the
        client sent it) as its trace; one of another length than 55 bytes is left out. Never raises and never blocks: a
        dead host answers through `done` with limit DIED, a late one with TIMEOUT.
        """
        ...

    def unbegun(self) -> int:
        """Calls sent that the host has not begun yet, as the host itself tells: its backlog. 0 when dead. Hot path."""
        ...


class HostHandle(CallTaker, Protocol):
    """The node's side of one live host process. All methods belong to the event loop that launched it."""

    @property
    def pid(self) -> int: ...
    @property
    def sandbox_tier(self) -> str: ...
    @property
    def load_ms(self) -> float: ...

    async def invoke(self, method: str, tenant: str, body: bytes, timeout: timedelta) -> bytes:
        """The result as JSON. Raises PluginError, HostFailed (with its limit), NotFound for an unknown method."""
        ...

    async def ping(self, timeout: timedelta) -> float:
        """Ask the host, and the plugin's `health` hook if it has one; returns milliseconds. Raises HostFailed, PluginError."""
        ...

    async def drain(self, grace: timedelta) -> bool:
        """Wait until nothing is in flight, at most `grace`. True when drained."""
        ...

    async def close(self) -> None:
        """End the process (SIGKILL if it must be) and reap it. Repeats are fine."""
        ...

    def on_exit(self, callback: Callable[[str], None]) -> None:
        """Call `callback(reason)` once if the process ends without `close`."""
        ...

    def memory_bytes(self) -> int:
        """Resident set size now, pages shared with the zygote included; 0 when dead."""
        ...

    def own_memory_bytes(self) -> int:
        """What the end of the process would give back: its pages that no other process has. 0 when dead.

        Where the system does not tell, the resident set. Takes about 0.2 ms; safe to call from another thread.
        """
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """A channel of a host for somebody else than its node, who owns both descriptors from now on. docs/data-plane.md."""

    index: int
    """Which one: where its marks are in the shared memory (hotswap.runtime.protocol.marks_at)."""
    channel: int
    watermark: int


class LinedHost(HostHandle, Protocol):
    """A host launched with `lines`."""

    def take_line(self) -> Line | None:
        """One that nobody was given yet, or None: they are used up, or the host has ended."""
        ...

    @property
    def lines_left(self) -> int: ...

    @property
    def verdict(self) -> tuple[str, str]:
        """Why it ended, or was closed, as (limit, reason)."""
        ...

    def distrust(self, what: str) -> None:
        """It broke the protocol on a line (`what`), or has hung up there (""): kill it. Nothing when it has ended."""
        ...


class HostLauncher(Protocol):
    """Makes host processes (a zygote that forks them)."""

    @property
    def sandbox_tier(self) -> str: ...

    async def start(self) -> None:
        """Start the zygote and prove the isolation. Raises SandboxUnavailable naming the missing layer."""
        ...

    async def launch(self, spec: HostSpec) -> HostHandle:
        """Fork, isolate, import, construct; returns when READY. Raises HostFailed (LOAD_FAILED, TIMEOUT, MEMORY_LIMIT...)."""
        ...

    async def close(self) -> None:
        """End the zygote and every host it made. Repeats are fine."""
        ...
