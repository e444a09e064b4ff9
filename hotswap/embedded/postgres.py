"""Embedded PostgreSQL: initdb once, TCP on loopback only, one database `hotswap`.

PostgreSQL refuses to run as root; launch.py sees to that. It is restarted after a crash as often as it takes: children
of a killed postmaster can hold the shared memory for up to two seconds, during which a new one exits at once.
"""

import asyncio
import contextlib
import shutil
import signal
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import psycopg
from psycopg import sql

from hotswap.embedded.binaries import POSTGRES, Binary, resolve
from hotswap.embedded.data_dir import DataDir, StackError
from hotswap.embedded.parts import NotReady, Part, run_once
from hotswap.embedded.ports import LOOPBACK, Ports
from hotswap.embedded.servers import clean_environment

USER = "hotswap"
DATABASE = "hotswap"
URL = "HOTSWAP_POSTGRES__URL"

PARAMETERS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    # api, worker and three nodes with pools of 10, and pytest's parallel runs with one of each.
    "max_connections": "300",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}


class PostgresServer:
    name = "postgres"
    ports: tuple[str, ...] = ("postgres",)

    def __init__(self, data: DataDir, ports: Ports) -> None:
        self._data = data
        self._ports = ports
        self._folder = data.root / "postgres"

    @cached_property
    def binary(self) -> Binary:
        return resolve(POSTGRES, lambda binary: self._made_by() in {None, binary.version()[0]})

    async def prepare(self) -> Part:
        await self._create_cluster()
        command = [str(self.binary.path), "-D", str(self._folder), "-c", f"port={self._port}"]
        for name, value in PARAMETERS.items():
            command += ["-c", f"{name}={value}"]
        return Part(
            name=self.name,
            command=tuple(command),
            environment=clean_environment(self._data.root),
            log=self._data.log(self.name),
            probe=self._probe,
            address=f"{LOOPBACK}:{self._port}",
            before_start=self._forget_dead_postmaster,
            stop_signal=signal.SIGINT,  # fast shutdown: disconnects clients; SIGTERM would wait for them
            death_signal=signal.SIGQUIT,  # immediate shutdown: the postmaster takes its children along
            start_timeout=timedelta(seconds=120),  # recovery of a large write-ahead log after a crash
            tolerated_exits=5,
            unprivileged=self._folder,
        )

    async def provision(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._url("postgres"), autocommit=True) as connection:
            found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if await found.fetchone() is None:
                await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def settings(self) -> dict[str, str]:
        return {URL: self._url(DATABASE)}

    @property
    def _port(self) -> int:
        return self._ports["postgres"]

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self._data.secret('postgres')}@{LOOPBACK}:{self._port}/{database}"

    async def _probe(self) -> None:
        try:
            async with await psycopg.AsyncConnection.connect(self._url("postgres"), connect_timeout=2) as connection:
                await connection.execute("SELECT 1")
        except psycopg.OperationalError as fault:
            raise NotReady(str(fault).strip()) from None

    async def _create_cluster(self) -> None:
        """initdb into a folder beside, renamed when whole: a start that was interrupted leaves nothing half made."""
        if self._folder.exists():
            await asyncio.to_thread(self._check_version)
            return
        fresh = self._data.root / "postgres.new"
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = self._data.run / "postgres.password"
        password.touch(mode=0o600)
        password.write_text(self._data.secret("postgres"), encoding="ascii")
        try:
            await run_once(
                "initdb",
                (
                    *(self.binary.companion("initdb"), "-D", str(fresh), "-U", USER),
                    *("-A", "scram-sha-256", "--pwfile", str(password), "--no-locale", "-E", "UTF8", "--no-sync"),
                ),
                clean_environment(self._data.root),
                self._data.log(self.name),
                unprivileged=fresh,
            )
        finally:
            password.unlink()
        fresh.rename(self._folder)

    def _check_version(self) -> None:
        """A data folder belongs to one major version. Raises StackError."""
        made_by, runs = self._made_by(), self.binary.version()[0]
        if made_by is None:
            raise StackError(f"{self._folder} is no data folder of PostgreSQL's: remove it, or use another --data-dir")
        if made_by != runs:
            raise StackError(
                f"{self._folder} was made by PostgreSQL {made_by}, but {self.binary.path} is {runs}; point "
                f"{POSTGRES.setting} at PostgreSQL {made_by}, or use another --data-dir"
            )

    def _made_by(self) -> int | None:
        """The major version that made the data folder; None = there is none yet. Raises StackError."""
        try:
            return int((self._folder / "PG_VERSION").read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except ValueError as fault:
            raise StackError(
                f"{self._folder / 'PG_VERSION'} is not a version ({fault}); use another --data-dir"
            ) from None

    def _forget_dead_postmaster(self) -> None:
        """Remove a postmaster.pid whose process is not PostgreSQL on this folder.

        We hold the data directory's lock, so it is of a killed predecessor; PostgreSQL itself only sees that some
        process has that id (ids are reused soon in containers) and would refuse to start for ever.
        """
        pid_file = self._folder / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError):
            lines = pid_file.read_text(encoding="utf-8").splitlines()
            if not lines or not _runs_on(lines[0].strip(), self._folder):
                pid_file.unlink()


def _runs_on(pid: str, folder: Path) -> bool:
    try:
        arguments = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists()  # without /proc nothing can be told: leave the file to PostgreSQL
    return str(folder).encode() in arguments
