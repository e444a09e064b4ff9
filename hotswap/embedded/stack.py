"""The whole of HotSwap on one machine: servers in parallel, then migrations, then api, worker and nodes in parallel.

Neighbours: one module for each server, apps.py for our own processes, parts.py runs them, hotswap.embedded.run is the
`hotswap up` around it. For a laptop, the demo and the tests; never for production.
"""

import asyncio
import importlib
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from hotswap.config import PostgresSettings
from hotswap.config_access import AuthSettings
from hotswap.domain.deployment import Environment, Role
from hotswap.embedded import apps, postgres, seaweedfs, temporal, valkey
from hotswap.embedded.binaries import Binary
from hotswap.embedded.data_dir import DataDir, StackError, write_private
from hotswap.embedded.parts import Part, Restart, Supervised
from hotswap.embedded.ports import LOOPBACK, Ports
from hotswap.embedded.servers import Server, ServerFactory, external

log = logging.getLogger(__name__)

USERS = (
    ("admin", Role.ADMIN),
    ("developer", Role.DEVELOPER),
    ("approver", Role.APPROVER),
    ("viewer", Role.VIEWER),
)

SERVERS: tuple[tuple[ServerFactory, tuple[str, ...], tuple[str, ...]], ...] = (
    # what makes it, the variables that name an external one instead, and those that may come with them
    (
        temporal.TemporalServer,
        (temporal.ADDRESS,),
        (temporal.NAMESPACE, temporal.UI_URL, temporal.API_KEY, temporal.TLS),
    ),
    (postgres.PostgresServer, (postgres.URL,), ()),
    (valkey.ValkeyServer, (valkey.URL,), ()),
    (
        seaweedfs.SeaweedServer,
        (seaweedfs.ENDPOINT, seaweedfs.ACCESS_KEY, seaweedfs.SECRET_KEY),
        (seaweedfs.BUCKET, seaweedfs.TLS),
    ),
)

RATE_LIMIT_FACTOR = "HOTSWAP_API__RATE_LIMIT_FACTOR"
"""Here a thousand times the specification's limits unless told otherwise: demo, tests and chaos are one busy user."""

KEY_ENCRYPTION_KEY = "HOTSWAP_AUTH__KEY_ENCRYPTION_KEY"
KEY_PROVIDER = "HOTSWAP_KEYS__PROVIDER"
FIRST_ADMIN = "admin"

CRASH_PATIENCE = 8.0
"""Seconds for the servers of a killed supervisor to end: four times the 2 s that PostgreSQL's children were seen to take."""


class EmbeddedStack:
    """Start it, use `environment` and `info`, stop it. Parts that die in between come back on the same ports and data.

    `data_dir` keeps everything and may be used again; `servers_only` leaves out api, worker and nodes; `progress` gets
    a line for each thing worth showing a person. Start it from the main thread: children die with that thread.
    """

    def __init__(
        self,
        data_dir: Path,
        nodes: int = 3,
        environment: Environment = Environment.DEVELOPMENT,
        servers_only: bool = False,
        progress: Callable[[str], None] = print,
    ) -> None:
        if nodes < 0:
            raise StackError(f"{nodes} nodes: give 0 or more")
        self._data = DataDir(data_dir)
        self._nodes = () if servers_only else apps.node_ids(nodes)
        self._serves = environment
        self._servers_only = servers_only
        self._progress = progress
        self._ports = Ports(self._data)
        self._supervised: dict[str, Supervised] = {}
        self._environment: dict[str, str] = {}
        self._up = False
        self._changed = asyncio.Event()
        self._describing: asyncio.Task[None] | None = None
        self.restart_events: list[Restart] = []

    @property
    def environment(self) -> dict[str, str]:
        """The HOTSWAP_ variables that make any process of this project use this stack. Holds credentials."""
        return dict(self._environment)

    @property
    def info(self) -> dict[str, Any]:
        """What stack.json says: addresses, tokens, parts with their process ids."""
        env = self._environment
        api_url = "" if self._servers_only else f"http://{LOOPBACK}:{self._ports['api']}"
        return {
            "apiUrl": api_url,
            "docsUrl": api_url and f"{api_url}/docs",
            "consoleUrl": api_url and f"{api_url}/console",
            "workerMetricsUrl": "" if self._servers_only else f"http://{apps.worker_metrics(self._ports)}/metrics",
            "temporalUiUrl": env.get(temporal.UI_URL, ""),
            "temporalAddress": env[temporal.ADDRESS],
            "namespace": env.get(temporal.NAMESPACE, "default"),
            "users": json.loads(env["HOTSWAP_API__DEVELOPMENT_USERS"]),
            "tenantToken": env["HOTSWAP_NODE__TENANT_TOKEN"],
            "nodes": [
                {
                    "id": node,
                    "environment": self._serves.value,
                    "routerUrl": f"http://{LOOPBACK}:{self._ports[f'{node}-router']}",
                    "adminUrl": f"http://{LOOPBACK}:{self._ports[f'{node}-admin']}",
                }
                for node in self._nodes
            ],
            "supervisorPid": os.getpid(),
            "parts": [
                {"name": name, "pid": one.pid, "log": str(one.part.log), "restarts": len(one.restarts)}
                for name, one in self._supervised.items()
                if one.process is not None
            ],
            "environment": dict(env),
        }

    def pid(self, name: str) -> int:
        """The process id of a part now: temporal, postgres, valkey, seaweedfs, api, worker, node-1... Raises StackError."""
        return self._part(name).pid

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Signal a part, as an accident would; the id it had. `restarted` awaits its return."""
        pid = self.pid(name)
        os.kill(pid, how)
        return pid

    async def restarted(self, name: str, since: int) -> Restart:
        """Await the restart that replaced process `since` of this part, serving again. Wrap in asyncio.timeout."""
        part = self._part(name)
        while True:
            for restart in part.restarts:
                if restart.old_pid == since:
                    return restart
            await self._changed.wait()

    async def replace_node(self, node: str) -> asyncio.subprocess.Process:
        """Upgrade a node while it serves: a process of the code as it is now takes its place, and no request is lost.

        Returns the old process, which answers what it has and then ends. Raises StackError when there is no such node, or
        when the new process cannot serve: the old one serves on.
        """
        if node not in self._nodes:
            raise StackError(f"the stack has no node {node}; it has {', '.join(self._nodes) or 'none'}")
        before = await self._part(node).replace({apps.REPLACE: "true"})
        self._say(f"{node:<10} replaced: process {self.pid(node)} serves in the place of {before.pid}")
        self._write_info()
        return before

    async def replace_nodes(self) -> None:
        """Upgrade every node, one after the other; the first that cannot be is told, and the rest stay as they are."""
        for node in self._nodes:
            try:
                await self.replace_node(node)
            except (StackError, OSError) as fault:
                self._say(f"{node:<10} was not replaced and serves on: {fault}")
                return

    async def start(self) -> None:
        """Everything up and serving, or StackError / SettingsInvalid and nothing left running."""
        if threading.current_thread() is not threading.main_thread():
            raise StackError("start the stack from the main thread: its processes die with the thread that starts them")
        crashed = self._data.acquire()
        try:
            await self._start(crashed)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Our processes first, as they need the servers to end in order; then the servers. May be called at any time."""
        self._up = False
        ours = [one for name, one in self._supervised.items() if name in {"api", "worker", *self._nodes}]
        servers = [one for one in self._supervised.values() if one not in ours]
        for group in (ours, servers):
            if group:
                self._say(f"stopping {', '.join(one.part.name for one in group)}")
                await asyncio.gather(*(one.stop() for one in group))
        self._supervised.clear()
        if self._describing is not None:
            await asyncio.gather(self._describing, return_exceptions=True)
        self._data.release()

    def delete_data(self) -> None:
        """Remove the data directory, after stop(). Nothing happens when it was another stack's (DataDirBusy)."""
        if self._data.held:
            shutil.rmtree(self._data.root)

    async def _start(self, crashed: bool) -> None:
        servers: list[Server] = []
        environment: dict[str, str] = {}
        for make, required, optional in SERVERS:
            given = external(required, optional)
            if given is None:
                servers.append(make(self._data, self._ports))
            else:
                environment |= given
                self._say(f"{required[0]} is set: using that server, not an embedded one")
        await self._settle_ports(servers, crashed)
        for server in servers:
            environment |= server.settings()
        self._environment = {**environment, **self._own_settings()}
        # SQLAlchemy and Alembic take half a second to import; the servers take longer to start.
        ready_to_migrate = asyncio.create_task(asyncio.to_thread(importlib.import_module, "migrations.runner"))
        await _together([self._start_server(server) for server in servers])
        await self._prepare_schema_and_bucket(await ready_to_migrate)
        if not self._servers_only:
            await _together([self._start_apps(), self._make_first_admin()])
        self._up = True
        self._write_info()
        binaries = [server.binary for server in servers]
        self._describing = asyncio.create_task(asyncio.to_thread(self._log_binaries, binaries))

    async def _settle_ports(self, servers: list[Server], crashed: bool) -> None:
        names = [port for server in servers for port in server.ports]
        if not self._servers_only:
            names += apps.port_names(self._nodes)
        for name in await self._ports.settle(names, CRASH_PATIENCE if crashed else 0.0):
            self._say(f"the port of {name} was taken by another program; it moved to {self._ports[name]}")

    async def _start_server(self, server: Server) -> None:
        # Looking for the program may start one on PATH to ask for its version.
        binary = await asyncio.to_thread(lambda: server.binary)
        await self._start_part(await server.prepare(), note=binary.source)
        await server.provision()

    async def _prepare_schema_and_bucket(self, runner: Any) -> None:
        began = _now()
        await asyncio.to_thread(runner.upgrade, self._environment[postgres.URL])
        await asyncio.to_thread(seaweedfs.create_bucket, self._environment)
        self._say(f"{'schema':<10} migrated in {_now() - began:.1f} s")

    async def _make_first_admin(self) -> None:
        """A user who can log in, beside the fixed tokens; the password is generated, kept 0600 and told once."""
        bootstrap = await asyncio.to_thread(importlib.import_module, "api.bootstrap")
        file = self._data.root / "admin-password"
        auth = AuthSettings(key_encryption_key=SecretStr(self._environment[KEY_ENCRYPTION_KEY]))
        database = PostgresSettings(url=SecretStr(self._environment[postgres.URL]))
        password = bootstrap.password_in(file)
        if await bootstrap.bootstrap(database, auth, FIRST_ADMIN, password):
            log.info("made the first Admin; the password is in %s", file)
            self._tell(f"{'login':<10} {FIRST_ADMIN}, password {password} (told once, kept in {file})")

    async def _start_apps(self) -> None:
        parts = [
            apps.api(self._data, self._ports, self._environment),
            apps.worker(self._data, self._ports, self._environment),
        ]
        for node in self._nodes:
            parts.append(apps.node(self._data, self._ports, self._environment, node, self._serves))
        await _together([self._start_part(part) for part in parts])

    async def _start_part(self, part: Part, note: str = "") -> None:
        began = _now()
        supervised = Supervised(part, self._on_restart)
        self._supervised[part.name] = supervised
        await supervised.start()
        said = f"{part.name:<10} ready in {_now() - began:.1f} s"
        self._say("  ".join(filter(None, (said, part.address, note and f"({note})"))))

    def _own_settings(self) -> dict[str, str]:
        users = [
            {"user": user, "roles": [role.value], "token": self._data.secret(f"user-{user}")} for user, role in USERS
        ]
        return {
            "HOTSWAP_API__DEVELOPMENT_USERS": json.dumps(users),
            KEY_ENCRYPTION_KEY: os.environ.get(KEY_ENCRYPTION_KEY) or self._data.secret("key-encryption", 32),
            **self._wrapping_keys(),
            RATE_LIMIT_FACTOR: os.environ.get(RATE_LIMIT_FACTOR) or "1000",
            "HOTSWAP_NODE__TENANT_TOKEN": self._data.secret("tenant"),
            "HOTSWAP_NODE__ADMIN_TOKEN": self._data.secret("node-admin"),
            "HOTSWAP_WORK_DIR": str(self._data.folder("work")),
        }

    def _wrapping_keys(self) -> dict[str, str]:
        """Tenants have secrets here too: a generated key wraps their data keys, unless another provider is set up."""
        if os.environ.get(KEY_PROVIDER):
            return {}
        keys = json.dumps([self._data.secret("tenant-keys", 32)])
        return {KEY_PROVIDER: "environment", "HOTSWAP_KEYS__WRAPPING_KEYS": keys}

    def _on_restart(self, restart: Restart) -> None:
        self.restart_events.append(restart)
        down = f"{restart.down.total_seconds():.1f} s"
        self._say(f"{restart.part:<10} died (code {restart.exit_code}); serving again after {down}")
        if self._up:
            self._write_info()
        self._changed.set()
        self._changed = asyncio.Event()

    def _write_info(self) -> None:
        try:
            write_private(self._data.stack_file, self.info)
        except OSError:
            # The parts go on serving; who reads the file sees old process ids.
            log.exception("cannot write %s", self._data.stack_file)

    def _log_binaries(self, binaries: list[Binary]) -> None:
        """Beside the work: hashing 300 MB takes most of a second the first time."""
        for binary in binaries:
            try:
                log.info("%s", binary.describe(self._data.root / "binaries.json"))
            except OSError:
                log.exception("cannot describe %s", binary.path)

    def _part(self, name: str) -> Supervised:
        if name not in self._supervised:
            known = ", ".join(self._supervised) or "none, it is not started"
            raise StackError(f"the stack has no part {name}; it has {known}")
        return self._supervised[name]

    def _say(self, line: str) -> None:
        log.info("%s", line)
        self._tell(line)

    def _tell(self, line: str) -> None:
        """On the terminal only: what is said here may be a secret."""
        try:
            self._progress(line)
        except OSError:  # the terminal or pipe we were shown on is gone; the log has the line
            self._progress = lambda _: None


async def _together(work: list[Awaitable[None]]) -> None:
    """All at once; the first failure cancels the rest and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(_as_coroutine(one))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


def _now() -> float:
    return asyncio.get_running_loop().time()
