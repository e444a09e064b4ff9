"""One router in a process of its own: `python -m hotswap.node.router_worker`, started by hotswap.node.router_process.

It runs the same Router as a node with one router does, on routes, hosts, tenants, keys and quotas that the node tells over
the control channel, in order, and asks nobody for a request: calls go straight to the plugin hosts, each over a line of
this process's own. What it counts it tells the node; what only the node can do (load an evicted version, read a new key,
end a host) it asks for. It ends with its node.
"""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any, cast

import uvloop

from hotswap.domain.accounts import PublicKey
from hotswap.domain.quota import QuotaOverride
from hotswap.domain.routes import ArtifactRef, RouteState
from hotswap.lifeline import tie_to_parent
from hotswap.node.control import ControlChannel, Message
from hotswap.node.journal import Counted, Journal
from hotswap.node.mirrored_hosts import MirroredHost, MirroredTenants, MirroredVersion, Serving
from hotswap.node.queues import Together
from hotswap.node.router import Router
from hotswap.node.router_setup import RouterSetup, share
from hotswap.node.routes import Route
from hotswap.node.serving import ServedVersion
from hotswap.node.shared_quotas import QuotaTables, SharedMeters
from hotswap.node.tenant_auth import EXTRA_LOOK_SECONDS, TenantAuth
from hotswap.node.traced_calls import CALLS_A_SECOND, EndedCall, TracedCalls
from hotswap.ports.hosts import HostSpec
from hotswap.runtime.tenant_ledger import TenantLedger

log = logging.getLogger(__name__)

TELL_SECONDS = 0.25
"""How often it tells what it counted, unasked."""


class RouterWorker:
    """Belongs to one event loop. `run` returns when the node has ended, or wants this router to."""

    def __init__(self, control: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = ControlChannel(control, self._heard, self._node_ended)
        self._messages: deque[tuple[Message, list[int]]] = deque()
        self._more = asyncio.Event()
        self._closing = False
        self._hosts: dict[int, MirroredHost] = {}
        self._routes: dict[str, Route] = {}
        self._counts: dict[tuple[str, str], Counted] = {}
        self._tenants = MirroredTenants()
        self._gauges: dict[str, int] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._journal: Journal
        self._router: Router
        self._auth: TenantAuth
        self._meters: SharedMeters
        self._place: tuple[str, int]

    async def run(self) -> None:
        while not self._closing:
            await self._more.wait()
            self._more.clear()
            while self._messages and not self._closing:
                message, descriptors = self._messages.popleft()
                await self._obey(message, descriptors)
        for task in self._background:
            task.cancel()
        self._control.close()

    def _heard(self, message: Message, descriptors: list[int]) -> None:
        self._messages.append((message, descriptors))
        self._more.set()

    def _node_ended(self) -> None:
        self._closing = True
        self._more.set()

    async def _obey(self, message: Message, descriptors: list[int]) -> None:
        match message["kind"]:
            case "begin":
                self._begin(message, *descriptors)
            case "tenants":
                self._tenants.learn(message["plugin"], message["changed"], message["gone"])
            case "disabled":
                self._tenants.disabled.clear()
                self._tenants.disabled.update((tenant, plugin) for tenant, plugin in message["pairs"])
            case "keys":
                self._auth.learn([PublicKey.model_validate(key) for key in message["keys"]], message["revoked"])
            case "quotas":
                self._meters.set_overrides(
                    {(tenant, plugin): QuotaOverride.model_validate(own) for tenant, plugin, own in message["own"]}
                )
            case "host":
                await self._connect(message, *descriptors)
            case "ended":
                if host := self._hosts.pop(message["id"], None):
                    host.end(message["limit"], message["reason"])
            case "release":
                self._release(message["id"])
            case "route":
                self._follow(message)
            case "serving":
                self._cast(message["plugin"], message["versions"])
                self._router.wake(message["plugin"])
            case "ask":
                self._tell(message["seq"])
            case "serve":
                await self._serve()
            case "send away":
                self._router.send_away()
            case "drain":
                self._run(self._drain(timedelta(seconds=message["seconds"]), timedelta(seconds=message["idle"])))
            case "close":
                await self._router.close()
                self._tell(None)
                self._closing = True
            case unknown:
                raise RuntimeError(f"a message of kind {unknown} from the node, which is of another release")

    # -- what the node says --------------------------------------------------------------------------------------

    def _begin(self, message: Message, quotas: int, journal: int) -> None:
        setup = RouterSetup.model_validate(message["setup"])
        logging.getLogger().setLevel(setup.log_level)
        logging.getLogger().handlers[:] = [_ToNode(self._control)]
        self._place = (message["host"], message["port"])
        self._auth = TenantAuth(setup.environment, setup.tenant_token, setup.issuer, setup.leeway)
        self._meters = SharedMeters(setup.quota, monotonic, QuotaTables(quotas, message["routers"], message["number"]))
        self._journal = Journal(journal)
        for descriptor in (quotas, journal):
            os.close(descriptor)
        self._router = Router(
            setup.node_id,
            self._routes,
            setup.tenant_token,
            setup.invoke_timeout,
            share(setup.limits, message["routers"]),
            self._meters,
            tenant_auth=self._auth,
            disabled=self._tenants.disabled,
            spans=self._traced_calls(setup.sampling_rate, message["routers"]),
            together=Together(message["routers"], _answered),
        )
        self._run(self._ask_for_keys())

    async def _connect(self, message: Message, channel: int, watermark: int) -> None:
        spec = HostSpec.model_validate(message["spec"])
        mask = self._tenants.mask(spec.plugin)
        host = MirroredHost(
            message["id"],
            spec,
            message["line"],
            watermark,
            mask,
            TenantLedger(spec, self._tenants, mask),
            self._report,
        )
        end = socket.socket(fileno=channel)
        end.setblocking(False)
        await self._loop.create_unix_connection(lambda: host, sock=end)
        self._hosts[host.id] = host

    def _release(self, number: int) -> None:
        host = self._hosts.get(number)
        if host is None:  # it has ended meanwhile
            self._control.send({"kind": "released", "id": number})
            return
        host.retire()
        self._run(self._let_go(host))

    async def _let_go(self, host: MirroredHost) -> None:
        await host.drained()
        self._hosts.pop(host.id, None)
        host.hang_up()
        self._control.send({"kind": "released", "id": host.id})

    def _follow(self, message: Message) -> None:
        plugin = message["plugin"]
        if message["route"] is None:
            self._routes.pop(plugin, None)
        else:
            told = message["route"]
            before = self._routes.get(plugin)
            versions = {}
            for name, ref in told["refs"].items():
                known = before.hosts.get(name) if before is not None else None
                ref = ArtifactRef.model_validate(ref)
                versions[name] = known if known is not None and known.ref == ref else self._version(ref)
            self._routes[plugin] = Route(
                plugin,
                told["generation"],
                RouteState.model_validate(told["state"]),
                {tenant: versions[name].ref for tenant, name in told["pins"].items()},
                versions,
            )
            self._cast(plugin, message["versions"])
        self._router.wake(plugin)

    def _version(self, ref: ArtifactRef) -> MirroredVersion:
        key = (ref.plugin, ref.version)
        counted = self._counts.get(key)
        if counted is None:
            counted = self._counts[key] = Counted(*key, self._journal)
        return MirroredVersion(ref, counted, self._wake)

    def _cast(self, plugin: str, versions: dict[str, Any]) -> None:
        route = self._routes.get(plugin)
        for name, told in versions.items():
            version = route.hosts.get(name) if route is not None else None
            if isinstance(version, MirroredVersion):
                version.follow(Serving(**told), self._hosts)

    async def _serve(self) -> None:
        try:
            await self._router.bind(*self._place, shared=True)
            await self._router.serve()
        except OSError as fault:
            self._control.send({"kind": "failed", "why": str(fault)})
            return
        gc.collect()
        gc.freeze()  # as the node does: what is here stays
        self._run(self._go_on_telling())

    async def _drain(self, grace: timedelta, idle: timedelta) -> None:
        done = await self._router.drain(grace, idle)
        self._tell(None)
        self._control.send({"kind": "drained", "done": done})

    # -- what it says --------------------------------------------------------------------------------------------

    def _tell(self, seq: int | None) -> None:
        """What was counted since the last time. `seq`: in answer to that question."""
        router = self._router
        counts = [[*key, told] for key, counted in self._counts.items() if (told := counted.taken()) is not None]
        self._gauges = self._gauges_now()
        self._control.send(
            {
                "kind": "told",
                "seq": seq,
                "counts": counts,
                "notes": self._journal.written,
                "busy": [[host.id, host.in_flight] for host in self._hosts.values() if host.in_flight],
                "gauges": self._gauges,
                "refused": dict(router.refused),
            }
        )
        routed = {(plugin, version) for plugin, route in self._routes.items() for version in route.hosts}
        for key in [key for key in self._counts if key not in routed and not self._counts[key].anything]:
            if not router.in_flight and not router.unsettled:  # so nothing can be counted there any more
                del self._counts[key]

    def _gauges_now(self) -> dict[str, int]:
        router = self._router
        names = ("connections", "in_flight", "waiting", "queued", "unsettled", "metered")
        return {name: getattr(router, name) for name in names}

    async def _go_on_telling(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            busy = any(counted.anything for counted in self._counts.values())
            if busy or self._gauges_now() != self._gauges:
                self._tell(None)

    async def _ask_for_keys(self) -> None:
        while True:
            await self._auth.unknown_key.wait()
            self._auth.unknown_key.clear()
            self._control.send({"kind": "unknown key"})
            await asyncio.sleep(EXTRA_LOOK_SECONDS)

    def _wake(self, ref: ArtifactRef) -> None:
        self._control.send({"kind": "wake", "plugin": ref.plugin, "version": ref.version})

    def _traced_calls(self, sampling_rate: float | None, routers: int) -> TracedCalls | None:
        if sampling_rate is None:
            return None
        return TracedCalls(sampling_rate, self._hand_over, math.ceil(CALLS_A_SECOND / routers))

    def _hand_over(self, ended: Sequence[EndedCall]) -> None:
        self._control.send({"kind": "traced", "calls": ended})

    def _report(self, number: int, what: str) -> None:
        self._control.send({"kind": "distrust", "id": number, "what": what})

    def _run(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(partial(_finished, self._background))


class _ToNode(logging.Handler):
    """The node writes our records among its own: as JSON, in one stream."""

    def __init__(self, control: ControlChannel) -> None:
        super().__init__()
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        self._control.send({"kind": "log", "level": record.levelno, "name": record.name, "text": text})


def _answered(version: ServedVersion) -> int:
    return cast(MirroredVersion, version).answered()


def _finished(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.discard(task)
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("a router's own task failed", exc_info=fault)


async def serve(control: socket.socket) -> None:
    await RouterWorker(control).run()


def main() -> int:
    """argv: the control channel's descriptor and the node's pid."""
    descriptor, node = int(sys.argv[1]), int(sys.argv[2])
    tie_to_parent(signal.SIGKILL)  # to the thread that started us, which is the node's main one
    if os.getppid() != node:
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # to a whole group, they are the node's to answer; it lets us finish
    uvloop.run(serve(socket.socket(fileno=descriptor)))
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing here needs a slow goodbye
