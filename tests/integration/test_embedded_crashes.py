"""kill -9 of any server: it comes back on the same port, with everything that was acknowledged."""

import io
from collections.abc import Iterator

import minio
import psycopg
import pytest
import redis

from hotswap.config_temporal import TemporalSettings
from hotswap.temporal import connect
from tests.stack.supervised import OwnStack

pytestmark = pytest.mark.xdist_group("embedded-crashes")  # one stack for the whole module


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with OwnStack(tmp_path_factory.mktemp("crashes") / "data") as stack:
        yield stack


def test_postgres_comes_back_with_what_was_committed(own: OwnStack) -> None:
    url = own.info()["environment"]["HOTSWAP_POSTGRES__URL"]
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
    for number in range(3):
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO kept VALUES (%s)", (number,))
        own.kill("postgres")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT array_agg(n ORDER BY n) FROM kept").fetchone() == ([0, 1, 2],)


def test_postgres_comes_back_when_its_old_process_id_is_somebody_elses(own: OwnStack) -> None:
    """A stale postmaster.pid names a living process: alone, PostgreSQL would refuse to start."""
    pid_file = own.data_dir / "postgres" / "postmaster.pid"
    own.kill("postgres")
    lines = pid_file.read_text(encoding="utf-8").splitlines()
    pid_file.write_text("\n".join([str(own.pid("valkey")), *lines[1:]]) + "\n", encoding="utf-8")
    own.kill("postgres")
    with psycopg.connect(own.info()["environment"]["HOTSWAP_POSTGRES__URL"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_valkey_comes_back_with_what_was_written(own: OwnStack) -> None:
    with redis.Redis.from_url(own.info()["environment"]["HOTSWAP_REDIS__URL"]) as client:
        client.set("kept", "42")
    own.kill("valkey")
    with redis.Redis.from_url(own.info()["environment"]["HOTSWAP_REDIS__URL"]) as client:
        assert client.get("kept") == b"42"


def test_the_object_store_comes_back_with_its_objects(own: OwnStack) -> None:
    environment = own.info()["environment"]
    client = minio.Minio(
        environment["HOTSWAP_MINIO__ENDPOINT"],
        access_key=environment["HOTSWAP_MINIO__ACCESS_KEY"],
        secret_key=environment["HOTSWAP_MINIO__SECRET_KEY"],
        secure=False,
    )
    content = bytes(range(256)) * 4096
    client.put_object("plugins", "kept", io.BytesIO(content), len(content))
    own.kill("seaweedfs")
    response = client.get_object("plugins", "kept")
    try:
        assert response.read() == content
    finally:
        response.close()
        response.release_conn()
    client.put_object("plugins", "after", io.BytesIO(b"1"), 1)


async def test_temporal_comes_back_with_its_workflows(own: OwnStack) -> None:
    environment = own.info()["environment"]
    settings = TemporalSettings(
        address=environment["HOTSWAP_TEMPORAL__ADDRESS"], namespace=environment["HOTSWAP_TEMPORAL__NAMESPACE"]
    )
    client = await connect(settings)
    started = await client.start_workflow("Nobody", id="kept", task_queue="nobody-polls")
    own.kill("temporal")
    described = await client.get_workflow_handle("kept", run_id=started.result_run_id).describe()
    assert described.workflow_type == "Nobody"


def test_restarts_are_counted_where_people_look(own: OwnStack) -> None:
    before = {part["name"]: part["restarts"] for part in own.info()["parts"]}
    own.kill("valkey")
    after = {part["name"]: part["restarts"] for part in own.info()["parts"]}
    assert after == {**before, "valkey": before["valkey"] + 1}
