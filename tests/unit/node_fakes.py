"""In-process stand-ins for plugin hosts, so that the node's own logic can be tested without processes or archives."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from hotswap.domain.errors import HostFailed, HotSwapError, PluginError
from hotswap.domain.manifest import Manifest, Resources
from hotswap.domain.routes import ArtifactRef, RouteOrder, RouteState
from hotswap.node.figures import FigureBook
from hotswap.node.supervisor import NodeSupervisor
from hotswap.ports.hosts import HostSpec, Reply

DIED = Reply(ok=False, body=b"the host died", limit="DIED")
NEVER_STARTED = Reply(ok=False, body=b"the host was gone", limit="DIED", started=False)


def ref(version: str, plugin: str = "invoice", digest: str = "") -> ArtifactRef:
    return ArtifactRef(
        plugin=plugin, version=version, digest=digest or f"{abs(hash((plugin, version))):064x}"[:64], size_bytes=10
    )


def order(
    generation: int,
    stable: str | None = None,
    candidate: str | None = None,
    weight: int = 0,
    warm: tuple[str, ...] = (),
    plugin: str = "invoice",
    switched: tuple[str, ...] = (),
) -> RouteOrder:
    return RouteOrder(
        plugin=plugin,
        generation=generation,
        state=RouteState(
            stable=ref(stable, plugin) if stable else None,
            candidate=ref(candidate, plugin) if candidate else None,
            candidate_weight=weight,
            seed=f"{plugin}:{candidate}" if candidate else "",
            warm=tuple(ref(version, plugin) for version in warm),
            switched_nodes=switched,
        ),
    )


class FakeHost:
    """Answers `echo` at once, `hold` when released, `boom` as a plugin's error; dies when told to."""

    _pids = itertools.count(1000)

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.pid = next(self._pids)
        self.sandbox_tier = "fake"
        self.load_ms = 1.5
        self.alive = True
        self.closed = False
        self.calls: list[tuple[str, str, bytes]] = []
        self.traceparents: list[bytes] = []
        self.timeouts: list[float] = []
        self.held: list[Callable[[Reply], None]] = []
        self.begins = 1
        """How many of the held calls count as begun."""
        self.ping_fault: HotSwapError | None = None
        self.refusal: Reply | None = None
        self.own_bytes = 1_000_000
        self._exit: Callable[[str], None] | None = None

    @property
    def in_flight(self) -> int:
        return len(self.held)

    def unbegun(self) -> int:
        return max(0, len(self.held) - self.begins)

    def submit(
        self,
        method: str,
        tenant: str,
        body: bytes,
        timeout: float,
        done: Callable[[Reply], None],
        traceparent: bytes = b"",
    ) -> None:
        if not self.alive or self.refusal is not None:
            done(self.refusal or NEVER_STARTED)
            return
        self.calls.append((method, tenant, body))
        self.traceparents.append(traceparent)
        self.timeouts.append(timeout)
        if method == "hold":
            self.held.append(done)
        elif method == "boom":
            done(Reply(ok=False, body=b"no such invoice", kind="LookupError"))
        elif method == "late":
            done(Reply(ok=False, body=b"no answer in time", limit="TIMEOUT"))
        elif method == "die":
            self.held.append(done)
            self.die("killed")
        elif method == "nothing":
            done(Reply(ok=False, body=b"no method 'nothing'", unknown_method=True))
        elif not body.startswith(b"{"):
            done(Reply(ok=False, body=b"the body is no JSON object", invalid=True))
        else:
            done(Reply(ok=True, body=b'{"version":"%s","echo":%s}' % (self.spec.version.encode(), body)))

    def release(self) -> None:
        held, self.held = self.held, []
        for done in held:
            done(Reply(ok=True, body=b'{"held":true}'))

    def die(self, reason: str = "killed by signal 9") -> None:
        self.alive = False
        held, self.held = self.held, []
        for done in held:
            done(DIED)
        if self._exit is not None:
            self._exit(reason)

    async def invoke(self, method: str, tenant: str, body: bytes, timeout: timedelta) -> bytes:
        """`echo` answers at once, `boom` raises; `hold` never answers."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def done(given: Reply) -> None:
            if not answer.done():
                answer.set_result(given)

        self.submit(method, tenant, body, timeout.total_seconds(), done)
        reply = await answer
        if reply.kind:
            raise PluginError(reply.body.decode(), reply.kind)
        if not reply.ok:
            raise HostFailed(reply.body.decode(), reply.limit)
        return reply.body

    async def ping(self, timeout: timedelta) -> float:
        await asyncio.sleep(0)
        if not self.alive:
            raise HostFailed("is dead")
        if self.ping_fault is not None:
            raise self.ping_fault
        return 0.25

    async def drain(self, grace: timedelta) -> bool:
        try:
            async with asyncio.timeout(grace.total_seconds()):
                while self.held:
                    await asyncio.sleep(0.002)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.alive = False
        self.closed = True
        held, self.held = self.held, []
        for done in held:
            done(DIED)

    def on_exit(self, callback: Callable[[str], None]) -> None:
        self._exit = callback

    def memory_bytes(self) -> int:
        return 5_000_000 if self.alive else 0

    def own_memory_bytes(self) -> int:
        return self.own_bytes if self.alive else 0


class FakeLauncher:
    """Launches FakeHosts; `broken` versions fail, `gates` hold a version's launch until set."""

    sandbox_tier = "fake"

    def __init__(self) -> None:
        self.hosts: list[FakeHost] = []
        self.broken: dict[str, HotSwapError] = {}
        self.sick: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self.launches: defaultdict[str, int] = defaultdict(int)
        self.launched_at: list[float] = []
        self.prepared: defaultdict[str, int] = defaultdict(int)
        self.unprepared: dict[str, HotSwapError] = {}
        self.smoke_tests: list[dict[str, Any]] = []
        self.concurrency = 1
        """Of every plugin's manifest."""
        self.fail_launches: dict[int, HotSwapError] = {}
        """The faults of single launches, counted from 1 over all versions."""

    async def start(self) -> None: ...

    async def launch(self, spec: HostSpec) -> FakeHost:
        self.launches[spec.version] += 1
        number = sum(self.launches.values())
        self.launched_at.append(time.monotonic())
        if spec.version in self.gates:
            await self.gates[spec.version].wait()
        await asyncio.sleep(0)
        if spec.version in self.broken:
            raise self.broken[spec.version]
        if fault := self.fail_launches.get(number):
            raise fault
        host = FakeHost(spec)
        if spec.version in self.sick:
            host.ping_fault = PluginError("health said False", "Unhealthy")
        self.hosts.append(host)
        return host

    async def close(self) -> None: ...

    def live(self, version: str | None = None) -> list[FakeHost]:
        return [host for host in self.hosts if host.alive and version in (None, host.spec.version)]


class FakeBundles:
    """Stands for BundleCache: no archive, no disk."""

    def __init__(self, launcher: FakeLauncher) -> None:
        self._launcher = launcher
        self.pruned: list[set[str]] = []

    async def prepare(self, wanted: ArtifactRef) -> HostSpec:
        self._launcher.prepared[wanted.version] += 1
        await asyncio.sleep(0)
        if wanted.version in self._launcher.unprepared:
            raise self._launcher.unprepared[wanted.version]
        return HostSpec(
            plugin=wanted.plugin,
            version=wanted.version,
            bundle_dir=Path("/nowhere"),
            entry_point="plugin:Plugin",
            resources=Resources(),
            concurrency=self._launcher.concurrency,
        )

    async def manifest(self, wanted: ArtifactRef) -> Manifest:
        await asyncio.sleep(0)
        return Manifest.model_validate(
            {
                "name": wanted.plugin,
                "version": wanted.version,
                "entryPoint": "plugin:Plugin",
                "methods": [{"name": name} for name in ("echo", "boom", "hold")],
                "smokeTests": self._launcher.smoke_tests,
            }
        )

    async def prune(self, in_use: object, older_than: timedelta) -> int:
        self.pruned.append(set(in_use))  # type: ignore[call-overload]
        return 0


def make_supervisor(
    launcher: FakeLauncher,
    probe_every: timedelta = timedelta(hours=1),
    book: FigureBook | None = None,
    standby: tuple[str, ...] = (),
) -> NodeSupervisor:
    bundles = FakeBundles(launcher)
    return NodeSupervisor(
        "node-t",
        launcher,
        bundles,  # type: ignore[arg-type]
        book or FigureBook(),
        probe_every,
        standby=standby,
    )


async def eventually(claim: Callable[..., object], within: float = 5.0) -> None:
    """Wait until the claim is true. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not claim():
            await asyncio.sleep(0.002)


async def refused(work: Awaitable[object]) -> HotSwapError:
    """The domain error that the work ends with."""
    try:
        await work
    except HotSwapError as fault:
        return fault
    raise AssertionError("nothing was raised")
