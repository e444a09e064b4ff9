"""Every limit holds in every tier that isolates, and the error says which it was."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hotswap.domain.errors import HostFailed
from hotswap.domain.manifest import Resources
from hotswap.runtime.launcher import ZygoteLauncher
from tests.integration.host_lab import ask, exit_of, launched, spec_of, spec_of_source, until

MIB = 1024 * 1024
GREEDY = """
    import os, sqlite3, tempfile, threading, time

    class Raiser:
        @property
        def errno(self):
            raise SystemExit

    class Liar(Raiser, OSError):
        pass

    class Plugin:
        def memory(self, parameters, context):
            kept = []
            while True:
                kept.append(bytearray(2**20))

        def files(self, parameters, context):
            kept = []
            while True:
                kept.append(open("made.py"))

        def threads(self, parameters, context):
            release = threading.Event()
            try:
                while True:
                    threading.Thread(target=release.wait, daemon=True).start()
            finally:
                release.set()

        def cpu(self, parameters, context):
            while True:
                pass

        def wait(self, parameters, context):
            time.sleep(parameters["seconds"])

        def reply(self, parameters, context):
            return "x" * 2**23

        def no_json(self, parameters, context):
            return object()

        def leave(self, parameters, context):
            os._exit(3)

        def lie(self, parameters, context):
            raise Liar(24, "too many files, it says")

        def fill(self, parameters, context):
            with tempfile.TemporaryFile() as file:
                while True:
                    file.write(b"x" * 65536)

        def many_files(self, parameters, context):
            folder = tempfile.mkdtemp()
            for number in range(10**6):
                open(os.path.join(folder, str(number)), "w").close()

        def one_long_file(self, parameters, context):
            with tempfile.TemporaryFile() as file:
                os.ftruncate(file.fileno(), 2**40)

        def database(self, parameters, context):
            connection = sqlite3.connect(os.path.join(tempfile.gettempdir(), "some.db"))
            connection.execute("create table if not exists rows (content)")
            for _ in range(parameters["rows"]):
                connection.execute("insert into rows values (zeroblob(100000))")
            connection.commit()
            return connection.execute("select count(*) from rows").fetchone()[0]

        def ordinary(self, parameters, context):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "a", "b")
                os.makedirs(os.path.dirname(path))
                with open(path, "w") as file:
                    file.write("content")
                os.replace(path, os.path.join(folder, "c"))
                with open(os.path.join(folder, "c")) as file:
                    return [file.read(), os.environ["TMPDIR"], tempfile.gettempdir(), os.listdir(tempfile.gettempdir()) != []]

        def forbidden(self, parameters, context):
            here = tempfile.gettempdir()
            refused = 0
            attempts = (
                lambda: os.symlink("/", os.path.join(here, "link")),
                lambda: os.link("made.py", os.path.join(here, "link")),
                lambda: os.mkfifo(os.path.join(here, "pipe")),
                lambda: os.mknod(os.path.join(here, "device"), 0o020666, os.makedev(1, 3)),
                lambda: open(os.path.join(here, "..", "beside"), "w"),
                lambda: os.rename(here, "/elsewhere"),
                lambda: os.execv("/proc/self/exe", ["x"]),
            )
            for attempt in attempts:
                try:
                    attempt()
                except OSError:
                    refused += 1
            return [len(attempts), refused]
"""
TIERS = ("standard", "strong")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("method", "limit"),
    [
        ("memory", "MEMORY_LIMIT"),
        ("files", "FILE_LIMIT"),
        ("threads", "PROCESS_LIMIT"),
        ("reply", "REPLY_TOO_LARGE"),
        ("no_json", "BAD_REPLY"),
        ("leave", "DIED"),
        ("cpu", "CPU_LIMIT"),
    ],
)
async def test_a_limit_names_itself(tier: str, method: str, limit: str, tmp_path: Path) -> None:
    resources = Resources(memory_mb=128, processes=16, open_files=32)
    spec = spec_of_source(tmp_path / "bundle", GREEDY, resources=resources)
    async with launched(spec, tier, cpu_seconds=1 if method == "cpu" else None) as host:
        with pytest.raises(HostFailed) as caught:
            await ask(host, method)
        assert caught.value.limit == limit
        if limit not in ("DIED", "CPU_LIMIT"):  # a bomb costs its own call and no other
            with pytest.raises(HostFailed) as caught:
                await ask(host, "no_json")
            assert caught.value.limit == "BAD_REPLY"


@pytest.mark.parametrize("tier", TIERS)
async def test_a_late_call_and_a_late_load_are_timeouts(tier: str, tmp_path: Path) -> None:
    async with launched(spec_of_source(tmp_path / "bundle", GREEDY), tier) as host:
        with pytest.raises(HostFailed) as caught:
            await ask(host, "wait", timedelta(milliseconds=50), seconds=60)
        assert caught.value.limit == "TIMEOUT"
    slow = spec_of_source(tmp_path / "slow", "import time; time.sleep(60)", load_timeout=timedelta(milliseconds=300))
    with pytest.raises(HostFailed) as caught:
        async with launched(slow, tier):
            pass
    assert caught.value.limit == "TIMEOUT"


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("source", "limit"),
    [
        ("x = bytearray(2**30)", "MEMORY_LIMIT"),
        ("kept = [open(__file__) for _ in range(99)]", "FILE_LIMIT"),
        ("raise ValueError('no')", "LOAD_FAILED"),
        ("import os; os._exit(4)", "DIED"),
    ],
)
async def test_a_load_that_hits_a_limit_names_it(tier: str, source: str, limit: str, tmp_path: Path) -> None:
    spec = spec_of_source(tmp_path / "bundle", source, resources=Resources(memory_mb=64, open_files=32))
    with pytest.raises(HostFailed) as caught:
        async with launched(spec, tier):
            pass
    assert caught.value.limit == limit


async def test_an_exception_that_lies_about_itself_harms_nothing(tmp_path: Path) -> None:
    """Its `errno` is a property that ends the thread which reads it."""
    async with launched(spec_of_source(tmp_path / "bundle", GREEDY)) as host:
        for _ in range(20):  # more often than there are threads
            with pytest.raises(HostFailed) as caught:
                await ask(host, "lie")
            assert caught.value.limit == "FILE_LIMIT"  # what its slot says: its own word, for its own call


@pytest.mark.parametrize("tier", TIERS)
async def test_a_plugin_that_blocks_the_cpu_signal_is_killed_and_named_all_the_same(tier: str) -> None:
    async with launched(spec_of("worker"), tier, cpu_seconds=1) as host:
        with pytest.raises(HostFailed, match="CPU seconds") as caught:
            await ask(host, "burn", stubborn=True)
        assert caught.value.limit == "CPU_LIMIT"


@pytest.mark.parametrize("tier", TIERS)
async def test_the_nodes_memory_cap_is_lower_than_the_manifests(tier: Any) -> None:
    launcher = ZygoteLauncher(tier, 64)
    try:
        host = await launcher.launch(spec_of("worker", resources=Resources(memory_mb=8192)))
        with pytest.raises(HostFailed) as caught:
            await ask(host, "eat")
        assert caught.value.limit == "MEMORY_LIMIT"
        assert host.peak_memory_bytes() < 256 * MIB
    finally:
        await launcher.close()


@pytest.mark.parametrize("tier", TIERS)
async def test_a_thread_bomb_is_bounded(tier: str) -> None:
    spec = spec_of("worker", resources=Resources(processes=12))
    async with launched(spec, tier) as host:
        started = await ask(host, "threads", most=100_000)
        assert started < 1000
        uid = (await ask(host, "environment"))["uid"]
        if (
            uid >= 0x70000000 or tier == "strong"
        ):  # a user of its own: the limit is exact, the pool's first thread counted
            assert started <= 12


@pytest.mark.parametrize("tier", TIERS)
async def test_a_flood_of_output_is_named(tier: str) -> None:
    async with launched(spec_of("worker"), tier) as host:
        assert await ask(host, "shout", lines=3000) == "shouted"
        await until(lambda: host.output_limited)
        assert await ask(host, "echo", a=1) == {"a": 1}


@pytest.mark.parametrize("tier", TIERS)
async def test_a_forged_reply_costs_the_forger_its_life(tier: str) -> None:
    async with launched(spec_of("prober"), tier) as host:
        ended = exit_of(host)
        with pytest.raises(HostFailed) as caught:
            await ask(host, "forge", bytes="020000000f270000050000007b7d")
        assert caught.value.limit == "BAD_REPLY"
        assert "protocol" in await ended


# The scratch directory


@pytest_asyncio.fixture(loop_scope="session")
async def with_scratch(tmp_path: Path) -> AsyncIterator[Any]:
    spec = spec_of_source(tmp_path / "bundle", GREEDY, resources=Resources(memory_mb=256, scratch_mb=2))
    async with launched(spec, "strong") as host:
        yield host


@pytest.mark.parametrize("way", ["fill", "many_files", "one_long_file"])
async def test_a_disk_bomb_fills_its_own_scratch_and_no_more(way: str, with_scratch: Any) -> None:
    with pytest.raises(HostFailed) as caught:
        await ask(with_scratch, way)
    assert caught.value.limit == "SCRATCH_LIMIT"


async def test_scratch_is_where_temporary_files_go(with_scratch: Any) -> None:
    assert await ask(with_scratch, "ordinary") == ["content", "/hotswap-scratch", "/hotswap-scratch", True]
    tried, refused = await ask(with_scratch, "forbidden")
    assert tried == refused


async def test_a_database_in_scratch_works_until_it_is_full(with_scratch: Any) -> None:
    assert await ask(with_scratch, "database", rows=5) == 5
    with pytest.raises(HostFailed) as caught:
        await ask(with_scratch, "database", rows=100)
    assert caught.value.limit == "SCRATCH_LIMIT"


async def test_scratch_is_a_hosts_own_and_gone_with_it(tmp_path: Path) -> None:
    source = """
        import os, tempfile

        class Plugin:
            def keep(self, parameters, context):
                open(os.path.join(tempfile.gettempdir(), parameters["name"]), "w").close()
                return os.listdir(tempfile.gettempdir())
    """
    spec = spec_of_source(tmp_path / "bundle", source, resources=Resources(memory_mb=128, scratch_mb=1))
    launcher = ZygoteLauncher("strong", 2048)
    try:
        first, second = await asyncio.gather(launcher.launch(spec), launcher.launch(spec))
        assert await ask(first, "keep", name="a") == ["a"]
        assert await ask(second, "keep", name="b") == ["b"]
        await first.close()
        assert await ask(await launcher.launch(spec), "keep", name="c") == ["c"]
        assert not Path("/hotswap-scratch").exists()
    finally:
        await launcher.close()


@pytest.mark.parametrize("tier", ["standard", "none"])
async def test_scratch_that_could_not_be_bounded_is_refused(tier: str, tmp_path: Path) -> None:
    spec = spec_of_source(tmp_path / "bundle", GREEDY, resources=Resources(scratch_mb=1))
    with pytest.raises(HostFailed, match=r"scratchMb, which sandbox tier .* cannot bound") as caught:
        async with launched(spec, tier):
            pass
    assert caught.value.limit == "LOAD_FAILED"
