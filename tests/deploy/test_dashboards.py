"""Dashboards and alert rules ask for what is really counted: each metric and label is on a page that our parts serve.

promtool, where it is found, runs the rules on recorded series besides.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import ApiMetrics
from hotswap.config import Settings
from hotswap.node import metrics
from hotswap.node.figures import FigureBook, Result
from hotswap.node.router import Router
from hotswap.node.usage import CpuShares
from tests.deploy.files import ROOT, document
from tests.stack.promtool import find_promtool
from tests.unit.node_fakes import FakeLauncher, make_supervisor, order
from workflows.catalog import DEPLOYMENT_WORKFLOWS

RULES = ROOT / "dashboards/rules/hotswap.yaml"
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))
BY_PROMETHEUS = {"instance", "job", "le"}
SELECTOR = re.compile(r"\b(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{(?P<labels>[^{}]*)\}")

Labels = dict[str, set[str]]
"""The labels of each metric."""


def alerts() -> list[dict[str, Any]]:
    return [rule for group in document(RULES)["groups"] for rule in group["rules"]]


def questions() -> list[tuple[str, str]]:
    """Where it stands, and the PromQL."""
    found = [(rule["alert"], rule["expr"]) for rule in alerts()]
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            found += [(f"{path.name}: {panel['title']}", target["expr"]) for target in panel["targets"]]
        for variable in board["templating"]["list"]:
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert query is not None
            found.append((f"{path.name}: ${variable['name']}", f"sum by ({query[2]}) ({query[1]})"))
    return found


def labels_on(page: str) -> Labels:
    found: Labels = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def node_page() -> str:
    book = FigureBook()
    supervisor = make_supervisor(FakeLauncher(), book=book)
    router = Router("node-1", supervisor.routes, "secret", timedelta(seconds=1))
    try:
        await supervisor.stage(order(1, "1.0.0"))
        book.counter("invoice", "1.0.0").record(time.monotonic(), 0.1, Result.OK)
        return b"".join([piece async for piece in metrics.render("QA", supervisor, book, router, CpuShares())]).decode()
    finally:
        await supervisor.close()
        await router.close()


def api_page() -> str:
    counted = ApiMetrics()
    counted.requests.labels("GET", "/", "200").inc()
    counted.seconds.labels("GET", "/").observe(0.1)
    counted.versions_uploaded.labels("stored").inc()
    counted.deployments_started.labels("Production", "Canary").inc()
    counted.commands.labels("abort", "accepted").inc()
    return counted.render().decode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def exposed(settings: Settings) -> dict[str, Labels]:
    """By job: the metrics of each page, and `up`, which Prometheus itself writes."""
    command = [sys.executable, "-m", "tests.deploy.sdk_metrics", settings.temporal.address, settings.temporal.namespace]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=150, check=True, cwd=ROOT
    )
    pages = {
        "hotswap-api": api_page(),
        "hotswap-node": await node_page(),
        "hotswap-worker": done.stdout,
        "temporal": "",
    }
    return {job: {"up": set(), **labels_on(page)} for job, page in pages.items()}


def test_every_metric_and_label_asked_for_is_served(exposed: dict[str, Labels]) -> None:
    for where, expression in questions():
        plain = re.sub(r'"[^"]*"', '""', expression)
        named = {match["name"] for match in SELECTOR.finditer(expression)}
        assert named, f"{where}: every metric is asked for with its job"
        bare = set(
            re.findall(r"\b(?:temporal|hotswap|plugins?|http|deployments?|rollback|sandbox)_[a-z_]+\b(?!\s*\{)", plain)
        ) - {"plugin_name"}
        assert not bare, f"{where}: {bare} without a job"
        known = set(BY_PROMETHEUS)
        for match in SELECTOR.finditer(expression):
            (job,) = re.findall(r'\bjob="([^"]+)"', match["labels"])
            assert match["name"] in exposed[job], f"{where}: {job} serves no {match['name']}"
            labels = exposed[job][match["name"]]
            asked = set(re.findall(r'(\w+)\s*[=!]~?\s*"', match["labels"]))
            assert asked - BY_PROMETHEUS <= labels, f"{where}: {match['name']} has no {asked - labels}"
            known |= labels
        grouped = {name for group in re.findall(r"\bby \(([^)]*)\)", expression) for name in re.split(r",\s*", group)}
        assert grouped <= known, f"{where}: nothing has {grouped - known}"


def test_activities_and_workflows_are_called_by_their_names() -> None:
    activities = set()
    for path in (ROOT / "activities").glob("*.py"):
        activities |= set(re.findall(r"@activity\.defn\n(?:\s+@\w+\n)*\s+(?:async )?def (\w+)", path.read_text()))
    types = {str(vars(kind)["__temporal_workflow_definition"].name) for kind in DEPLOYMENT_WORKFLOWS}
    for where, expression in questions():
        for name in re.findall(r'activity_type="([^"]+)"', expression):
            assert name in activities, where
        for pattern in re.findall(r'workflow_type=~?"([^"]+)"', expression):
            assert [name for name in types if re.fullmatch(pattern, name)], where


def test_jobs_are_those_of_compose_and_of_kubernetes() -> None:
    asked = {job for _, expression in questions() for job in re.findall(r'job="([^"]+)"', expression)}
    compose = {job["job_name"] for job in document(ROOT / "deploy/compose/prometheus.yaml")["scrape_configs"]}
    services = [each for path in (ROOT / "k8s").rglob("[a-z]*.yaml") for each in yaml.safe_load_all(path.read_text())]
    kubernetes = {
        each["metadata"]["labels"]["hotswap.dev/job"]
        for each in services
        if each["kind"] == "Service" and "hotswap.dev/job" in each["metadata"]["labels"]
    }
    assert asked <= compose
    assert asked - {"temporal"} == kubernetes


def test_each_alert_tells_who_must_act_and_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        page = ROOT / rule["annotations"]["runbook"]
        assert page.is_relative_to(ROOT / "docs/runbooks")
        assert page.is_file(), f"{rule['alert']} sends people to {page}"
        assert rule["alert"] in page.read_text(), f"{page.name} does not say that {rule['alert']} leads here"
    tested = (ROOT / "dashboards/rules/tests/hotswap.test.yaml").read_text()
    assert {name for name in names if not re.search(rf"alertname: {name}\b", tested)} == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    board = json.loads(path.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    sources = {
        one["uid"]
        for one in document(ROOT / "deploy/compose/grafana/provisioning/datasources/hotswap.yaml")["datasources"]
    }
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["datasource"]["uid"] in sources
        assert all(target["datasource"]["uid"] in sources for target in panel["targets"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        taken = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        cells |= taken
    variables = {f"${variable['name']}" for variable in board["templating"]["list"]}
    used = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\$\w+", target["expr"])
    }
    assert used <= variables
    uids = [json.loads(other.read_text())["uid"] for other in DASHBOARDS]
    assert len(set(uids)) == len(uids) == 4


def test_the_rules_hold_on_recorded_series() -> None:
    program = find_promtool()
    for arguments in (
        ["check", "rules", str(RULES)],
        ["check", "config", "--syntax-only", str(ROOT / "deploy/compose/prometheus.yaml")],
        ["test", "rules", str(ROOT / "dashboards/rules/tests/hotswap.test.yaml")],
    ):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def worker_with(address: str) -> subprocess.Popen[str]:
    """A worker whose Temporal never answers."""
    settings = {
        "HOTSWAP_POSTGRES__URL": "postgresql://u:p@127.0.0.1:1/db",
        "HOTSWAP_REDIS__URL": "redis://127.0.0.1:1/0",
        "HOTSWAP_MINIO__ENDPOINT": "127.0.0.1:1",
        "HOTSWAP_MINIO__ACCESS_KEY": "a",
        "HOTSWAP_MINIO__SECRET_KEY": "b",
        "HOTSWAP_NODE__ADMIN_TOKEN": "t",
        "HOTSWAP_TEMPORAL__ADDRESS": "127.0.0.1:1",
        "HOTSWAP_TEMPORAL__METRICS_ADDRESS": address,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")}
    return subprocess.Popen(
        [sys.executable, "-m", "worker"],
        env=inherited | settings,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def test_a_worker_serves_the_page_before_temporal_answers_and_refuses_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with worker_with(address) as refused:
            _, told = refused.communicate(timeout=120)
        assert refused.returncode == 2
        assert "HOTSWAP_TEMPORAL__METRICS_ADDRESS" in told
    with worker_with(address) as serving:
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                        assert answer.status == 200
                    break
                except urllib.error.URLError:
                    assert time.monotonic() < deadline, "no page"
                    assert serving.poll() is None
                    time.sleep(0.1)
        finally:
            serving.terminate()
            serving.communicate(timeout=120)
    assert serving.returncode == 0
