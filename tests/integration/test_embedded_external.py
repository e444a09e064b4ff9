"""Any embedded server can be somebody else's: its settings are given, and it is not started."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests.stack.supervised import OwnStack


def test_external_servers_are_used_and_prepared_but_not_started(
    tmp_path: Path, stack: dict[str, Any], new_database: Callable[..., str], unique: Callable[[str], str]
) -> None:
    url, bucket = new_database(), unique("bucket")
    given = {
        "HOTSWAP_POSTGRES__URL": url,
        "HOTSWAP_MINIO__ENDPOINT": stack["environment"]["HOTSWAP_MINIO__ENDPOINT"],
        "HOTSWAP_MINIO__ACCESS_KEY": stack["environment"]["HOTSWAP_MINIO__ACCESS_KEY"],
        "HOTSWAP_MINIO__SECRET_KEY": stack["environment"]["HOTSWAP_MINIO__SECRET_KEY"],
        "HOTSWAP_MINIO__BUCKET": bucket,
    }
    with OwnStack(tmp_path / "data", variables=given) as own:
        assert {part["name"] for part in own.info()["parts"]} == {"temporal", "valkey"}
        assert given.items() <= own.info()["environment"].items()
        assert "HOTSWAP_POSTGRES__URL is set: using that server" in own.output
        assert own.end(signal.SIGTERM) == 0
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM plugins").fetchone() == (0,)


def test_an_external_server_that_does_not_answer_is_named(tmp_path: Path, stack: dict[str, Any]) -> None:
    away = "postgresql://hotswap:secret@127.0.0.1:9/hotswap"  # the discard port: nobody listens
    own = OwnStack(tmp_path / "data", variables={"HOTSWAP_POSTGRES__URL": away})
    own.start()
    own.wait_said("127.0.0.1:9/hotswap does not answer")
    assert own.process is not None
    assert own.process.wait(timeout=30) == 1
    own.end(signal.SIGTERM)
    assert "secret" not in own.output
