"""The traffic generator against a small router made for the purpose: what it counts is what the router did."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from hotswap.demo.report import TrafficReport, flips
from hotswap.demo.traffic import Payload, TrafficGenerator, read_payloads
from hotswap.demo.traffic_process import TrafficProcess, TrafficStopped

PAYLOADS = [Payload("parse", {"number": "+49 30 1234567"}), Payload("format", {"number": "+33 1 2345"})]

Answer = tuple[int, dict[str, str], bytes]
Decide = Callable[[str, dict[str, str], bytes], Awaitable[Answer | None]]


class Router:
    """Answers POSTs by a function; None = close the connection without an answer."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                path = first.split(" ")[1]
                self.paths.append(path)
                self.headers.append(headers)
                answer = await self.decide(path, headers, body)
                if answer is None:
                    break
                status, extra, content = answer
                extra = {"Content-Length": str(len(content)), **extra}
                text = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
                writer.write(f"HTTP/1.1 {status} X\r\n{text}\r\n".encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def router(decide: Decide) -> AsyncIterator[Router]:
    one = Router(decide)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()


def ok(version: str = "1.0.0") -> Answer:
    return 200, {"X-HotSwap-Version": version, "X-HotSwap-Node": "node-1"}, b"{}"


def refusal(status: int, code: str, version: str = "") -> Answer:
    headers = {"X-HotSwap-Version": version} if version else {}
    return status, headers, json.dumps({"error": {"code": code, "message": "no"}}).encode()


async def always_ok(path: str, headers: dict[str, str], body: bytes) -> Answer:
    return ok()


def dead_url() -> str:
    return "http://127.0.0.1:1"


async def run_until(generator: TrafficGenerator, requests: int) -> TrafficReport:
    """Run until at least so many requests were answered or failed."""
    await generator.start()
    async with asyncio.timeout(20):
        while generator.report.requests < requests:
            await asyncio.sleep(0.005)
    return await generator.stop()


async def test_traffic_calls_the_plugin_of_every_tenant_with_the_token() -> None:
    async with router(always_ok) as one:
        report = await run_until(TrafficGenerator([one.url], "s3cret", "phone", PAYLOADS, 4, 400), 40)
    assert {path.split("/")[2] for path in one.paths} == {f"tenant-000{number}" for number in range(4)}
    assert {path.rsplit("/", 2)[1:][0] for path in one.paths} == {"phone"}
    assert {path.rsplit("/", 1)[1] for path in one.paths} == {"parse", "format"}
    assert all(headers["authorization"] == "Bearer s3cret" for headers in one.headers)
    assert report.ok == report.requests == len(one.paths)
    assert report.by_version == {"1.0.0": report.requests}
    assert sum(second.ok for second in report.seconds.values()) == report.ok
    assert 0 < report.percentile(0.5) <= report.percentile(0.99)


async def test_traffic_keeps_to_its_rate() -> None:
    async with router(always_ok) as one:
        generator = TrafficGenerator([one.url], "t", "phone", PAYLOADS, 20, 100)
        await generator.start()
        await asyncio.sleep(1.5)
        report = await generator.stop()
    assert 100 <= report.requests <= 175


async def test_an_error_of_the_plugin_is_counted_by_version_and_is_no_failure_of_the_platform() -> None:
    async def broken(path: str, headers: dict[str, str], body: bytes) -> Answer:
        return refusal(500, "PLUGIN_ERROR", "2.1.0") if path.endswith("format") else ok("2.1.0")

    async with router(broken) as one:
        report = await run_until(TrafficGenerator([one.url], "t", "phone", PAYLOADS, 4, 400), 20)
    assert report.plugin_errors["2.1.0"] == sum(path.endswith("format") for path in one.paths)
    assert report.failed == 0
    assert report.ok + report.broken == report.requests
    assert report.first_error["2.1.0"] >= report.started_at


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SERVICE_UNAVAILABLE"), (502, "HOST_FAILED"), (404, "NOT_FOUND"), (504, "TIMEOUT")]
)
async def test_any_other_refusal_is_a_failure_of_the_platform_by_its_code(status: int, code: str) -> None:
    async def refusing(path: str, headers: dict[str, str], body: bytes) -> Answer:
        return refusal(status, code)

    async with router(refusing) as one:
        report = await run_until(TrafficGenerator([one.url], "t", "phone", PAYLOADS, 2, 400), 4)
    assert report.platform_failures == {code: report.requests}
    assert code in report.failure_samples[0]


async def test_a_connection_that_breaks_after_sending_is_a_failure_and_is_never_repeated() -> None:
    async def hang_up(path: str, headers: dict[str, str], body: bytes) -> None:
        return None

    async with router(hang_up) as bad, router(hang_up) as other:
        report = await run_until(TrafficGenerator([bad.url, other.url], "t", "phone", PAYLOADS, 3, 300), 6)
    assert report.platform_failures == {"CONNECTION_LOST": report.requests}
    assert len(bad.paths) + len(other.paths) == report.requests


async def test_a_node_that_cannot_be_connected_to_is_left_for_another() -> None:
    async with router(always_ok) as good:
        report = await run_until(TrafficGenerator([dead_url(), good.url], "t", "phone", PAYLOADS, 8, 400), 40)
    assert report.failed == 0
    assert 0 < report.retried_connects < report.requests
    assert report.ok == report.requests


async def test_no_node_at_all_is_a_failure() -> None:
    report = await run_until(TrafficGenerator([dead_url()], "t", "phone", PAYLOADS, 2, 400), 4)
    assert report.platform_failures == {"NO_NODE": report.requests}


async def test_an_idle_connection_that_the_node_closed_is_replaced_without_a_failure() -> None:
    async def close_after(path: str, headers: dict[str, str], body: bytes) -> Answer:
        return 200, {"X-HotSwap-Version": "1.0.0", "Connection": "close"}, b"{}"

    async with router(close_after) as one:
        report = await run_until(TrafficGenerator([one.url], "t", "phone", PAYLOADS, 2, 200), 10)
    assert report.ok == report.requests


async def test_its_connections_are_counted_while_busy_and_while_idle() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(path: str, headers: dict[str, str], body: bytes) -> Answer:
        asked.set()
        await go_on.wait()
        return ok()

    async with router(slowly) as one, asyncio.timeout(20):
        generator = TrafficGenerator([one.url], "t", "phone", PAYLOADS, tenants=1, rate=100)
        await generator.start()
        await asked.wait()
        assert generator.connections == 1
        go_on.set()
        while generator.report.requests < 3:
            await asyncio.sleep(0.005)
        assert generator.connections == 1
        await generator.stop()
        assert generator.connections == 0


async def test_with_affinity_a_tenant_stays_at_one_node() -> None:
    async with router(always_ok) as first, router(always_ok) as second:
        await run_until(TrafficGenerator([first.url, second.url], "t", "phone", PAYLOADS, 10, 500), 60)
    homes = [{path.split("/")[2] for path in one.paths} for one in (first, second)]
    assert all(homes)
    assert not homes[0] & homes[1]


async def test_the_order_of_versions_that_a_tenant_saw_is_kept() -> None:
    served: dict[str, int] = {}

    async def switching(path: str, headers: dict[str, str], body: bytes) -> Answer:
        tenant = path.split("/")[2]
        served[tenant] = served.get(tenant, 0) + 1
        return ok("1.0.0" if served[tenant] <= 3 else "2.0.0")

    async with router(switching) as one:
        report = await run_until(TrafficGenerator([one.url], "t", "phone", PAYLOADS, 3, 300), 30)
    assert set(report.sequences().values()) == {("1.0.0", "2.0.0")}
    assert set(report.sequences(since=report.finished_at).values()) == {("2.0.0",)}


async def test_a_process_of_its_own_ticks_and_hands_over_its_report() -> None:
    async with router(always_ok) as one, TrafficProcess([one.url], "t", "phone", PAYLOADS, 10, 200) as traffic:
        tick = await traffic.seen(lambda tick: tick["requests"] > 50)
        report = await traffic.stop()
    assert tick["failed"] == 0
    assert report.requests == report.ok == len(one.paths) >= tick["requests"]
    assert len(report.versions) == 10
    assert report.latencies_ms


async def test_leaving_without_stop_ends_the_process() -> None:
    async with router(always_ok) as one, TrafficProcess([one.url], "t", "phone", PAYLOADS, 4, 100) as traffic:
        process = traffic._process
        assert process is not None
    assert process.returncode is not None


async def test_a_process_that_dies_is_told_at_once() -> None:
    async with router(always_ok) as one, TrafficProcess([one.url], "t", "phone", PAYLOADS, 4, 100) as traffic:
        assert traffic._process is not None
        traffic._process.kill()
        with pytest.raises(TrafficStopped, match="code -9"):
            await traffic.seen(lambda tick: False, timeout=10)
        with pytest.raises(TrafficStopped):
            await traffic.stop()


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    traffic = TrafficProcess(["http://127.0.0.1:1"], "t", "phone", PAYLOADS, 4, 100)
    starting = asyncio.create_task(traffic.__aenter__())
    async with asyncio.timeout(10):
        while traffic._process is None:
            await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert traffic._process.returncode is not None


def test_flips_are_what_does_not_follow_the_order() -> None:
    order = ("1", "2")
    assert flips([("1",), ("2",), ("1", "2"), ()], order) == []
    assert flips([("2", "1"), ("1", "2", "1"), ("3",)], order) == [("2", "1"), ("1", "2", "1"), ("3",)]
    assert flips([("2", "bad", "2"), ("2",)], ("2", "bad", "2")) == []


def test_a_report_survives_its_way_between_processes() -> None:
    report = TrafficReport(started_at=1.0, finished_at=2.5, requests=3, ok=1)
    report.plugin_errors["2.1.0"] = 1
    report.platform_failures["TIMEOUT"] = 1
    report.saw("t", "1.0.0", 1.5)
    report.second(1.5).versions["1.0.0"] += 1
    report.latencies_ms.append(1.25)
    assert TrafficReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize("document", [[], {}, {"payloads": []}, "x"])
def test_traffic_json_without_calls_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match=r"traffic\.json"):
        read_payloads(document)
