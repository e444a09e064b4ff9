"""The one way out of a host: to exactly the hosts that its manifest grants, by the node, and to nowhere else."""

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from hotswap.domain.errors import HostFailed, PluginError
from hotswap.runtime import egress as egress_module
from hotswap.runtime.egress import EgressPolicy
from hotswap.runtime.handle import ZygoteHost
from tests.integration.egress_lab import ANONYMOUS, LOOPBACK, RESOLVE, Server, granted, serving
from tests.integration.host_lab import ask, launched, leaves_nothing, spec_of, until

TIERS = ("standard", "strong")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def tls_server() -> Iterator[Server]:
    with serving(tls=True) as server:
        yield server


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def refusal(host: ZygoteHost, method: str, **parameters: Any) -> str:
    with pytest.raises(PluginError) as caught:
        await ask(host, method, **parameters)
    assert caught.value.kind == "PermissionError"
    return caught.value.message


@pytest.mark.parametrize("tier", TIERS)
async def test_a_granted_host_is_reached_by_the_usual_libraries(tmp_path: Path, server: Server, tier: str) -> None:
    port = server.port
    async with granted(tmp_path, f"network.http:api.test:{port}", tier=tier) as host:
        assert await ask(host, "urllib", url=f"http://API.test:{port}/") == f"hello API.test:{port}"
        assert await ask(host, "http_client", to="api.test", port=port, size=3_000_000) == 3_000_000
        assert await ask(host, "streams", to="api.test", port=port) == 3_000_000


@pytest.mark.parametrize("tier", TIERS)
async def test_tls_ends_in_the_plugin(tmp_path: Path, tls_server: Server, tier: str) -> None:
    port = tls_server.port
    async with granted(tmp_path, f"network.http:api.test:{port}", tier=tier) as host:
        text, cipher = await ask(host, "tls", to="api.test", port=port)
        assert text == f"hello api.test:{port}"
        assert cipher in ANONYMOUS
        assert await ask(host, "streams", to="api.test", port=port, tls=True) == 3_000_000
        if ssl.create_default_context().cert_store_stats()["x509_ca"]:
            assert await ask(host, "certificates") > 0


async def test_libraries_that_bring_their_own_connecting_work_too(tmp_path: Path, server: Server) -> None:
    libraries = [Path(httpx.__file__).parent.parent]
    url = f"http://api.test:{server.port}/"
    async with granted(tmp_path, f"network.http:api.test:{server.port}", library_paths=libraries) as host:
        for method in ("httpx", "httpx_async", "urllib3"):
            assert await ask(host, method, url=url) == f"hello api.test:{server.port}"


async def test_what_is_not_granted_is_refused_with_the_permission_to_ask_for(tmp_path: Path, server: Server) -> None:
    port = server.port
    async with granted(tmp_path, f"network.http:api.test:{port}", "network.http:*.wild.test") as host:
        for method in ("raw", "raw_async"):
            said = await refusal(host, method, to="other.test", port=port)
            assert (
                said.partition("(made.py")[0]
                .strip()
                .endswith(
                    f"this plugin may not connect to other.test:{port}; "
                    f"ask for it in requiredPermissions: network.http:other.test:{port}"
                )
            )
            assert "network.http:api.test" in await refusal(host, method, to="api.test", port=443)
            assert "network.http:wild.test" in await refusal(host, method, to="wild.test", port=443)
            for address in ("127.0.0.1", "::1", "0x7f000001", "2130706433", "127.1"):
                assert "an address" in await refusal(host, method, to=address, port=port) or ":" in address
        said = await refusal(host, "urllib", url=f"http://api.test:{port}/to/other.test:{port}")
        assert "may not connect to other.test" in said


async def test_a_name_that_leads_inside_is_refused_however_it_does(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    inside = [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.9", "169.254.169.254", "100.100.100.200", "168.63.129.16",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1", "::",
        "64:ff9b::7f00:1", "2002:7f00:1::", "192.0.0.192", "fec0::1", "::7f00:1", "64:ff9b:1::1", "not-an-address",
    ]  # fmt: skip
    answers = iter(inside)

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return [next(answers)]

    caplog.set_level(logging.WARNING, logger="hotswap.egress")
    async with granted(
        tmp_path, f"network.http:api.test:{server.port}", policy=EgressPolicy(resolve=rebinding)
    ) as host:
        for address in inside:
            said = await refusal(host, "raw", to="api.test", port=server.port)
            assert "has no public address" in said
            assert address not in said  # which is the operator's business
    (line,) = [message for message in caplog.messages if "127.0.0.1" in message]
    assert "HOTSWAP_SANDBOX__EGRESS_ALLOW_PRIVATE" in line
    assert f"and {len(inside) - 1} refusals more" in caplog.messages[-1]
    assert caplog.records[0].__dict__["plugin"] == "made"


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert EgressPolicy().allows(address)


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(tmp_path: Path, server: Server) -> None:
    """A name is looked up once: what it says a moment later cannot matter."""
    asked = []

    async def mixed(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["169.254.169.254", "127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    policy = EgressPolicy(LOOPBACK, resolve=mixed)
    async with granted(tmp_path, f"network.http:api.test:{server.port}", policy=policy) as host:
        assert await ask(host, "urllib", url=f"http://api.test:{server.port}/") == f"hello api.test:{server.port}"
    assert asked == ["api.test"]


async def test_a_passed_socket_leads_nowhere_else(tmp_path: Path, server: Server) -> None:
    async with granted(tmp_path, f"network.http:api.test:{server.port}") as host:
        found = await ask(host, "outright", to="api.test", port=server.port, other=server.port)
        assert found == ["PermissionError"] * 10
    async with granted(tmp_path) as host:
        assert await ask(host, "outright") == ["PermissionError"] * 3


@pytest.mark.parametrize("tier", TIERS)
async def test_a_grant_opens_nothing_else(tier: str) -> None:
    async def escaped(*permissions: str) -> set[str]:
        async with launched(spec_of("prober", permissions=permissions), tier) as host:
            attempts = await ask(host, "attempts")
            return {attempt for attempt in attempts if not await ask(host, "escape", attempt=attempt)}

    # These are no sockets yet, only places for what the node may make.
    places = {"open a TCP socket", "open a TCP6 socket", "open a socket of AF_INET", "open a socket of AF_INET6"}
    assert await escaped("network.http:api.test") - await escaped() == places


async def test_a_host_without_grants_has_no_way_to_ask(tmp_path: Path, server: Server) -> None:
    async with granted(tmp_path, "secrets.read") as host:
        assert host._gate is None
        for method in ("raw", "raw_async"):
            said = await refusal(host, method, to="api.test", port=server.port)
            assert "requiredPermissions: network.http:api.test" in said
        assert await ask(host, "lie", times=1, text="{}") == 0


async def test_faults_of_the_network_are_what_they_are_elsewhere(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with granted(tmp_path, f"network.http:api.test:{port}", f"network.http:ghost.test:{port}") as host:
            for name, kind in (("api.test", "ConnectionRefusedError"), ("ghost.test", "gaierror")):
                for method in ("raw", "raw_async"):
                    with pytest.raises(PluginError) as caught:
                        await ask(host, method, to=name, port=port)
                    assert caught.value.kind == kind


async def test_connections_are_counted_and_bounded_and_room_comes_back(tmp_path: Path, server: Server) -> None:
    policy = EgressPolicy(LOOPBACK, connections=5, resolve=RESOLVE)
    async with granted(tmp_path, f"network.http:api.test:{server.port}", policy=policy) as host:
        await ask(host, "keep", to="api.test", port=server.port, count=5)
        with pytest.raises(PluginError, match="CONNECTION_LIMIT") as caught:
            await ask(host, "raw", to="api.test", port=server.port)
        assert caught.value.kind == "ConnectionError"
        await ask(host, "let_go")
        await ask(host, "keep", to="api.test", port=server.port, count=5)


async def test_a_plugin_that_uses_up_its_files_is_told_so(tmp_path: Path, server: Server) -> None:
    async with granted(tmp_path, f"network.http:api.test:{server.port}") as host:
        before = descriptors()
        with pytest.raises((PluginError, HostFailed), match=r"Too many open files|CONNECTION_LIMIT|open files"):
            await ask(host, "keep", to="api.test", port=server.port, count=64)
        await ask(host, "let_go")
        await ask(host, "raw", to="api.test", port=server.port)
        await until(lambda: descriptors() <= before + 4)  # the node keeps no connection


@pytest.mark.parametrize(
    "text", ["x", "[]", "{}", "null", '{"id": 1, "host": "a", "port": "x", "timeout": 1}', "9" * 2000]
)
async def test_a_host_that_says_nonsense_gets_no_more_connections_and_harms_nobody(
    tmp_path: Path, server: Server, text: str
) -> None:
    async with granted(tmp_path, f"network.http:api.test:{server.port}") as host:
        assert await ask(host, "lie", times=1, text=text) >= 1
        with pytest.raises(PluginError) as caught:
            await ask(host, "raw", to="api.test", port=server.port)
        assert caught.value.kind == "ConnectionError"
        assert host.alive


async def test_a_flood_of_asks_waits_in_the_host(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress_module, "WINDOW_SECONDS", 60.0)
    flood = json.dumps({"id": 7, "host": "other.test", "port": 80, "timeout": 1})
    async with granted(tmp_path, f"network.http:api.test:{server.port}") as host:
        assert await ask(host, "lie", times=5000, text=flood) < 5000
        gate = host._gate
        assert gate is not None
        await until(lambda: gate._left == 0)
        assert len(gate._asking) <= egress_module.MAX_ASKING


async def test_nothing_of_it_is_left_when_hosts_end(tmp_path: Path, server: Server) -> None:
    hang = asyncio.Event()

    async def never(host: str, port: int) -> Sequence[str]:
        await hang.wait()
        return []

    with leaves_nothing():
        async with granted(tmp_path, f"network.http:api.test:{server.port}") as host:
            await ask(host, "keep", to="api.test", port=server.port, count=3)
        policy = EgressPolicy(LOOPBACK, resolve=never)
        async with granted(tmp_path, f"network.http:api.test:{server.port}", policy=policy) as host:
            host.submit("raw", "t", json.dumps({"to": "api.test", "port": server.port}).encode(), 60.0, lambda _: None)
            gate = host._gate
            assert gate is not None
            await until(lambda: len(gate._asking) == 1)


def test_it_works_on_uvloop(tmp_path: Path, server: Server) -> None:
    async def story() -> None:
        async with granted(tmp_path, f"network.http:api.test:{server.port}") as host:
            assert await ask(host, "urllib", url=f"http://api.test:{server.port}/") == f"hello api.test:{server.port}"
            assert "may not connect" in await refusal(host, "raw", to="other.test", port=80)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_a_grant_that_cannot_be_read_starts_no_host() -> None:
    with pytest.raises(HostFailed, match="is an address") as caught:
        async with launched(spec_of("worker", permissions=("network.http:10.0.0.1",))):
            pass
    assert caught.value.limit == "LOAD_FAILED"
