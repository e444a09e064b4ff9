"""What a live system tells of itself: one trace a rollout, through a killed worker; pages for Prometheus; logs that say where.

Spans come by a real OTLP receiver, pages by scrapes, logs from the files of the processes.
"""

import asyncio
import json
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hotswap.demo.rollout import Rollout
from tests.e2e.live import Live
from tests.stack.otlp import OtlpReceiver, ReceivedSpan
from tests.stack.promtool import find_promtool

ROLLOUT_SPANS = {
    "plugin.deploy",
    "plugin.validate",
    "plugin.load",
    "plugin.health-check",
    "plugin.switch",
    "plugin.rollback",
    "plugin.unload",
}
ATTRIBUTES = re.compile(
    r"hotswap\.(plugin|version|tenant|environment|deployment|node|method|strategy|phase|check|attempt)"
    r"|http\.(request\.method|route|response\.status_code)|error\.type"
)
LABELS = {
    "plugins_registered_total": set(),
    "plugins_deployed_total": {"environment", "strategy", "status"},
    "plugins_rollback_total": {"environment", "strategy", "status"},
    "plugins_failed_total": {"environment", "strategy", "status"},
    "plugin_invocations_total": {"environment", "plugin", "version", "outcome"},
    "plugin_load_duration_seconds_count": {"environment", "plugin", "version"},
    "plugin_execution_duration_seconds_count": {"environment", "plugin", "version"},
    "deployment_duration_seconds_count": {"environment", "strategy", "status"},
    "rollback_duration_seconds_count": {"environment", "strategy", "status"},
    "plugins_active": set(),
    "deployments_in_progress": {"environment", "status"},
    "sandbox_instances": {"environment"},
    "plugin_memory_bytes": {"plugin", "version"},
    "plugin_cpu_percent": {"plugin", "version"},
}
"""The specification's metrics, and their labels besides what Temporal's SDK adds to every one of its page."""
OF_SDK = {"namespace", "task_queue", "workflow_type", "service_name"}
CANARY = {"steps": [100], "evaluationPeriod": "PT10M", "evaluationInterval": "PT0.5S", "onInconclusive": "extend"}


def spans_of(live: Live) -> OtlpReceiver:
    assert live.spans is not None
    return live.spans


def traceparent(trace_id: str) -> str:
    return f"00-{trace_id}-{secrets.token_hex(8)}-01"


def client_of(live: Live, context: str) -> httpx.AsyncClient:
    """A client of the api, and of the nodes, whose requests belong to a trace."""
    token = next(user["token"] for user in live.stack.info["users"] if user["user"] == "admin")
    headers = {"Authorization": f"Bearer {token}", "traceparent": context}
    return httpx.AsyncClient(base_url=live.stack.info["apiUrl"], headers=headers, timeout=30)


async def call(live: Live, plugin: str, tenant: str, context: str) -> None:
    headers = {"Authorization": f"Bearer {live.stack.info['tenantToken']}", "traceparent": context}
    url = f"{live.stack.info['nodes'][0]['routerUrl']}/invoke/{tenant}/{plugin}/greet"
    async with httpx.AsyncClient(timeout=30) as client:
        (await client.post(url, json={"name": "Ada"}, headers=headers)).raise_for_status()


def lines_of(live: Live, part: str) -> list[dict[str, Any]]:
    """Every line that a process has logged; fails when one is no JSON object."""
    (log,) = [one["log"] for one in live.stack.info["parts"] if one["name"] == part]
    lines = []
    for line in Path(log).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            raise AssertionError(f"{part} has logged a line that is no JSON: {line!r}") from None
    assert all(isinstance(line, dict) for line in lines)
    return lines


def phases(spans: list[ReceivedSpan]) -> set[str]:
    return {span.facts["hotswap.phase"] for span in spans if span.name == "plugin.deploy"}


def looks(spans: list[ReceivedSpan], deployment: str) -> list[ReceivedSpan]:
    return [
        span for span in spans if span.name == "plugin.judge" and span.facts.get("hotswap.deployment") == deployment
    ]


async def pages(live: Live) -> dict[str, str]:
    urls = {node["id"]: f"{node['adminUrl']}/metrics" for node in live.stack.info["nodes"]}
    urls |= {"api": f"{live.stack.info['apiUrl']}/metrics", "worker": live.stack.info["workerMetricsUrl"]}
    async with httpx.AsyncClient(timeout=30) as client:
        return {name: (await client.get(url)).raise_for_status().text for name, url in urls.items()}


def series_of(page: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def values(page: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.mark.timeout(150)
async def test_a_rollout_is_one_trace_from_the_request_to_the_plugin_also_when_the_worker_dies(live: Live) -> None:
    received = spans_of(live)
    plugin = await live.new_plugin("1.0.0", "2.0.0", code=lambda text: text.replace("log.debug(", "log.info("))
    await live.deploy(plugin, "1.0.0")
    before = (await pages(live))["worker"]

    trace_id, aborts = secrets.token_hex(16), secrets.token_hex(16)
    ours = traceparent(trace_id)
    async with client_of(live, ours) as client:
        answer = await client.post("/api/v1/deployments", json=live.body(plugin, "2.0.0", "Canary", **CANARY))
        assert answer.headers["X-Trace-Id"] == trace_id
        async with Rollout(live.api, answer.raise_for_status().json()) as rollout:
            await rollout.until(lambda one: one.weight() == 100, "all tenants on it", 60)
            # What ended in the last moments before a kill is lost with the process: see that it has been sent.
            assert await asyncio.to_thread(received.wait, lambda found: "shift-tenants" in phases(found), trace_id)
            killed = live.stack.kill("worker")
            for tenant in range(4):
                await call(live, plugin, f"tenant-{tenant}", ours)
            async with asyncio.timeout(60):
                await live.stack.restarted("worker", killed)
            assert await asyncio.to_thread(received.wait, lambda found: looks(found, rollout.id) != [])
            async with client_of(live, traceparent(aborts)) as other:
                told = {"reason": "seen enough"}
                (await other.post(f"/api/v1/deployments/{rollout.id}/abort", json=told)).raise_for_status()
            await rollout.until_over()
    assert rollout.status == "Aborted"

    def whole(found: list[ReceivedSpan]) -> bool:
        names = {*ROLLOUT_SPANS, "plugin.execute", "POST /api/v1/deployments"}
        steps = {"plan", "verify-artifact", "run-trial", "stage-version", "shift-tenants"}
        called = [span for span in found if span.name == "plugin.execute"]
        return names <= {span.name for span in found} and steps <= phases(found) and len(called) == 4

    arrived = await asyncio.to_thread(received.wait, whole, trace_id)
    assert await asyncio.to_thread(received.wait, lambda found: len(found) > 0, aborts)
    spans = received.spans(trace_id)
    assert arrived, sorted((span.service, span.name, span.facts.get("hotswap.phase")) for span in spans)
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "a phase is exported once, whoever replays it"
    assert {span.service for span in spans} == {"hotswap-api", "hotswap-worker", "hotswap-node"}
    client_span = ours.split("-")[2]
    assert {span.parent_id for span in spans} <= {*by_id, client_span}, "every parent is in the trace"
    assert {span.facts["hotswap.deployment"] for span in spans if span.name in ROLLOUT_SPANS} == {rollout.id}
    assert all(ATTRIBUTES.fullmatch(name) for span in spans for name in span.facts)
    assert received.faults == []

    def parent(span: ReceivedSpan) -> str:
        return by_id[span.parent_id].name

    (request,) = [span for span in spans if span.name == "POST /api/v1/deployments"]
    assert request.parent_id == client_span
    for span in spans:
        if span.name in ("plugin.deploy", "plugin.rollback"):
            assert span.parent_id == request.span_id
        elif span.name in ("plugin.load", "plugin.validate"):
            assert parent(span) == "plugin.deploy"
        elif span.name == "plugin.unload":
            assert parent(span) == "plugin.rollback"
    loads = {span.facts["hotswap.node"] for span in spans if span.name == "plugin.load"}
    assert loads == {"node-1", "node-2", "node-3"}

    (back,) = [span for span in spans if span.name == "plugin.rollback"]
    (abort,) = received.spans(aborts)
    assert abort.name == "POST /api/v1/deployments/{deploymentId}/abort"
    assert (aborts, abort.span_id) in back.links, "the rollback names the command that began it"
    (shift,) = [span for span in spans if span.facts.get("hotswap.phase") == "shift-tenants"]
    assert (trace_id, shift.span_id) in back.links, "and the phase before the wait"
    for look in looks(received.spans(), rollout.id):
        assert look.trace_id != trace_id, "a look is traced beside the rollout"
        assert look.links[0][0] == trace_id

    calls = [span for span in spans if span.name == "plugin.execute"]
    assert {span.facts["hotswap.tenant"] for span in calls} == {f"tenant-{number}" for number in range(4)}
    assert {(span.parent_id, span.facts["hotswap.plugin"]) for span in calls} == {(client_span, plugin)}
    greeted = [line for line in lines_of(live, "node-1") if "greeting somebody" in line["message"]]
    assert {(line["trace_id"], line["span_id"]) for line in greeted} == {(trace_id, span.span_id) for span in calls}
    assert {(line["plugin"], line["environment"], line["node"]) for line in greeted} == {
        (plugin, "Development", "node-1")
    }

    for part in ("api", "worker", "node-2", "node-3"):
        for line in lines_of(live, part):
            assert line.keys() >= {"time", "level", "service", "logger", "message", "trace_id", "span_id"}

    after = (await pages(live))["worker"]
    aborted = {"environment": "Development", "strategy": "Canary", "status": "Aborted"}
    assert values(after, "plugins_rollback_total", **aborted) >= 1
    assert values(after, "rollback_duration_seconds_count", **aborted) >= 1
    assert values(before, "plugins_deployed_total", strategy="Direct", status="Completed") >= 1


async def test_every_page_has_the_metrics_of_the_specification_and_no_more_series_for_more_tenants(
    live: Live, tmp_path: Path
) -> None:
    plugin = await live.new_plugin("1.0.0")
    await live.deploy(plugin, "1.0.0")

    async def noise(tenants: range) -> None:
        """Calls of many tenants, to methods and plugins that are not there, to paths that nobody serves."""
        token = {"Authorization": f"Bearer {live.stack.info['tenantToken']}"}
        async with httpx.AsyncClient(timeout=30) as client:
            for tenant in tenants:
                for path in (f"{plugin}/greet", f"{plugin}/m{tenant}", f"nobody-{tenant}/greet"):
                    url = f"{live.stack.info['nodes'][0]['routerUrl']}/invoke/t{tenant}/{path}"
                    await client.post(url, json={"name": "Ada"}, headers=token)
                await client.get(f"{live.stack.info['apiUrl']}/secret-{tenant}")
                await client.get(f"{live.stack.info['apiUrl']}/api/v1/plugins/none-{tenant}")

    def shape(read: dict[str, str]) -> dict[str, set[tuple[str, ...]]]:
        """The series of each page, without those that come and go beside this test: other plugins' and their hosts' states."""
        return {
            name: {
                (metric, *sorted(f"{key}={value}" for key, value in labels.items()))
                for metric, all_labels in series_of(page).items()
                if metric != "hotswap_hosts"
                for labels in all_labels
                if labels.get("plugin", plugin) == plugin
            }
            for name, page in read.items()
            if name != "worker"
        }

    await pages(live)  # a scrape is a request too
    await noise(range(5))
    first = await pages(live)
    await noise(range(5, 25))
    second = await pages(live)
    assert shape(second) == shape(first), "load makes no series"
    assert not re.search(r"\bt(5|17|24)\b|secret-|none-|nobody-", "".join(second.values()))

    found: dict[str, set[str]] = {}
    for page in second.values():
        for metric, all_labels in series_of(page).items():
            found.setdefault(metric, set()).update(*all_labels)
    for metric, labels in LABELS.items():
        if metric.startswith("rollback_"):  # of the test above, when it ran
            continue
        assert metric in found, f"{metric} is on no page"
        assert found[metric] - OF_SDK == labels, metric
    assert "tenant" not in set().union(*found.values())


async def test_promtool_finds_no_fault_in_any_page(live: Live) -> None:
    promtool = find_promtool()
    plugin = await live.new_plugin("1.0.0")
    await live.deploy(plugin, "1.0.0")
    await call(live, plugin, "acme", traceparent(secrets.token_hex(16)))
    for name, page in (await pages(live)).items():
        done = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
