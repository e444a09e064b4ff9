"""The commands on sandboxes against a small api: what is asked of it, what is printed, which exit code."""

import json
from pathlib import Path
from typing import Any

import pytest

from hotswap.cli import sandbox as commands
from tests.unit.cli_fake_api import FakeApi, Run, listing, refusal

SANDBOX_ID = "sbx_" + "0123456789abcdef" * 2
EXECUTION_ID = "exe_" + "0123456789abcdef" * 2
CREATE = "POST /api/v1/sandbox/create"
EXECUTE = f"POST /api/v1/sandbox/{SANDBOX_ID}/execute"
RESULTS = f"GET /api/v1/sandbox/{SANDBOX_ID}/results"
CLEANUP = f"POST /api/v1/sandbox/{SANDBOX_ID}/cleanup"

SANDBOX = {
    "sandboxId": SANDBOX_ID,
    "pluginId": "phone",
    "version": "2.0.0",
    "environment": "Development",
    "status": "Active",
    "tier": "standard",
    "expiresAt": "2026-01-31T13:00:00Z",
    "createdBy": "dana",
    "endReason": "",
}


def execution(status: str = "Succeeded", **more: Any) -> dict[str, Any]:
    return {
        "executionId": EXECUTION_ID,
        "sandboxId": SANDBOX_ID,
        "method": "format",
        "status": status,
        "output": {"number": "+49\x9b31m"} if status == "Succeeded" else None,
        "logs": "begun\x1b[31m\n",
        "limit": "",
        "exitReason": "it returned a result",
        "durationMs": 12.5,
        "peakMemoryBytes": 2_000_000,
        "tier": "standard",
        "queuedAt": "2026-01-31T12:00:00Z",
        **more,
    }


@pytest.fixture
def api(api: FakeApi) -> FakeApi:
    api.on("GET /api/v1/sandbox", listing(SANDBOX))
    return api


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(commands, "LOOK_EVERY", 0.0)
    return lambda *arguments: run("sandbox", *arguments)


def test_create_sends_what_was_typed_and_prints_the_id(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on(CREATE, (201, SANDBOX))
    typed = ["--ttl", "10m", "--timeout", "5s", "--memory", "128", "--resources", '{"cpuSeconds": 2}', "-e", "qa"]
    assert run("create", "phone", "2.0.0", *typed) == 0
    asked = api.last(CREATE)
    assert asked.json() == {
        "pluginId": "phone",
        "version": "2.0.0",
        "environment": "QA",
        "ttl": "PT600S",
        "executionTimeout": "PT5S",
        "resources": {"cpuSeconds": 2, "memoryMb": 128},
    }
    assert asked.headers["idempotency-key"].startswith("sandbox-create-")
    assert SANDBOX_ID in capsys.readouterr().out
    assert run("create", "phone", "2.0.0", "--json") == 0
    assert json.loads(capsys.readouterr().out) == SANDBOX


def test_execute_waits_prints_the_result_and_keeps_the_log_apart(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    api.on(EXECUTE, (202, execution("Queued")))
    api.on(RESULTS, listing(execution("Running")), listing(execution()))
    request = tmp_path / "request.json"
    request.write_text('{"number": "1"}')
    assert (
        run(
            "execute",
            "sbx_0123",
            "format",
            f"@{request}",
            "--tenant",
            "acme",
            "--timeout",
            "2s",
            "--config",
            '{"a": 1}',
        )
        == 0
    )
    assert api.last(EXECUTE).json() == {
        "method": "format",
        "parameters": {"number": "1"},
        "tenant": "acme",
        "configuration": {"a": 1},
        "timeout": "PT2S",
        "wait": "PT20S",
    }
    assert api.count(RESULTS) == 2
    told = capsys.readouterr()
    assert json.loads(told.out) == {"number": "+49\x9b31m"}
    assert "\x9b" not in told.out
    assert "\x1b" not in told.err
    assert "| begun" in told.err
    assert "Succeeded: it returned a result" in told.err


@pytest.mark.parametrize("status", ["Failed", "Lost", "Cancelled"])
def test_what_did_not_succeed_is_exit_code_1_and_names_the_limit(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    api.on(EXECUTE, (200, execution(status, limit="MEMORY_LIMIT", exitReason="out of memory")))
    assert run("execute", SANDBOX_ID, "format") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{status}: MEMORY_LIMIT: out of memory" in told.err
    assert run("execute", SANDBOX_ID, "format", "--json") == 1
    assert json.loads(capsys.readouterr().out)["limit"] == "MEMORY_LIMIT"


def test_without_waiting_it_says_how_to_come_back(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on(EXECUTE, (202, execution("Queued")))
    assert run("execute", SANDBOX_ID, "format", "--no-wait") == 0
    assert "wait" not in api.last(EXECUTE).json()
    told = capsys.readouterr()
    assert told.out == f"{EXECUTION_ID} Queued\n"
    assert "hotswap sandbox results sbx_01234567 -x exe_01234567" in told.err


def test_results_lists_or_shows_one_whole(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on(RESULTS, listing(execution()))
    assert run("results", SANDBOX_ID) == 0
    assert capsys.readouterr().out.startswith(f"{EXECUTION_ID}\tformat\tSucceeded\t\t12.5\t2000000\t")
    assert run("results", SANDBOX_ID, "-x", "0123", "--json") == 0
    assert api.last(RESULTS).query == {"executionId": EXECUTION_ID}
    assert json.loads(capsys.readouterr().out)["executionId"] == EXECUTION_ID


def test_list_shows_the_living_unless_asked_for_all(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "-p", "phone", "-e", "development") == 0
    assert api.last("GET /api/v1/sandbox").query == {
        "pluginId": "phone",
        "environment": "Development",
        "status": "Active",
        "limit": "20",
    }
    assert capsys.readouterr().out.startswith(f"{SANDBOX_ID}\tphone\t2.0.0\tDevelopment\tActive\tstandard\t")
    assert run("list", "--all") == 0
    assert "status" not in api.last("GET /api/v1/sandbox").query


def test_delete_sends_the_reason_and_may_be_repeated(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on(CLEANUP, None, (204, b""))  # the connection breaks once
    assert run("delete", "sbx_0123", "--reason", "seen enough") == 0
    assert api.last(CLEANUP).json() == {"reason": "seen enough"}
    assert "has ended" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("execute", SANDBOX_ID, "format", "[1]"), "must be a JSON object"),
        (("execute", SANDBOX_ID, "format", "{"), "is not JSON"),
        (("execute", SANDBOX_ID, "format", "@/nowhere.json"), "cannot be read"),
        (("execute", "sbx_77", "format"), "no sandbox begins with 'sbx_77'"),
        (("create", "phone", "2.0.0", "--ttl", "soon"), "is not a duration"),
        (("create", "phone", "2.0.0", "-e", "moon"), "is not an environment"),
    ],
)
def test_a_slip_is_exit_code_2_and_says_what_to_write(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], typed: tuple[str, ...], said: str
) -> None:
    assert run(*typed) == 2
    assert said in capsys.readouterr().err
    assert api.count(EXECUTE) == api.count(CREATE) == 0


def test_a_refusal_is_told_with_its_remedy(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on(CREATE, refusal(409, "CONFLICT", "Development has 50 live sandboxes, as many as it may have"))
    assert run("create", "phone", "2.0.0") == 1
    assert "50 live sandboxes" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["create", "execute", "results", "list", "delete"])
def test_help_has_examples(run: Run, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert run(verb, "--help") == 0
    assert f"hotswap sandbox {verb}" in capsys.readouterr().out
