"""`hotswap drift`, `hotswap held`, `hotswap deploy --override-hold` against a small api."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from hotswap.cli.main import app
from tests.unit.cli_fake_api import FakeApi, deployment, fake_api, listing

DRIFT = "/api/v1/environments/Staging/drift"
ITEM = {
    "kind": "extra-host",
    "nodeId": "node-2",
    "plugin": "invoice",
    "version": "1.0.0",
    "expected": "no host",
    "found": "one that is Ready",
    "explainedBy": "",
}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as made:
        yield made


def run(api: FakeApi, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--url", api.url, "--token", "t"])


def report(*items: dict[str, str], drifted: bool) -> tuple[int, dict[str, object]]:
    return 200, {"nodes": 3, "plugins": 5, "total": len(items), "items": list(items), "drifted": drifted}


def test_drift_is_listed_and_is_the_exit_code(api: FakeApi) -> None:
    api.on(f"GET {DRIFT}", report(ITEM, drifted=True))
    done = run(api, "drift", "-e", "staging")
    assert done.exit_code == 1
    assert done.stdout.split("\t")[:4] == ["node-2", "extra-host", "invoice", "1.0.0"]


def test_no_drift_is_success(api: FakeApi) -> None:
    api.on(f"GET {DRIFT}", report(drifted=False))
    assert run(api, "drift", "-e", "Staging").exit_code == 0


def test_what_a_deployment_explains_is_shown_and_no_failure(api: FakeApi) -> None:
    api.on(f"GET {DRIFT}", report({**ITEM, "explainedBy": "dep_1"}, drifted=False))
    done = run(api, "drift", "-e", "staging")
    assert done.exit_code == 0
    assert "dep_1" in done.stdout


@pytest.mark.parametrize(("left", "code"), [(0, 0), (1, 1)])
def test_a_repair_says_what_is_left(api: FakeApi, left: int, code: int) -> None:
    answer = {"found": 2, "left": left, "nodes": ["node-2"], "faults": {"node-3": "took no order"}}
    api.on(f"POST {DRIFT}/repair", (200, answer))
    done = run(api, "drift", "-e", "staging", "--repair", "-m", "node-2 was cut off")
    assert done.exit_code == code
    assert f"2 differences found, {left} left" in done.stdout
    assert "node-3 could not: took no order" in done.stdout
    assert api.last(f"POST {DRIFT}/repair").json() == {"reason": "node-2 was cut off"}


def test_a_repair_speaks_json(api: FakeApi) -> None:
    answer = {"found": 0, "left": 0, "nodes": [], "faults": {}}
    api.on(f"POST {DRIFT}/repair", (200, answer))
    assert json.loads(run(api, "drift", "-e", "staging", "--repair", "--json").stdout) == answer


def test_held_versions_are_listed_with_their_reason(api: FakeApi) -> None:
    held = {
        "plugin": "invoice",
        "version": "2.0.0",
        "heldAt": "2026-01-31T12:00:00Z",
        "deploymentId": "dep_1",
        "reason": "3 looks in a row found a fault",
    }
    api.on("GET /api/v1/environments/Production/held-versions", listing(held))
    done = run(api, "held", "-e", "production")
    assert done.exit_code == 0
    assert "3 looks in a row found a fault" in done.stdout


def test_the_reason_to_override_a_hold_goes_with_the_request(api: FakeApi) -> None:
    api.on("POST /api/v1/deployments", (202, deployment("Pending")))
    arguments = ("deploy", "phone-format", "2.0.0", "-e", "staging", "--override-hold", "the node was broken")
    assert run(api, *arguments).exit_code == 0
    assert api.last("POST /api/v1/deployments").json()["overrideHold"] == "the node was broken"
