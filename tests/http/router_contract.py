"""What a router promises whoever it is: run for one within the node's process (test_router_hostile) and for several in processes
of their own (tests/integration/test_routers). Each imports these tests and says by a fixture `served` who is meant.
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest

from hotswap.domain.quota import QuotaOverride
from tests.http.router_client import QUICK, Response, Wire, request

HEAD = b"POST /invoke/acme/invoice/echo HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer tenant-secret\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

QUEUED, FLOOD, MOST_TAKEN = 40, 220, 170
"""Of the limits that `served` has: requests that may wait. A flood, and more than a process's window (128) and that."""


__all__ = [
    "test_a_call_that_takes_longer_than_its_quota_allows_ends",
    "test_a_client_that_keeps_sending_after_413_still_reads_its_answer",
    "test_a_header_without_end_is_refused_before_it_fills_the_memory",
    "test_a_request_may_arrive_byte_by_byte",
    "test_a_slow_client_is_cut_and_told_why",
    "test_an_empty_header_hides_no_other",
    "test_an_offer_to_upgrade_is_refused_with_the_remedy",
    "test_chunked_bodies_are_joined_and_trailers_are_no_headers",
    "test_connect_is_no_method_of_ours",
    "test_connection_close_is_honoured_and_what_follows_is_ignored",
    "test_dripping_bytes_do_not_extend_the_time",
    "test_expect_continue_is_answered_and_a_refusal_comes_before_the_body",
    "test_http_0_9_carries_no_token_and_is_refused",
    "test_http_1_0_closes_unless_asked_to_stay",
    "test_malformed_requests_get_400_and_the_connection_ends",
    "test_many_pipelined_requests_are_not_taken_for_one_large_head",
    "test_more_than_a_version_can_take_is_refused_at_once_and_runs_nowhere",
    "test_oversized_bodies_are_413_and_reach_no_host",
    "test_pipelined_requests_are_answered_in_order",
    "test_requests_over_the_rate_are_refused_over_whatever_connection_they_come",
    "test_the_largest_allowed_body_passes",
    "test_too_many_header_bytes_are_refused",
    "test_what_calls_under_way_may_hold_is_bounded_for_each_tenant",
    "test_what_follows_a_malformed_request_is_never_executed",
]


class Served(Protocol):
    """One plugin, `invoice` 1.0.0, behind a node's router or routers."""

    hangs: str
    """A method that never answers within its deadline."""

    async def wire(self) -> Wire: ...
    async def call(self, method: str = "echo", tenant: str = "acme", body: bytes = b"{}") -> Response: ...

    async def ran(self) -> int:
        """Calls that the plugin has had since the test began."""
        ...

    async def no_clients(self) -> None:
        """Return when nobody is connected any more."""
        ...

    async def limit(self, tenant: str, quota: QuotaOverride) -> None:
        """Give a tenant limits of its own; they hold when this returns."""
        ...

    def stalled(self) -> AbstractAsyncContextManager[str]:
        """The plugin's process begins nothing until the block ends; gives a method to call meanwhile."""
        ...


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
async def test_malformed_requests_get_400_and_the_connection_ends(served: Served, name: str) -> None:
    wire = await served.wire()
    await wire.send(MALFORMED[name])
    answer = await wire.receive()
    assert (answer.status, answer.code, answer.headers["connection"]) == (400, "VALIDATION_ERROR", "close")
    assert await wire.ended()
    assert await served.ran() == 0


async def test_what_follows_a_malformed_request_is_never_executed(served: Served) -> None:
    wire = await served.wire()
    await wire.send(request(), MALFORMED["length and chunks (smuggling)"], request(), request())
    assert (await wire.receive()).status == 200
    assert (await wire.receive()).status == 400
    assert await wire.ended()
    assert await served.ran() == 1


async def test_a_request_may_arrive_byte_by_byte(served: Served) -> None:
    wire = await served.wire()
    for byte in request(body=b'{"a":1}'):
        await wire.send(bytes([byte]))
    assert (await wire.receive()).json()["echo"] == {"a": 1}


async def test_chunked_bodies_are_joined_and_trailers_are_no_headers(served: Served) -> None:
    wire = await served.wire()
    without = CHUNKED.replace(b"Authorization: Bearer tenant-secret\r\n", b"")
    await wire.send(CHUNKED, b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n')
    assert (await wire.receive()).json()["echo"] == {"a": 1}
    await wire.send(without, b"2\r\n{}\r\n0\r\nAuthorization: Bearer tenant-secret\r\n\r\n")
    assert (await wire.receive()).status == 401
    assert await served.ran() == 1


async def test_an_empty_header_hides_no_other(served: Served) -> None:
    wire = await served.wire()
    await wire.send(request().replace(b"Host: node", b"X-Empty:\r\nHost: node\r\nX-Also-Empty:"))
    assert (await wire.receive()).status == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_oversized_bodies_are_413_and_reach_no_host(served: Served, declared: bool) -> None:
    wire = await served.wire()
    huge = b"x" * (QUICK.body_bytes + 1)
    if declared:
        await wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(huge))
    else:
        await wire.send(CHUNKED, b"%x\r\n" % len(huge), huge)
    answer = await wire.receive()
    assert (answer.status, answer.code, answer.headers["connection"]) == (413, "PAYLOAD_TOO_LARGE", "close")
    assert await wire.ended()
    assert await served.ran() == 0


async def test_the_largest_allowed_body_passes(served: Served) -> None:
    body = b'{"a":"' + b"x" * (QUICK.body_bytes - 8) + b'"}'
    assert len(body) == QUICK.body_bytes
    assert (await served.call(body=body)).status == 200


async def test_a_client_that_keeps_sending_after_413_still_reads_its_answer(served: Served) -> None:
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
async def test_too_many_header_bytes_are_refused(served: Served, head: bytes) -> None:
    wire = await served.wire()
    await wire.send(head)
    answer = await wire.receive()
    assert (answer.status, answer.code) == (431, "PAYLOAD_TOO_LARGE")
    assert await wire.ended()


async def test_a_header_without_end_is_refused_before_it_fills_the_memory(served: Served) -> None:
    wire = await served.wire()
    await wire.send(HEAD + b"X-Long: ")
    refused = asyncio.create_task(wire.receive())
    for _ in range(200):
        if refused.done():
            break
        wire.writer.write(b"a" * 1000)
        await asyncio.sleep(0.001)
    assert (await refused).status == 431


async def test_many_pipelined_requests_are_not_taken_for_one_large_head(served: Served) -> None:
    wire = await served.wire()
    everything = b"".join(request(body=b"{}") for _ in range(300))
    await wire.send(everything[:-40])
    for _ in range(299):
        assert (await wire.receive()).status == 200
    await wire.send(everything[-40:])
    assert (await wire.receive()).status == 200


@pytest.mark.parametrize("part", [b"POST /invoke/ac", HEAD, HEAD + b"Content-Length: 10\r\n\r\n{"])
async def test_a_slow_client_is_cut_and_told_why(served: Served, part: bytes) -> None:
    wire = await served.wire()
    await wire.send(part)
    answer = await wire.receive()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert await wire.ended()
    await served.no_clients()


async def test_dripping_bytes_do_not_extend_the_time(served: Served) -> None:
    wire = await served.wire()
    refused = asyncio.create_task(wire.receive())
    began = time.monotonic()
    await wire.send(HEAD)
    while not refused.done() and time.monotonic() - began < 3:
        wire.writer.write(b"X-A: b\r\n")
        await asyncio.sleep(0.02)
    assert (await refused).status == 408
    assert time.monotonic() - began < 1.5


async def test_expect_continue_is_answered_and_a_refusal_comes_before_the_body(served: Served) -> None:
    wire = await served.wire()
    await wire.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await wire.receive()).status == 100
    await wire.send(b"{}")
    assert (await wire.receive()).status == 200
    stranger = HEAD.replace(b"tenant-secret", b"wrong")
    await wire.send(stranger + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await wire.receive()).status == 401
    assert await wire.ended()


async def test_connection_close_is_honoured_and_what_follows_is_ignored(served: Served) -> None:
    wire = await served.wire()
    await wire.send(request(extra=b"Connection: close\r\n"), request())
    answer = await wire.receive()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await wire.ended()
    assert await served.ran() == 1


async def test_http_1_0_closes_unless_asked_to_stay(served: Served) -> None:
    wire = await served.wire()
    old = request().replace(b"HTTP/1.1", b"HTTP/1.0")
    await wire.send(old.replace(b"Host: node", b"Connection: keep-alive"))
    answer = await wire.receive()
    assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
    await wire.send(old)
    assert (await wire.receive()).headers["connection"] == "close"
    assert await wire.ended()


async def test_http_0_9_carries_no_token_and_is_refused(served: Served) -> None:
    wire = await served.wire()
    await wire.send(b"POST /invoke/acme/invoice/echo\r\n\r\n")
    assert (await wire.receive()).status == 401
    assert await wire.ended()


async def test_an_offer_to_upgrade_is_refused_with_the_remedy(served: Served) -> None:
    wire = await served.wire()
    await wire.send(request(extra=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"), request())
    answer = await wire.receive()
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert "Upgrade" in answer.json()["error"]["message"]
    assert await wire.ended()
    assert await served.ran() == 0


async def test_connect_is_no_method_of_ours(served: Served) -> None:
    wire = await served.wire()
    await wire.send(b"CONNECT node:443 HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer tenant-secret\r\n\r\n\x16\x03")
    assert (await wire.receive()).status in (404, 405)
    assert await wire.ended()


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    wire = await served.wire()
    await wire.send(*(request(body=b'{"n":%d}' % n) for n in range(200)))
    for n in range(200):
        assert (await wire.receive()).json()["echo"] == {"n": n}
    assert await served.ran() == 200


async def test_requests_over_the_rate_are_refused_over_whatever_connection_they_come(served: Served) -> None:
    await served.limit("rated", QuotaOverride(requests_per_minute=3))
    assert [(await served.call(tenant="rated")).status for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = await served.call(tenant="rated")
    assert (answer.code, answer.json()["error"]["details"][0]["field"]) == ("RATE_LIMIT_EXCEEDED", "requestsPerMinute")
    assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("3", "0")
    assert await served.ran() == 3
    assert (await served.call()).status == 200


async def test_what_calls_under_way_may_hold_is_bounded_for_each_tenant(served: Served) -> None:
    await served.limit("fat", QuotaOverride(memory_mb=9, concurrent=100))
    async with served.stalled() as method:
        wires = [await served.wire() for _ in range(3)]
        answers = []
        for wire in wires:
            await wire.send(request(method, "fat"))  # 4 MiB for each one's reply
            answers.append(asyncio.create_task(wire.receive()))
        done, waiting = await asyncio.wait(answers, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert len(waiting) == 2
        refused = done.pop().result()
        assert (refused.status, refused.json()["error"]["details"][0]["field"]) == (429, "memoryMb")
    assert [(await one).status for one in waiting] == [200] * 2


async def test_a_call_that_takes_longer_than_its_quota_allows_ends(served: Served) -> None:
    await served.limit("slow", QuotaOverride(execution_seconds=0.2))
    answer = await served.call(served.hangs, "slow")
    assert (answer.status, answer.code) == (504, "TIMEOUT")


async def test_more_than_a_version_can_take_is_refused_at_once_and_runs_nowhere(served: Served) -> None:
    await served.limit("flood", QuotaOverride(concurrent=1000))
    async with served.stalled() as method:
        answers = []
        for _ in range(FLOOD):
            wire = await served.wire()
            await wire.send(request(method, "flood"))
            answers.append(asyncio.create_task(wire.receive()))
        async with asyncio.timeout(20):
            while sum(answer.done() for answer in answers) < FLOOD - MOST_TAKEN:
                await asyncio.sleep(0.01)
    statuses = [(await answer).status for answer in answers]
    assert set(statuses) == {200, 503}
    assert await served.ran() == statuses.count(200)
    told = next(answer.result() for answer in answers if answer.result().status == 503)
    assert (told.code, told.headers["retry-after"]) == ("SERVICE_UNAVAILABLE", "1")
    assert "more requests here than it can serve" in told.json()["error"]["message"]
