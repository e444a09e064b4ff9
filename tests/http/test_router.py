"""The router's contract with tenants: answers, figures, waiting. Hosts are fakes; the sockets are real."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.domain.analysis import VersionFigures
from hotswap.domain.errors import HostFailed
from hotswap.domain.quota import Quota
from hotswap.node.quotas import Meters
from hotswap.node.router import Router
from hotswap.ports.hosts import Reply
from tests.http.router_client import QUICK, TOKEN, Bench, bench, request
from tests.unit.node_fakes import NEVER_STARTED, eventually, order


@pytest.fixture
async def served() -> AsyncIterator[Bench]:
    async with bench() as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        yield made


def figures(made: Bench, version: str = "1.0.0") -> VersionFigures:
    seen = made.supervisor.figures("invoice", datetime.now(UTC) - timedelta(minutes=1)).versions
    return next(item for item in seen if item.version == version)


async def test_a_result_comes_back_as_the_host_gave_it(served: Bench) -> None:
    answer = await served.call(body=b'{"amount": 12}')
    assert answer.status == 200
    assert answer.json() == {"version": "1.0.0", "echo": {"amount": 12}}
    assert answer.headers["x-hotswap-version"] == "1.0.0"
    assert answer.headers["x-hotswap-node"] == "node-t"
    assert answer.headers["content-type"] == "application/json"
    assert served.launcher.hosts[0].calls == [("echo", "acme", b'{"amount": 12}')]
    assert figures(served).requests == 1
    assert figures(served).errors == 0


@pytest.mark.parametrize(
    ("method", "status", "code", "errors", "counted"),
    [
        ("boom", 500, "PLUGIN_ERROR", 1, 1),
        ("late", 504, "TIMEOUT", 1, 1),
        ("die", 502, "HOST_FAILED", 1, 1),
        ("nothing", 404, "NOT_FOUND", 0, 0),
    ],
)
async def test_every_way_to_fail_has_its_code_and_counts_as_it_should(
    served: Bench, method: str, status: int, code: str, errors: int, counted: int
) -> None:
    answer = await served.call(method)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["x-hotswap-version"] == "1.0.0"
    assert len(answer.json()["error"]["traceId"]) == 32
    assert answer.json()["error"]["timestamp"].endswith("Z")
    assert (figures(served).errors, figures(served).requests) == (errors, counted)


async def test_a_body_that_is_no_object_is_the_callers_fault_and_fails_no_version(served: Bench) -> None:
    answer = await served.call(body=b"[1]")
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert figures(served).requests == 0
    assert served.book.counter("invoice", "1.0.0").rejected == 1


async def test_unknown_plugins_and_paths_are_not_found(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request(plugin="unknown"))
    assert (await wire.receive()).code == "NOT_FOUND"
    for path in (b"/", b"/invoke/acme/invoice", b"/invoke/a%2Fb/invoice/echo", b"/invoke/acme/invoice/echo/more"):
        await wire.send(b"POST ", path, b" HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer tenant-secret\r\n\r\n")
        assert (await wire.receive()).status == 404, path
    await wire.send(b"GET /invoke/acme/invoice/echo HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer tenant-secret\r\n\r\n")
    answer = await wire.receive()
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


async def test_a_query_string_changes_nothing(served: Bench) -> None:
    assert (await served.call("echo?trace=1")).status == 200


@pytest.mark.parametrize("token", ["", "wrong", "tenant-secre", "tenant-secretx", "tenant-secret\x00"])
async def test_a_wrong_token_is_refused_before_anything_else(served: Bench, token: str) -> None:
    wire = await served.wire()
    await wire.send(request(plugin="unknown", token=token))
    answer = await wire.receive()
    assert answer.status in (400, 401)
    assert served.launcher.hosts[0].calls == []


async def test_no_token_is_refused_and_the_scheme_may_be_written_small(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(b"POST /invoke/acme/invoice/echo HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\n{}")
    answer = await wire.receive()
    assert (answer.status, answer.code, answer.headers["www-authenticate"]) == (401, "UNAUTHORIZED", "Bearer")
    await wire.send(request().replace(b"Bearer ", b"bearer  "))
    assert (await wire.receive()).status == 200


async def test_the_trace_of_the_caller_names_the_error(served: Bench) -> None:
    wire = await served.wire()
    trace = "0af7651916cd43dd8448eb211c80319c"
    await wire.send(request("boom", extra=f"traceparent: 00-{trace}-b7ad6b7169203331-01\r\n".encode()))
    assert (await wire.receive()).json()["error"]["traceId"] == trace
    for bad in (b"00-zz-1-01", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b""):
        await wire.send(request("boom", extra=b"traceparent: " + bad + b"\r\n"))
        given = (await wire.receive()).json()["error"]["traceId"]
        assert len(given) == 32
        assert given != "0" * 32


async def test_the_trace_of_the_caller_goes_on_to_the_host(served: Bench) -> None:
    wire = await served.wire()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await wire.send(request(extra=b"TraceParent: " + trace + b"\r\n"))
    await wire.receive()
    await wire.send(request())
    await wire.receive()
    assert served.launcher.hosts[0].traceparents[-2:] == [trace, b""]


async def test_a_request_in_flight_stays_with_the_version_it_began_with(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"))
    await eventually(lambda: served.launcher.hosts[0].held)
    await served.supervisor.stage(order(2, "1.0.0", "2.0.0", 10_000))
    assert (await served.call()).headers["x-hotswap-version"] == "2.0.0"
    retiring = asyncio.create_task(served.supervisor.retire(order(3, "2.0.0"), timedelta(seconds=5)))
    await eventually(lambda: served.supervisor.routes["invoice"].generation == 3)
    served.launcher.hosts[0].release()
    answer = await wire.receive()
    assert (answer.status, answer.headers["x-hotswap-version"]) == (200, "1.0.0")
    await retiring
    assert served.launcher.hosts[0].closed


async def test_a_request_waits_for_a_host_that_restarts(served: Bench) -> None:
    gate = served.launcher.gates["1.0.0"] = asyncio.Event()
    served.launcher.hosts[0].die()
    call = asyncio.create_task(served.call())
    await eventually(lambda: served.router.waiting == 1)
    gate.set()
    answer = await call
    assert answer.status == 200
    assert served.router.waiting == 0
    assert figures(served).errors == 0


async def test_who_waits_too_long_gets_503_with_retry_after(served: Bench) -> None:
    served.launcher.gates["1.0.0"] = asyncio.Event()
    served.launcher.hosts[0].die()
    answer = await served.call()
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "SERVICE_UNAVAILABLE", "1")
    assert (figures(served).errors, figures(served).failures) == (1, 1)
    assert served.router.in_flight == 0


async def test_the_waiting_room_is_bounded(served: Bench) -> None:
    served.launcher.gates["1.0.0"] = asyncio.Event()
    served.launcher.hosts[0].die()
    began = asyncio.get_running_loop().time()
    calls = [asyncio.create_task(served.call()) for _ in range(QUICK.waiting)]
    await eventually(lambda: served.router.waiting == QUICK.waiting)
    assert (await served.call()).status == 503
    assert asyncio.get_running_loop().time() - began < QUICK.wait_seconds
    assert [answer.status for answer in await asyncio.gather(*calls)] == [503] * QUICK.waiting


async def test_a_rollback_rescues_who_waits_for_a_dead_candidate(served: Bench) -> None:
    await served.supervisor.stage(order(2, "1.0.0", "2.0.0", 10_000))
    served.launcher.gates["2.0.0"] = asyncio.Event()
    served.launcher.live("2.0.0")[0].die()
    call = asyncio.create_task(served.call())
    await eventually(lambda: served.router.waiting == 1)
    await served.supervisor.apply(order(3, "1.0.0"))
    answer = await call
    assert (answer.status, answer.headers["x-hotswap-version"]) == (200, "1.0.0")


async def test_a_call_that_never_started_is_given_to_the_next_process(served: Bench) -> None:
    host = served.launcher.hosts[0]
    host.refusal = NEVER_STARTED
    call = asyncio.create_task(served.call())
    await eventually(lambda: served.router.waiting == 1)
    host.die()
    assert (await call).status == 200
    assert host.calls == []


async def test_a_call_that_never_started_is_given_to_nobody_when_its_client_has_gone(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"))
    old = served.launcher.hosts[0]
    await eventually(lambda: old.held)
    await served.supervisor.stage(order(2, "1.0.0", "2.0.0", 10_000))
    wire.reset()
    await eventually(lambda: served.router.connections == 0)
    old.held.pop()(NEVER_STARTED)
    assert served.router.in_flight == 0
    assert served.launcher.live("2.0.0")[0].calls == []


async def test_a_request_whose_time_is_over_while_it_waits_is_run_nowhere() -> None:
    meters = Meters(Quota(requests_per_minute=1000, execution_seconds=0.05), asyncio.get_running_loop().time)
    async with bench(meters=meters) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        gate = made.launcher.gates["1.0.0"] = asyncio.Event()
        made.launcher.hosts[0].die()
        call = asyncio.create_task(made.call())
        await eventually(lambda: made.router.waiting == 1)
        await asyncio.sleep(0.06)
        gate.set()
        answer = await call
        assert (answer.status, answer.code) == (504, "TIMEOUT")
        assert "nothing was run" in answer.json()["error"]["message"]
        assert [host.calls for host in made.launcher.hosts] == [[], []]
        assert (figures(made).errors, figures(made).failures) == (1, 1)


async def test_a_fault_in_one_look_at_the_connections_is_not_the_end_of_all(
    served: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([LookupError("nobody foresaw this")])
    check = served.router.clients.check

    def fails_once(now: float) -> None:
        for fault in faults:
            raise fault
        check(now)

    monkeypatch.setattr(served.router.clients, "check", fails_once)
    silent = await served.wire()
    assert await silent.ended()  # quiet for too long, as somebody still sees


async def test_a_host_that_does_not_keep_up_is_503_at_once(served: Bench) -> None:
    served.launcher.hosts[0].refusal = Reply(ok=False, body=b"its backlog is full", started=False)
    answer = await served.call()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert (figures(served).errors, figures(served).failures) == (1, 1)


async def test_what_an_ended_drain_left_unstarted_goes_to_the_new_version(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"))
    old = served.launcher.hosts[0]
    await eventually(lambda: old.held)
    held, old.held = old.held, []
    await served.supervisor.retire(order(2, "2.0.0"), timedelta(seconds=0))
    served.router.finish(held[0].__self__, NEVER_STARTED)  # type: ignore[attr-defined]
    await eventually(lambda: served.launcher.live("2.0.0")[0].held)
    served.launcher.live("2.0.0")[0].release()
    assert (await wire.receive()).headers["x-hotswap-version"] == "2.0.0"


async def test_nobody_waits_for_a_host_that_is_not_coming_back_soon(served: Bench) -> None:
    served.launcher.broken["1.0.0"] = HostFailed("cannot import", "LOAD_FAILED")
    served.launcher.hosts[0].die()
    await eventually(lambda: served.launcher.launches["1.0.0"] >= 6)  # the backoff has passed 0.4 s by now
    began = asyncio.get_running_loop().time()
    assert (await served.call()).status == 503
    assert asyncio.get_running_loop().time() - began < 0.35


async def test_a_node_that_is_not_ready_refuses_connections_so_that_another_is_asked(served: Bench) -> None:
    router = Router("node-u", served.supervisor.routes, TOKEN, timedelta(seconds=5))
    port = await router.bind("127.0.0.1", 0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await router.serve()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()
    await router.close()


async def test_a_client_that_goes_away_leaves_nothing_behind(served: Bench) -> None:
    waiting, running = await served.wire(), await served.wire()
    await running.send(request("hold"))
    await eventually(lambda: served.launcher.hosts[0].held)
    served.launcher.gates["1.0.0"] = asyncio.Event()
    host = served.launcher.hosts[0]
    held, host.held = host.held, []
    host.die()
    await waiting.send(request())
    await eventually(lambda: served.router.waiting == 1)
    waiting.reset()
    running.reset()
    await eventually(lambda: served.router.connections == 0)
    assert (served.router.waiting, served.router.in_flight) == (0, 1)
    host.held = held
    host.release()  # its answer has nobody to go to
    assert served.router.in_flight == 0
    assert figures(served).requests == 1


async def test_too_many_connections_are_turned_away() -> None:
    async with bench(replace(QUICK, connections=2)) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        first, second, third = await made.wire(), await made.wire(), await made.wire()
        assert (await third.receive()).status == 503
        assert await third.ended()
        for wire in (first, second):
            await wire.send(request())
            assert (await wire.receive()).status == 200


async def test_a_disabled_tenant_is_refused_and_told_why_and_others_are_served() -> None:
    disabled: set[tuple[str, str]] = set()
    async with bench(disabled=disabled) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        assert (await made.call()).status == 200
        disabled.add(("acme", "invoice"))
        refused = await made.call()
        assert (refused.status, refused.code) == (403, "FORBIDDEN")
        assert "invoice is disabled for tenant acme" in refused.json()["error"]["message"]
        assert (await made.call(tenant="globex")).status == 200
        disabled.clear()
        assert (await made.call()).status == 200
