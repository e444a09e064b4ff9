"""Fixtures of the shared stack: real PostgreSQL, Valkey, S3 (SeaweedFS) and Temporal, started once for a pytest run.

A test that asks for one of these starts the stack if nobody has (2 s), also under `pytest -n auto`; it is stopped when
pytest ends, however it ends. Such tests get the marker `stack` (`-m "not stack"` leaves them out).

    stack            info of the running stack: `stack["environment"]`, `stack["temporalAddress"]`... (see stack.json)
    settings         hotswap.config.Settings for it, PRIVATE TO THIS XDIST WORKER: own migrated database, own S3 bucket
                     with versioning, own Valkey database number, own Temporal task queue. Shared by the worker's tests.
    environment      the same as a dict of HOTSWAP_ variables, to start our own processes with
    new_database     new_database() -> URL of an empty database; new_database(migrated=True) -> of a migrated one.
                     Dropped at the end of the session. For tests that need nobody else's rows.
    temporal_client  temporalio Client, connected (namespace `hotswap`, shared: use unique workflow ids and queues)
    artifact_bucket  name of this worker's bucket (settings.minio.bucket)
    unique           unique("plugin") -> "plugin-3f2a9c01": a name nobody else uses, valid as plugin, tenant and bucket
    live             a whole live system of its own, api, worker and three nodes included (tests.e2e.live.Live)

Valkey's publish/subscribe and Temporal's namespace are shared by all workers: name channels, ids and queues uniquely.
Tests that kill servers must start a stack of their own (hotswap.embedded.stack.EmbeddedStack), never kill this one.
HOTSWAP_TEST_STACK=DIR uses a stack that runs already.
"""

import atexit
import gc
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from hypothesis import settings as properties

from tests.browser.chromium import LEFT_OUT, asked_for, find_chromium
from tests.stack.live_system import live as live
from tests.stack.live_system import pytest_runtest_makereport as pytest_runtest_makereport
from tests.stack.shared import SharedStack

for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if (
        signal.getsignal(_number) == signal.SIG_IGN
    ):  # under nohup or in a shell's background; our processes would inherit it
        signal.signal(_number, _usual)

properties.register_profile("patient", deadline=None)  # no property fails for being slow: the machine may be busy
properties.load_profile("patient")

if TYPE_CHECKING:  # imported where they are used: a unit test does not wait a second for SQLAlchemy and Temporal
    from temporalio.client import Client

    from hotswap.config import Settings

SHARED = pytest.StashKey[SharedStack]()
STACK_FIXTURES = {"stack"}


def pytest_configure(config: pytest.Config) -> None:
    told = getattr(config, "workerinput", None)  # set in an xdist worker
    if told is None:
        config.stash[SHARED] = SharedStack.of_this_run()
    else:
        config.stash[SHARED] = SharedStack(Path(told["hotswap_stack_root"]), told["hotswap_stack_owner"])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist: tell each worker where the stack of this run is, before it starts."""
    shared = node.config.stash[SHARED]
    node.workerinput["hotswap_stack_root"] = str(shared.root)
    node.workerinput["hotswap_stack_owner"] = shared.owner


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under `--dist loadgroup`: keep together what shares a system of its own."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from tests.stack.scheduling import Together

    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What is imported and collected stays: half a million objects. Looking through them again and again while they are
    made is a third of collection's time, and later every full collection would look through them once more."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)  # the rooms' own conftests have marked their tests by then
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from tests.stack.scheduling import short_ones_last

        short_ones_last(items)
    for item in items:
        if STACK_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("stack")
    left_out = [item for item in items if item.get_closest_marker("browser")] if find_chromium() is None else []
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if find_chromium() is None and asked_for(config.args):
        terminalreporter.write_line(LEFT_OUT)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.stash[SHARED].stop()
    # A process that used a Temporal worker can abort while the interpreter ends (sdk-python #300), turning a green run
    # into exit code 134: leave before that, with pytest's own verdict.
    atexit.register(_leave, session)


def _leave(session: pytest.Session) -> None:
    if "temporalio.bridge.temporal_sdk_bridge" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(session.exitstatus))


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> dict[str, Any]:
    return pytestconfig.stash[SHARED].start()


@pytest.fixture(scope="session")
def environment(
    stack: dict[str, Any], new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    number = int(worker.removeprefix("gw")) if worker.startswith("gw") else 0
    variables: dict[str, str] = dict(stack["environment"])
    variables["HOTSWAP_POSTGRES__URL"] = new_database(migrated=True)
    # Database 0 is left to who asks the stack itself; there are 16.
    variables["HOTSWAP_REDIS__URL"] = f"{variables['HOTSWAP_REDIS__URL'].removesuffix('/0')}/{1 + number % 15}"
    variables["HOTSWAP_MINIO__BUCKET"] = f"plugins-{worker}-{secrets.token_hex(4)}"
    variables["HOTSWAP_TEMPORAL__TASK_QUEUE"] = f"hotswap-{worker}-{secrets.token_hex(4)}"
    variables["HOTSWAP_WORK_DIR"] = str(tmp_path_factory.mktemp("work"))
    from hotswap.embedded import seaweedfs

    seaweedfs.create_bucket(variables)
    return variables


@pytest.fixture(scope="session")
def settings(environment: dict[str, str]) -> "Settings":
    from hotswap.config import load_settings

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        return load_settings()


@pytest.fixture(scope="session")
def artifact_bucket(settings: "Settings") -> str:
    return settings.minio.bucket


@pytest.fixture(scope="session")
def new_database(stack: dict[str, Any]) -> Iterator[Callable[..., str]]:
    import psycopg
    from psycopg import sql

    from migrations import runner

    server = stack["environment"]["HOTSWAP_POSTGRES__URL"]
    address, _, template = server.rpartition("/")
    made: list[str] = []

    def make(migrated: bool = False) -> str:
        name = f"test_{secrets.token_hex(6)}"
        # The stack's own database is migrated and nobody uses it, so copying it (0.1 s) saves running the migrations.
        with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template if migrated else "template1")
                )
            )
        made.append(name)
        if migrated:
            runner.upgrade(f"{address}/{name}")  # nothing to do, unless the stack is an older one that is reused
        return f"{address}/{name}"

    yield make
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal_client(settings: "Settings") -> AsyncIterator["Client"]:
    from hotswap import temporal

    client = await temporal.connect(settings.temporal)
    await temporal.ensure_search_attributes(client)
    yield client


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    return lambda prefix: f"{prefix}-{secrets.token_hex(4)}"
