"""One contract for every MetricProvider: Prometheus and a webhook on a real HTTP server, and their in-memory twin."""

import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from hotswap.adapters.memory.metrics import MemoryMetricProvider
from hotswap.adapters.prometheus_metrics import PrometheusMetricProvider, promql
from hotswap.adapters.provider_http import Backoff
from hotswap.adapters.webhook_metrics import SIGNATURE, TIMESTAMP, WebhookMetricProvider
from hotswap.config import MetricSecret, MetricsSettings
from hotswap.domain.analysis import Outcome
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.metrics import Measurement, MetricQuestion
from hotswap.ports.metrics import MetricProvider
from tests.contract.metrics_server import MetricsServer, Reply, scalar, vector

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Subject:
    """A provider under test and the three ways its far end can go."""

    provider: MetricProvider
    kind: str
    server: MetricsServer | None
    clock: Clock

    def tells(self, value: float | None) -> None:
        match self.provider, self.server:
            case MemoryMetricProvider() as twin, _:
                twin.come_back()
                twin.tell("m", value)
            case _, MetricsServer() as server if self.kind == "prometheus":
                server.answer = lambda request: vector() if value is None else vector(repr(value))
            case _, MetricsServer() as server:
                server.answer = lambda request: Reply.of({"value": value})

    def is_away(self) -> None:
        match self.provider, self.server:
            case MemoryMetricProvider() as twin, _:
                twin.go_away()
            case _, MetricsServer() as server:
                server.answer = lambda request: Reply(503, b"down for repair")

    def rested(self) -> None:
        self.clock.now += 60


def settings(server: MetricsServer, **more: object) -> MetricsSettings:
    base: dict[str, object] = {
        "prometheus_url": f"{server.url}",
        "prometheus_token": SecretStr("prom-token"),
        "allowed_hosts": (server.host,),
        "timeout": timedelta(seconds=1),
        "secrets": (
            MetricSecret(name="quality", host=server.host, token=SecretStr("t0ken"), signing_key=SecretStr("k3y")),
            MetricSecret(name="elsewhere", host="other.example:443", token=SecretStr("not-yours")),
        ),
    }
    return MetricsSettings.model_validate({**base, **more})


def question(server: MetricsServer | None = None, **more: object) -> MetricQuestion:
    base: dict[str, object] = {
        "deployment": "deployment/Staging/phone",
        "metric": "m",
        "query": 'sum(rate(errors{plugin="{plugin}",version="{version}"}[{window}]))',
        "plugin": "phone",
        "environment": "Staging",
        "version": "2.0.0",
        "candidate": "2.0.0",
        "baseline": "1.0.0",
        "weight_percent": 10,
        "since": START,
        "now": START + timedelta(seconds=90),
    }
    return MetricQuestion.model_validate({**base, **more})


@pytest.fixture(params=["memory", "prometheus", "webhook"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    clock = Clock()
    if request.param == "memory":
        yield Subject(MemoryMetricProvider(), "memory", None, clock)
        return
    with MetricsServer().serving() as server:
        made = settings(server)
        provider: MetricProvider
        if request.param == "prometheus":
            provider = PrometheusMetricProvider(made, Backoff(clock))
        else:
            provider = WebhookMetricProvider(made, Backoff(clock))
        yield Subject(provider, request.param, server, clock)
        await provider.close()


def asked(subject: Subject) -> MetricQuestion:
    return question(url=f"{subject.server.url}/verdict" if subject.server and subject.kind == "webhook" else "")


@pytest.fixture
async def prometheus() -> AsyncIterator[tuple[PrometheusMetricProvider, MetricsServer]]:
    with MetricsServer().serving() as server:
        provider = PrometheusMetricProvider(settings(server), Backoff(Clock()))
        yield provider, server
        await provider.close()


@pytest.fixture
async def webhook() -> AsyncIterator[tuple[WebhookMetricProvider, MetricsServer]]:
    with MetricsServer().serving() as server:
        provider = WebhookMetricProvider(settings(server), Backoff(Clock()), clock=lambda: 1767268800.7)
        yield provider, server
        await provider.close()


# --- the contract ----------------------------------------------------------------------------------------------------


async def test_a_value_comes_back_with_its_evidence(subject: Subject) -> None:
    subject.tells(0.25)
    answer = await subject.provider.measure(asked(subject))
    assert (answer.value, answer.outcome) == (0.25, None)
    assert answer.query
    assert "0.25" in answer.raw


async def test_no_data_is_an_answer_and_no_value(subject: Subject) -> None:
    subject.tells(None)
    answer = await subject.provider.measure(asked(subject))
    assert (answer.value, answer.outcome) == (None, None)


async def test_zero_is_data(subject: Subject) -> None:
    subject.tells(0.0)
    assert (await subject.provider.measure(asked(subject))).value == 0.0


async def test_being_away_is_a_fault_and_over_when_it_is_back(subject: Subject) -> None:
    subject.is_away()
    with pytest.raises(MetricProviderFault) as raised:
        await subject.provider.measure(asked(subject))
    assert raised.value.transient
    subject.tells(1.5)
    subject.rested()
    assert (await subject.provider.measure(asked(subject))).value == 1.5


# --- Prometheus ------------------------------------------------------------------------------------------------------


async def test_prometheus_is_asked_an_instant_query_with_every_value_filled_in(
    prometheus: tuple[PrometheusMetricProvider, MetricsServer],
) -> None:
    provider, server = prometheus
    server.answer = lambda request: scalar("7")
    query = 'x{v="{version}",c="{candidate}",b="{baseline}",e="{environment}",p="{plugin}"}[{window}] @ {since}'
    answer = await provider.measure(question(query=query))
    (request,) = server.requests
    assert request.path == "/api/v1/query"
    assert request.form["query"] == 'x{v="2.0.0",c="2.0.0",b="1.0.0",e="Staging",p="phone"}[90s] @ 1767268800.000'
    assert request.form["timeout"] == "1s"
    assert request.headers["authorization"] == "Bearer prom-token"
    assert answer.value == 7.0
    assert answer.query == request.form["query"]


def test_values_are_escaped_and_what_they_hold_is_no_placeholder() -> None:
    evil = 'a"} or up{x="\\{window}`'
    assert promql(question(query='x{v="{version}"}', version=evil)) == 'x{v="a\\"} or up{x=\\"\\\\{window}"}'


@pytest.mark.parametrize("text", ["NaN", "+Inf", "-Inf"])
async def test_a_division_by_zero_is_no_data(
    prometheus: tuple[PrometheusMetricProvider, MetricsServer], text: str
) -> None:
    provider, server = prometheus
    server.answer = lambda request: vector(text)
    answer = await provider.measure(question())
    assert answer.value is None
    assert text in answer.reason


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (vector("1", "2", "3"), "3 series, one is needed: aggregate"),
        (Reply.of({"status": "success", "data": {"resultType": "matrix", "result": []}}), "gave a matrix"),
        (Reply.of({"status": "success", "data": {"resultType": "string", "result": [1, "up"]}}), "gave a string"),
        (Reply.of({"status": "success", "data": {"resultType": "scalar", "result": [1]}}), "no number"),
        (Reply.of({"status": "success", "data": {"resultType": "vector", "result": [{}]}}), "no number"),
        (Reply.of({"status": "success", "data": {"resultType": "vector", "result": [7]}}), "no number"),
        (Reply.of({"status": "success"}), "no result"),
        (Reply.of([1]), "not a JSON object"),
        (Reply(200, b"<html>hello</html>"), "not JSON: <html>hello</html>"),
        (Reply(200, b""), "not JSON"),
        (
            Reply.of({"status": "error", "errorType": "bad_data", "error": "parse error: unexpected end"}, 400),
            "refused the query (400): parse error: unexpected end",
        ),
        (Reply(302, b"", {"Location": "http://169.254.169.254/"}), "redirect"),
        (Reply(401, b"no"), "refused our credentials"),
        (Reply(404, b"nothing here"), "404"),
        (Reply(200, b" " * 70_000), "over 65,536 bytes"),
    ],
)
async def test_what_is_no_single_number_is_a_fault_that_says_so(
    prometheus: tuple[PrometheusMetricProvider, MetricsServer], reply: Reply, said: str
) -> None:
    provider, server = prometheus
    server.answer = lambda request: reply
    with pytest.raises(MetricProviderFault) as raised:
        await provider.measure(question())
    assert said in raised.value.message
    assert not raised.value.transient
    # The question is wrong, not the server: the next one is asked at once.
    server.answer = lambda request: scalar("1")
    assert (await provider.measure(question())).value == 1


async def test_a_server_that_hangs_costs_the_timeout_and_is_left_alone_then() -> None:
    clock, hang = Clock(), threading.Event()
    with MetricsServer().serving() as server:
        provider = PrometheusMetricProvider(settings(server, timeout=timedelta(milliseconds=200)), Backoff(clock))
        server.answer = lambda request: Reply(hang=hang)
        with pytest.raises(MetricProviderFault, match=r"did not answer within 0\.2 s"):
            await provider.measure(question())
        with pytest.raises(MetricProviderFault, match=r"left alone for 1\.0 s more after 1 fault$"):
            await provider.measure(question())
        assert len(server.requests) == 1
        clock.now += 1.1
        with pytest.raises(MetricProviderFault, match="did not answer"):
            await provider.measure(question())
        clock.now += 1.1  # the second rest is twice as long
        with pytest.raises(MetricProviderFault, match="left alone"):
            await provider.measure(question())
        hang.set()
        await provider.close()


async def test_a_busy_server_is_left_alone_as_long_as_it_asks_and_never_longer_than_half_a_minute() -> None:
    clock = Clock()
    with MetricsServer().serving() as server:
        provider = PrometheusMetricProvider(settings(server), Backoff(clock))
        server.answer = lambda request: Reply(429, b"slow down", {"Retry-After": "3600"})
        with pytest.raises(MetricProviderFault, match="429"):
            await provider.measure(question())
        clock.now += 29
        with pytest.raises(MetricProviderFault, match="left alone"):
            await provider.measure(question())
        clock.now += 2
        server.answer = lambda request: scalar("1")
        assert (await provider.measure(question())).value == 1
        await provider.close()


async def test_nobody_listening_is_a_transient_fault() -> None:
    with MetricsServer().serving() as server:
        made = settings(server)
    provider = PrometheusMetricProvider(made, Backoff(Clock()))
    with pytest.raises(MetricProviderFault, match="cannot be asked") as raised:
        await provider.measure(question())
    assert raised.value.transient
    await provider.close()


async def test_another_prometheus_must_be_allowed_and_never_gets_the_platforms_token(
    prometheus: tuple[PrometheusMetricProvider, MetricsServer],
) -> None:
    provider, server = prometheus
    server.answer = lambda request: scalar("1")
    await provider.measure(question(url=f"{server.url}/team-a/"))
    assert server.requests[0].path == "/team-a/api/v1/query"
    assert "authorization" not in server.requests[0].headers
    await provider.measure(question(url=server.url, secret="quality"))
    assert server.requests[1].headers["authorization"] == "Bearer t0ken"


async def test_without_a_prometheus_the_fault_names_the_setting() -> None:
    provider = PrometheusMetricProvider(MetricsSettings(), Backoff(Clock()))
    with pytest.raises(MetricProviderFault, match="HOTSWAP_METRICS__PROMETHEUS_URL"):
        await provider.measure(question())
    await provider.close()


# --- webhook ---------------------------------------------------------------------------------------------------------


async def test_a_webhook_gets_the_question_signed_and_with_its_bearer(
    webhook: tuple[WebhookMetricProvider, MetricsServer],
) -> None:
    provider, server = webhook
    server.answer = lambda request: Reply.of({"value": 3, "n": 1200, "reason": "of checkout"})
    answer = await provider.measure(question(url=f"{server.url}/ask", secret="quality", query="checkout"))
    (request,) = server.requests
    assert request.path == "/ask"
    assert request.headers["authorization"] == "Bearer t0ken"
    told = json.loads(request.body)
    assert told["plugin"] == "phone"
    assert (told["version"], told["candidate"], told["baseline"]) == ("2.0.0", "2.0.0", "1.0.0")
    assert (told["query"], told["windowSeconds"], told["weightPercent"]) == ("checkout", 90, 10)
    assert told["since"] == "2026-01-01T12:00:00Z"
    assert "secret" not in told
    assert request.headers[TIMESTAMP.lower()] == "1767268800"
    expected = hmac.new(b"k3y", b"1767268800." + request.body, hashlib.sha256).hexdigest()
    assert request.headers[SIGNATURE.lower()] == f"sha256={expected}"
    assert (answer.value, answer.n, answer.reason) == (3.0, 1200, "of checkout")


async def test_a_webhook_may_judge_by_itself(webhook: tuple[WebhookMetricProvider, MetricsServer]) -> None:
    provider, server = webhook
    server.answer = lambda request: Reply.of({"outcome": "Fail", "reason": "12 tickets"})
    answer = await provider.measure(question(url=f"{server.url}/ask"))
    assert (answer.outcome, answer.value, answer.reason) == (Outcome.FAIL, None, "12 tickets")
    server.answer = lambda request: Reply(204)
    assert await provider.measure(question(url=f"{server.url}/ask")) == Measurement(
        reason="the webhook has no data", query=f"POST {server.url}/ask"
    )


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, 'neither a "value" nor an "outcome"'),
        ({"value": 1, "outcome": "pass"}, "both"),
        ({"outcome": "maybe"}, "other than pass, fail or inconclusive"),
        ({"value": "1"}, "value"),
        ({"value": True}, "value"),
        ({"value": 1, "n": -1}, "n "),
        ({"value": 1, "verdict": "x"}, "verdict"),
        ([1], "not a JSON object"),
    ],
)
async def test_a_webhooks_answer_that_says_nothing_clear_is_a_fault(
    webhook: tuple[WebhookMetricProvider, MetricsServer], document: object, said: str
) -> None:
    provider, server = webhook
    server.answer = lambda request: Reply.of(document)
    with pytest.raises(MetricProviderFault) as raised:
        await provider.measure(question(url=f"{server.url}/ask"))
    assert said in raised.value.message


async def test_a_webhook_answer_of_a_novel_is_bounded(webhook: tuple[WebhookMetricProvider, MetricsServer]) -> None:
    provider, server = webhook
    server.answer = lambda request: Reply.of({"value": 1, "reason": "x" * 20_000})
    answer = await provider.measure(question(url=f"{server.url}/ask"))
    assert len(answer.reason) <= 500
    assert len(answer.raw) <= 200


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1/",
        "http://127.0.0.1:{port}@evil.example/",
        "http://user:pw@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}.evil.example/",
        "http://127.0.0.1:{port}\\@evil.example/",
        "http://127.0.0.1:{port}/../x",
        "http://localhost:{port}/",
        "http://0x7f000001:{port}/",
        "http://[::1]:{port}/",
        "gopher://127.0.0.1:{port}/",
        "file:///etc/passwd",
        "http://127.0.0.1:{port}/?to=evil",
        "http://127.0.0.1:{port}/#x",
        "HTTP://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/\r\nHost: evil",
        "",
    ],
)
async def test_only_allowed_hosts_are_ever_asked(
    webhook: tuple[WebhookMetricProvider, MetricsServer], url: str
) -> None:
    provider, server = webhook
    with pytest.raises(MetricProviderFault, match="allow-list"):
        await provider.measure(question(url=url.replace("{port}", str(server.port))))
    assert server.requests == []


@pytest.mark.parametrize("name", ["elsewhere", "unknown"])
async def test_a_secret_is_sent_to_its_own_host_only(
    webhook: tuple[WebhookMetricProvider, MetricsServer], name: str
) -> None:
    provider, server = webhook
    with pytest.raises(MetricProviderFault, match=f"no secret '{name}' for"):
        await provider.measure(question(url=f"{server.url}/ask", secret=name))
    assert server.requests == []


def test_secrets_do_not_show_in_the_settings() -> None:
    shown = repr(MetricSecret(name="q", host="h", token=SecretStr("t0ken"), signing_key=SecretStr("k3y")))
    assert "t0ken" not in shown
    assert "k3y" not in shown
