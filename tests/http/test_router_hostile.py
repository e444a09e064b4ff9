"""The router against clients that break HTTP, send too much, too slowly, or all at once."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.http.router_client import QUICK, Bench, bench, request
from tests.unit.node_fakes import eventually, order

HEAD = b"POST /invoke/acme/invoice/echo HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer tenant-secret\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def served() -> AsyncIterator[Bench]:
    async with bench() as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        yield made


def calls(made: Bench) -> int:
    return len(made.launcher.hosts[0].calls)


MALFORMED = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    "a version that never was": b"POST /invoke/acme/invoice/echo HTTP/9.7\r\nHost: n\r\n\r\n",
    "an unknown verb": b"BREW /invoke/acme/invoice/echo HTTP/1.1\r\nHost: n\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"POST /invoke/acme/invoice/echo HTTP/1.1\r\nAuthorization: Bearer tenant-secret\r\n\r\n",
    "two hosts": HEAD + b"Host: m\r\nContent-Length: 2\r\n\r\n{}",
    "two authorizations": HEAD + b"Authorization: Bearer tenant-secret\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length that is a word": HEAD + b"Content-Length: two\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -2\r\n\r\n{}",
    "a length beyond 64 bits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "length and chunks (smuggling)": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is a word": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"2\r\n{}XX0\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "a folded header": HEAD + b"X-A: b\r\n c: d\r\nContent-Length: 2\r\n\r\n{}",
    "a header without a colon": HEAD + b"NoColonHere\r\n\r\n",
    "a zero byte in a header": HEAD + b"X-A: b\x00c\r\n\r\n",
    "a bare carriage return": HEAD + b"X-A: b\rc\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_requests_get_400_and_the_connection_ends(served: Bench, name: str) -> None:
    wire = await served.wire()
    await wire.send(MALFORMED[name])
    answer = await wire.receive()
    assert (answer.status, answer.code, answer.headers["connection"]) == (400, "VALIDATION_ERROR", "close")
    assert await wire.ended()
    assert calls(served) == 0


async def test_what_follows_a_malformed_request_is_never_executed(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request(), MALFORMED["length and chunks (smuggling)"], request(), request())
    assert (await wire.receive()).status == 200
    assert (await wire.receive()).status == 400
    assert await wire.ended()
    assert calls(served) == 1


async def test_pipelined_requests_are_executed_and_answered_in_order(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(*(request(body=b'{"n":%d}' % n) for n in range(200)))
    for n in range(200):
        assert (await wire.receive()).json()["echo"] == {"n": n}
    assert [body for _, _, body in served.launcher.hosts[0].calls] == [b'{"n":%d}' % n for n in range(200)]


async def test_a_pipelined_request_does_not_begin_before_the_one_ahead_has_ended(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"), request("echo"), request("nothing"))
    await eventually(lambda: served.launcher.hosts[0].held)
    assert calls(served) == 1
    served.launcher.hosts[0].release()
    assert [(await wire.receive()).status for _ in range(3)] == [200, 200, 404]


async def test_a_request_may_arrive_byte_by_byte(served: Bench) -> None:
    wire = await served.wire()
    for byte in request(body=b'{"a":1}'):
        await wire.send(bytes([byte]))
    assert (await wire.receive()).json()["echo"] == {"a": 1}


async def test_chunked_bodies_are_joined_and_trailers_are_no_headers(served: Bench) -> None:
    wire = await served.wire()
    without = CHUNKED.replace(b"Authorization: Bearer tenant-secret\r\n", b"")
    await wire.send(CHUNKED, b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n')
    assert (await wire.receive()).json()["echo"] == {"a": 1}
    await wire.send(without, b"2\r\n{}\r\n0\r\nAuthorization: Bearer tenant-secret\r\n\r\n")
    assert (await wire.receive()).status == 401
    assert calls(served) == 1


async def test_an_empty_header_hides_no_other(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request().replace(b"Host: node", b"X-Empty:\r\nHost: node\r\nX-Also-Empty:"))
    assert (await wire.receive()).status == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_oversized_bodies_are_413_and_reach_no_host(served: Bench, declared: bool) -> None:
    wire = await served.wire()
    huge = b"x" * (QUICK.body_bytes + 1)
    if declared:
        await wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(huge))
    else:
        await wire.send(CHUNKED, b"%x\r\n" % len(huge), huge)
    answer = await wire.receive()
    assert (answer.status, answer.code, answer.headers["connection"]) == (413, "PAYLOAD_TOO_LARGE", "close")
    assert await wire.ended()
    assert calls(served) == 0


async def test_the_largest_allowed_body_passes(served: Bench) -> None:
    body = b'{"a":"' + b"x" * (QUICK.body_bytes - 8) + b'"}'
    assert len(body) == QUICK.body_bytes
    assert (await served.call(body=body)).status == 200


async def test_a_client_that_keeps_sending_after_413_still_reads_its_answer(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(HEAD + b"Content-Length: 3000000\r\n\r\n")
    for _ in range(30):
        wire.writer.write(b"x" * 100_000)
    answer = await wire.receive()
    assert answer.status == 413


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X-Long: " + b"a" * 5000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: some value\r\n" % n for n in range(400)) + b"\r\n",
        b"POST /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: n\r\n\r\n",
    ],
    ids=["one long", "many", "a long path"],
)
async def test_too_many_header_bytes_are_refused(served: Bench, head: bytes) -> None:
    wire = await served.wire()
    await wire.send(head)
    answer = await wire.receive()
    assert (answer.status, answer.code) == (431, "PAYLOAD_TOO_LARGE")
    assert await wire.ended()


async def test_a_header_without_end_is_refused_before_it_fills_the_memory(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(HEAD + b"X-Long: ")
    refused = asyncio.create_task(wire.receive())
    for _ in range(200):
        if refused.done():
            break
        wire.writer.write(b"a" * 1000)
        await asyncio.sleep(0.001)
    assert (await refused).status == 431


async def test_many_pipelined_requests_are_not_taken_for_one_large_head(served: Bench) -> None:
    wire = await served.wire()
    everything = b"".join(request(body=b"{}") for _ in range(300))
    await wire.send(everything[:-40])
    for _ in range(299):
        assert (await wire.receive()).status == 200
    await wire.send(everything[-40:])
    assert (await wire.receive()).status == 200


@pytest.mark.parametrize("part", [b"POST /invoke/ac", HEAD, HEAD + b"Content-Length: 10\r\n\r\n{"])
async def test_a_slow_client_is_cut_and_told_why(served: Bench, part: bytes) -> None:
    wire = await served.wire()
    await wire.send(part)
    answer = await wire.receive()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert await wire.ended()
    await eventually(lambda: served.router.connections == 0)


async def test_dripping_bytes_do_not_extend_the_time(served: Bench) -> None:
    wire = await served.wire()
    refused = asyncio.create_task(wire.receive())
    began = time.monotonic()
    await wire.send(HEAD)
    while not refused.done() and time.monotonic() - began < 3:
        wire.writer.write(b"X-A: b\r\n")
        await asyncio.sleep(0.02)
    assert (await refused).status == 408
    assert time.monotonic() - began < 1.5


async def test_quiet_before_a_request_is_not_held_against_it(served: Bench) -> None:
    wire = await served.wire()
    await asyncio.sleep(QUICK.read_seconds * 1.2)  # quiet, but not yet for the idle time
    whole = request()
    await wire.send(whole[:-1])
    await asyncio.sleep(QUICK.sweep_seconds * 2)  # looked at in the middle
    await wire.send(whole[-1:])
    assert (await wire.receive()).status == 200


async def test_a_client_that_does_not_read_its_answers_is_cut(served: Bench) -> None:
    wire = await served.wire()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    body = b'{"a":"' + b"x" * 60_000 + b'"}'
    for _ in range(400):
        wire.writer.write(request(body=body))
    await eventually(lambda: served.router.connections == 0)
    assert calls(served) < 400  # reading stopped long before: nothing piles up for it


async def test_quiet_connections_are_closed_after_a_while(served: Bench) -> None:
    silent, used = await served.wire(), await served.wire()
    await used.send(request())
    assert (await used.receive()).status == 200
    assert await silent.ended()
    assert await used.ended()


async def test_a_host_may_take_longer_than_the_idle_time(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"))
    await eventually(lambda: served.launcher.hosts[0].held)
    waited = asyncio.create_task(wire.receive())
    done, _ = await asyncio.wait({waited}, timeout=QUICK.idle_seconds * 2)
    assert not done
    served.launcher.hosts[0].release()
    assert (await waited).status == 200


async def test_expect_continue_is_answered_and_a_refusal_comes_before_the_body(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await wire.receive()).status == 100
    await wire.send(b"{}")
    assert (await wire.receive()).status == 200
    stranger = HEAD.replace(b"tenant-secret", b"wrong")
    await wire.send(stranger + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await wire.receive()).status == 401
    assert await wire.ended()


async def test_connection_close_is_honoured_and_what_follows_is_ignored(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request(extra=b"Connection: close\r\n"), request())
    answer = await wire.receive()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await wire.ended()
    assert calls(served) == 1


async def test_http_1_0_closes_unless_asked_to_stay(served: Bench) -> None:
    wire = await served.wire()
    old = request().replace(b"HTTP/1.1", b"HTTP/1.0")
    await wire.send(old.replace(b"Host: node", b"Connection: keep-alive"))
    answer = await wire.receive()
    assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
    await wire.send(old)
    assert (await wire.receive()).headers["connection"] == "close"
    assert await wire.ended()


async def test_http_0_9_carries_no_token_and_is_refused(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(b"POST /invoke/acme/invoice/echo\r\n\r\n")
    assert (await wire.receive()).status == 401
    assert await wire.ended()


async def test_an_offer_to_upgrade_is_refused_with_the_remedy(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request(extra=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"), request())
    answer = await wire.receive()
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert "Upgrade" in answer.json()["error"]["message"]
    assert await wire.ended()
    assert calls(served) == 0


async def test_connect_is_no_method_of_ours(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(b"CONNECT node:443 HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer tenant-secret\r\n\r\n\x16\x03")
    assert (await wire.receive()).status in (404, 405)
    assert await wire.ended()


async def test_a_half_closed_client_gets_its_answer(served: Bench) -> None:
    wire = await served.wire()
    await wire.send(request("hold"), request())
    wire.writer.write_eof()
    await eventually(lambda: served.launcher.hosts[0].held)
    served.launcher.hosts[0].release()
    assert (await wire.receive()).status == 200
    last = await wire.receive()
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert await wire.ended()
