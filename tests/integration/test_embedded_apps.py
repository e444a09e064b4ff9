"""The whole stack, our own processes included: it serves, comes back piece by piece, and leaves nothing."""

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.supervised import OwnStack, eventually, gone, processes_of

pytestmark = pytest.mark.xdist_group("embedded-apps")  # one stack for the whole module


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    data = tmp_path_factory.mktemp("whole") / "data"
    with OwnStack(data, "--nodes", "2", "--environment", "QA", servers_only=False) as stack:
        yield stack


def _get(url: str, token: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def _nodes(stack: OwnStack) -> list[dict[str, Any]]:
    info = stack.info()
    token = next(user["token"] for user in info["users"] if user["user"] == "viewer")
    status, body = _get(f"{info['apiUrl']}/api/v1/nodes", token)
    assert status == 200, body
    items = json.loads(body)["items"]
    assert isinstance(items, list)
    return items


def test_the_addresses_it_announces_answer(whole: OwnStack) -> None:
    info = whole.info()
    assert _get(info["docsUrl"])[0] == 200
    assert _get(info["consoleUrl"])[0] == 200
    assert _get(info["temporalUiUrl"])[0] == 200
    assert {node["environment"] for node in info["nodes"]} == {"QA"}
    for node in info["nodes"]:
        assert _get(f"{node['adminUrl']}/ready")[0] == 200
    assert _get(f"{info['apiUrl']}/api/v1/nodes", "not-a-token")[0] == 401


def test_its_nodes_are_known_to_the_api(whole: OwnStack) -> None:
    eventually(lambda: {node["nodeId"] for node in _nodes(whole)} == {"node-1", "node-2"}, "the nodes did not register")


@pytest.mark.long
def test_its_nodes_are_replaced_one_by_one_when_it_is_told_to(whole: OwnStack) -> None:
    before = {part["name"]: part for part in whole.info()["parts"] if part["name"] in ("node-1", "node-2")}
    assert whole.process is not None
    whole.process.send_signal(signal.SIGUSR1)
    for name, part in before.items():
        eventually(lambda name=name, part=part: whole.pid(name) != part["pid"], f"{name} was not replaced")
        eventually(lambda part=part: not Path("/proc", str(part["pid"])).exists(), f"the old {name} did not end")
    after = {part["name"]: part for part in whole.info()["parts"] if part["name"] in before}
    assert {part["restarts"] for part in after.values()} == {part["restarts"] for part in before.values()} == {0}
    for node in whole.info()["nodes"]:
        assert _get(f"{node['adminUrl']}/ready")[0] == 200


@pytest.mark.parametrize("name", ["api", "worker", "node-2"])
def test_a_killed_process_comes_back_where_it_was(whole: OwnStack, name: str) -> None:
    before = whole.info()
    whole.kill(name)
    after = whole.info()
    assert (after["apiUrl"], after["nodes"]) == (before["apiUrl"], before["nodes"])
    assert _get(f"{after['apiUrl']}/ready")[0] == 200
    assert _get(f"{after['nodes'][1]['adminUrl']}/ready")[0] == 200


def test_everything_ends_with_a_killed_supervisor(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with OwnStack(data, "--nodes", "1", servers_only=False) as stack:
        children = {part["pid"] for part in stack.info()["parts"]}
        started = set(processes_of(data))
        assert children <= started
        assert stack.end(signal.SIGKILL) == -signal.SIGKILL
        gone(data)
        eventually(lambda: not any(_lives(pid) for pid in started), "a process outlived the supervisor")


def _lives(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    stack = OwnStack(tmp_path / "data", servers_only=False, variables={"HOTSWAP_TELEMETRY__LOG_LEVEL": "LOUD"})
    stack.start()
    assert stack.process is not None
    stack.wait_said("HOTSWAP_TELEMETRY__LOG_LEVEL")
    assert stack.end(signal.SIGCONT) == 1
    assert "while starting; the end of" in stack.output
    gone(tmp_path / "data")
