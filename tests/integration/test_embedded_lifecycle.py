"""Start, stop, restart and sudden ends of the embedded stack: the data and ports stay, no process does."""

import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.stack.supervised import OwnStack, gone, processes_of


def test_a_stop_leaves_no_process_and_a_restart_finds_ports_credentials_and_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with OwnStack(data) as stack:
        first = stack.info()["environment"]
        with psycopg.connect(first["HOTSWAP_POSTGRES__URL"]) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept VALUES (42)")
        assert len(processes_of(data)) >= 5
        assert stack.end(signal.SIGTERM) == 0
        assert processes_of(data) == {}
        assert not (data / "stack.json").exists()
    with OwnStack(data) as stack:
        assert stack.info()["environment"] == first
        with psycopg.connect(first["HOTSWAP_POSTGRES__URL"]) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (42,)
        assert stack.end(signal.SIGINT) == 0


def test_a_killed_supervisor_takes_everything_along_and_the_next_one_serves_on_the_same_ports(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with OwnStack(data) as stack:
        first = stack.info()["environment"]
        assert stack.end(signal.SIGKILL) == -signal.SIGKILL
        gone(data)
    with OwnStack(data) as stack:
        assert stack.info()["environment"] == first


def test_a_stack_ends_with_the_process_it_belongs_to(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        with OwnStack(tmp_path / "data", "--until-pid", str(owner.pid), "--ephemeral") as stack:
            owner.kill()
            owner.wait()
            assert stack.process is not None
            assert stack.process.wait(timeout=30) == 0
            gone(tmp_path / "data")
        assert not (tmp_path / "data").exists()


def test_a_stop_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    stack = OwnStack(data)
    stack.start()
    stack.wait_said("ready in")  # one of the servers; the others still start
    assert stack.end(signal.SIGINT) == 0
    gone(data)


def test_a_second_supervisor_on_the_same_data_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with OwnStack(data) as stack:
        assert stack.process is not None
        command = [sys.executable, "-m", "hotswap.embedded", "--servers-only", "--ephemeral", "--data-dir", str(data)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 1
        assert f"in use by the stack of process {stack.process.pid}" in second.stderr
        assert "--data-dir" in second.stderr
        with psycopg.connect(stack.info()["environment"]["HOTSWAP_POSTGRES__URL"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_port_that_somebody_else_took_is_left_to_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with OwnStack(data) as stack:
        url = stack.info()["environment"]["HOTSWAP_REDIS__URL"]
        assert stack.end(signal.SIGTERM) == 0
    taken = int(url.rpartition("/")[0].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", taken)), OwnStack(data) as stack:
        assert "the port of valkey was taken" in stack.output
        assert stack.info()["environment"]["HOTSWAP_REDIS__URL"] != url


def test_everything_listens_on_loopback_and_secrets_are_the_owners_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with OwnStack(data) as stack:
        ours = _socket_inodes(set(processes_of(data)))
        assert len(ours) > 10
        wide = [address for address, inode in _listening() if inode in ours and not address.startswith("0100007F")]
        assert wide == []
        for name in ("stack.json", "credentials.json", "seaweedfs.json", "valkey.conf", "lock"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        secrets = [stack.info()["environment"]["HOTSWAP_MINIO__SECRET_KEY"], stack.info()["tenantToken"]]
        for command in processes_of(data).values():
            assert not any(secret in command for secret in secrets)


def _listening() -> list[tuple[str, str]]:
    """(address in hexadecimal, inode) of every listening TCP socket; state 0A is LISTEN."""
    rows = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                rows.append((fields[1], fields[9]))
    return rows


def _socket_inodes(pids: set[int]) -> set[str]:
    inodes = set()
    for pid in pids:
        for handle in Path("/proc", str(pid), "fd").iterdir():
            target = str(handle.readlink())
            if target.startswith("socket:["):
                inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    return inodes


@pytest.mark.parametrize(
    ("left", "told"), [("temporal", "temporal'; see that all in it can be written"), ("postgres/", "no data folder")]
)
def test_a_folder_with_something_else_in_it_is_refused_in_a_line_and_nothing_is_left(
    tmp_path: Path, left: str, told: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / left).mkdir() if left.endswith("/") else (data / left).touch()
    command = [sys.executable, "-m", "hotswap.embedded", "--data-dir", str(data), "--servers-only"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    gone(data)
