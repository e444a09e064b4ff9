"""The commands against a small api: what is asked of it, what is printed, which exit code."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from tests.unit.cli_fake_api import DEPLOYMENT_ID, FakeApi, Run, deployment, line, listing, refusal, sse

DEPLOYMENT = f"/api/v1/deployments/{DEPLOYMENT_ID}"
MANIFEST = {"name": "phone", "version": "1.0.0", "entryPoint": "phone:Phone", "methods": [{"name": "parse"}]}


def archive(directory: Path, **changes: object) -> Path:
    path = directory / "phone-1.0.0.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("plugin.json", json.dumps({**MANIFEST, **changes}))
        file.writestr("phone.py", "class Phone: ...")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_deploy_asks_for_what_was_typed_and_says_how_to_follow(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("POST /api/v1/deployments", (202, deployment("Pending")))
    code = run("deploy", "phone", "2.0.0", "-e", "staging", "--steps", "10,100", "--strategy", "canary", "-m", "why")
    asked = api.last("POST /api/v1/deployments")
    assert code == 0
    assert asked.json() == {
        "pluginId": "phone",
        "version": "2.0.0",
        "environment": "Staging",
        "strategy": "Canary",
        "config": {"steps": [10, 100]},
        "reason": "why",
    }
    assert asked.headers["authorization"] == "Bearer token-of-admin"
    assert asked.headers["idempotency-key"]
    printed = capsys.readouterr()
    assert printed.out == f"{DEPLOYMENT_ID} Pending\n"
    assert "--watch" in printed.err


def test_deploy_repeats_a_broken_connection_under_one_key(api: FakeApi, run: Run) -> None:
    api.on("POST /api/v1/deployments", None, None, (202, deployment("Pending")))
    assert run("deploy", "phone", "2.0.0", "-e", "qa") == 0
    keys = {asked.headers["idempotency-key"] for asked in api.asked}
    assert len(api.asked) == 3
    assert len(keys) == 1


def test_plan_starts_nothing(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    step = {"kind": "shift-tenants", "weightPercent": 10}
    answer = {
        "plan": {"plugin": "phone", "environment": "QA"},
        "planHash": "abc",
        "fromVersion": None,
        "toVersion": "2.0.0",
        "strategy": "Canary",
        "approvalsRequired": 1,
        "steps": [{"number": 1, "title": "shift 10 % of tenants", "step": step}],
        "running": "dep_other",
    }
    api.on("POST /api/v1/deployments/plan", (200, answer))
    assert run("deploy", "phone", "2.0.0", "-e", "qa", "--plan") == 0
    printed = capsys.readouterr().out
    assert "1. shift 10 % of tenants (weightPercent 10)" in printed
    assert "dep_other" in printed
    assert api.count("POST /api/v1/deployments") == 0


@pytest.mark.parametrize(
    ("status", "code"),
    [("Completed", 0), ("RolledBack", 10), ("Aborted", 11), ("Rejected", 12), ("Superseded", 13), ("Failed", 14)],
)
def test_a_watched_deployment_ends_with_the_exit_code_of_its_outcome(
    api: FakeApi, run: Run, status: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("POST /api/v1/deployments", (202, deployment("Pending")))
    events = [line(1, "begun"), sse("status", deployment()), line(2, "shift 30 %"), sse("status", deployment(status))]
    api.on(f"GET {DEPLOYMENT}/events", [*events, sse("end", {"status": status})])
    assert run("deploy", "phone", "2.0.0", "-e", "qa", "--watch") == code
    printed = capsys.readouterr().out
    assert "step: begun" in printed
    assert "now: phone-format 1.0.0 -> 2.0.0 in Staging | InProgress" in printed
    assert f"exit code {code}" in printed


def test_watching_survives_the_api_and_tells_nothing_twice(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on(
        f"GET {DEPLOYMENT}/events",
        [line(1, "first"), line(2, "second"), sse("status", deployment())],
        None,
        refusal(503, "SERVICE_UNAVAILABLE", "starting"),
        [
            line(2, "second"),
            line(3, "third"),
            sse("status", deployment("Completed")),
            sse("end", {"status": "Completed"}),
        ],
    )
    api.on(f"GET {DEPLOYMENT}", (200, deployment()))
    assert run("status", DEPLOYMENT_ID, "--watch") == 0
    printed = capsys.readouterr().out
    assert [printed.count(text) for text in ("first", "second", "third")] == [1, 1, 1]
    assert printed.count("lost the api") == 1
    assert printed.count("the api is back") == 1
    asked = [asked for asked in api.asked if asked.path.endswith("/events")]
    assert [one.headers.get("last-event-id") for one in asked] == [None, "2", "2", "2"]


def test_a_stream_that_ends_without_end_is_over_when_the_deployment_is(api: FakeApi, run: Run) -> None:
    api.on(f"GET {DEPLOYMENT}/events", [line(1, "first")])
    api.on(f"GET {DEPLOYMENT}", (200, deployment("RolledBack")))
    assert run("status", DEPLOYMENT_ID, "--watch") == 10


def test_watching_an_unknown_deployment_ends_at_once(api: FakeApi, run: Run) -> None:
    assert run("status", DEPLOYMENT_ID, "--watch") == 1
    assert api.count(f"GET {DEPLOYMENT}/events") == 1


def test_watching_in_json_is_one_object_a_line(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    events = [line(1, "begun"), sse("status", deployment("Completed")), sse("end", {"status": "Completed"})]
    api.on(f"GET {DEPLOYMENT}/events", events)
    assert run("status", DEPLOYMENT_ID, "--watch", "--json") == 0
    told = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in told] == ["timeline", "status", "end"]


def test_events_stop_after_the_backlog_unless_followed(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [line(1, "first"), sse("status", deployment()), line(2, "later"), sse("end", {"status": "Completed"})]
    api.on(f"GET {DEPLOYMENT}/events", events)
    assert run("events", DEPLOYMENT_ID) == 0
    assert "later" not in capsys.readouterr().out
    assert run("events", DEPLOYMENT_ID, "--follow") == 0
    assert "later" in capsys.readouterr().out


def test_a_unique_beginning_of_the_id_is_enough(api: FakeApi, run: Run) -> None:
    api.on("GET /api/v1/deployments", listing(deployment(), deployment(deploymentId="dep_" + "f" * 32)))
    api.on(f"GET {DEPLOYMENT}", (200, deployment()))
    assert run("status", "dep_0123") == 0
    assert run("status", "0123") == 0


def test_a_beginning_that_fits_several_is_refused_with_their_names(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "dep_01" + "f" * 30
    api.on("GET /api/v1/deployments", listing(deployment(), deployment(deploymentId=other)))
    assert run("status", "dep_01") == 2
    assert other in capsys.readouterr().err
    assert run("status", "dep_9") == 2


def test_plugin_at_environment_means_the_newest_deployment_there(api: FakeApi, run: Run) -> None:
    api.on("GET /api/v1/deployments", listing(deployment()))
    api.on(f"GET {DEPLOYMENT}", (200, deployment()))
    api.on(f"POST {DEPLOYMENT}/pause", (200, {"deploymentId": DEPLOYMENT_ID, "status": "Paused", "message": "ok"}))
    assert run("pause", "phone@staging") == 0
    assert api.last("GET /api/v1/deployments").query == {"pluginId": "phone", "environment": "Staging", "limit": "1"}


def test_approve_is_bound_to_the_plan_and_speaks_as_the_approver(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on(f"GET {DEPLOYMENT}", (200, deployment("AwaitingApproval")))
    result = {"deploymentId": DEPLOYMENT_ID, "status": "InProgress", "message": "approved by approver"}
    api.on(f"POST {DEPLOYMENT}/approve", (200, result))
    assert run("approve", DEPLOYMENT_ID, "--as", "approver", "-m", "fine") == 0
    asked = api.last(f"POST {DEPLOYMENT}/approve")
    assert asked.json() == {"reason": "fine", "planHash": "a" * 64}
    assert asked.headers["authorization"] == "Bearer token-of-approver"
    assert "approved by approver" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["reject", "abort", "rollback"])
def test_what_undoes_something_needs_a_reason(api: FakeApi, run: Run, verb: str) -> None:
    result = {"deploymentId": DEPLOYMENT_ID, "status": "RollingBack", "message": ""}
    api.on(f"POST {DEPLOYMENT}/{verb}", (200, result))
    assert run(verb, DEPLOYMENT_ID) == 2
    assert not api.asked
    assert run(verb, DEPLOYMENT_ID, "--reason", "bad") == 0
    assert api.last(f"POST {DEPLOYMENT}/{verb}").json() == {"reason": "bad"}


def test_a_refusal_is_told_with_fields_remedy_and_trace(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    details = [{"field": "config.steps", "message": "must end at 100, but ends at 50"}]
    api.on("POST /api/v1/deployments", refusal(400, "VALIDATION_ERROR", "the request is wrong", details, "abc123"))
    assert run("deploy", "phone", "2.0.0", "-e", "qa", "--steps", "10,50") == 2
    told = capsys.readouterr().err
    for expected in ("the request is wrong", "config.steps: must end at 100", "what to do:", "trace id: abc123"):
        assert expected in told


def test_a_refusal_in_json_is_the_envelope_on_stderr(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /api/v1/nodes", refusal(401, "UNAUTHORIZED", "no token"))
    assert run("nodes", "--json") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err)["error"]["code"] == "UNAUTHORIZED"


def test_too_many_requests_say_how_long_to_wait(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /api/v1/nodes", refusal(429, "RATE_LIMIT_EXCEEDED", "slow down"))
    assert run("nodes") == 1
    assert "wait 7 s" in capsys.readouterr().err


def test_something_that_is_no_api_is_told_plainly(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /api/v1/nodes", (200, b"<html>"))
    assert run("nodes") == 1
    assert "is it a HotSwap api" in capsys.readouterr().err


def test_an_api_that_is_away_is_exit_code_3(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--url", "http://127.0.0.1:1", "--token", "t") == 3
    assert "hotswap up" in capsys.readouterr().err


def test_lists_are_tab_separated_when_piped(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /api/v1/deployments", listing(deployment()))
    assert run("list", "-e", "staging", "--plugin", "phone-format") == 0
    cells = capsys.readouterr().out.rstrip("\n").split("\t")
    assert cells[:7] == [DEPLOYMENT_ID, "phone-format", "1.0.0", "2.0.0", "Staging", "Canary", "InProgress"]
    query = api.last("GET /api/v1/deployments").query
    assert query == {"pluginId": "phone-format", "environment": "Staging", "limit": "20", "offset": "0"}


def test_push_registers_a_new_plugin_and_uploads_the_bytes(api: FakeApi, run: Run, tmp_path: Path) -> None:
    path = archive(tmp_path)
    api.on("POST /api/v1/plugins", (201, {"name": "phone"}))
    api.on("POST /api/v1/plugins/phone/versions", (201, {"plugin": "phone", "version": "1.0.0"}))
    assert run("plugin", "push", str(path), "--notes", "first") == 0
    assert api.last("POST /api/v1/plugins").json()["name"] == "phone"
    upload = api.last("POST /api/v1/plugins/phone/versions")
    assert path.read_bytes() in upload.body
    assert sha256(path).encode() in upload.body
    assert int(upload.headers["content-length"]) == len(upload.body)


def test_pushing_the_same_bytes_again_is_fine(
    api: FakeApi, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = archive(tmp_path)
    api.on("GET /api/v1/plugins/phone", (200, {"name": "phone"}))
    api.on("GET /api/v1/plugins/phone/versions/1.0.0", (200, {"digest": sha256(path)}))
    assert run("plugin", "push", str(path)) == 0
    assert "already" in capsys.readouterr().out
    assert not [asked for asked in api.asked if asked.method == "POST"]


def test_pushing_other_bytes_under_the_same_version_is_refused(
    api: FakeApi, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /api/v1/plugins/phone", (200, {"name": "phone"}))
    api.on("GET /api/v1/plugins/phone/versions/1.0.0", (200, {"digest": "f" * 64}))
    assert run("plugin", "push", str(archive(tmp_path))) == 1
    assert "immutable" in capsys.readouterr().err


def test_a_push_that_another_push_overtook_is_fine(api: FakeApi, run: Run, tmp_path: Path) -> None:
    path = archive(tmp_path)
    api.on("GET /api/v1/plugins/phone", (200, {"name": "phone"}))
    there = (200, {"digest": sha256(path)})
    api.on("GET /api/v1/plugins/phone/versions/1.0.0", refusal(404, "NOT_FOUND", "no"), there)
    api.on("POST /api/v1/plugins/phone/versions", refusal(409, "CONFLICT", "is there already"))
    assert run("plugin", "push", str(path)) == 0


def test_a_bad_manifest_is_told_by_field_before_anything_is_sent(
    api: FakeApi, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plugin", "push", str(archive(tmp_path, entrypoint="x"))) == 2
    assert "entrypoint: is not a known key" in capsys.readouterr().err
    assert not api.asked


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_what_is_no_bundle_is_told_plainly(run: Run, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "some.zip"
    if content is not None:
        path.write_bytes(content)
    assert run("plugin", "push", str(path)) == 2


def test_a_folder_is_pushed_by_the_zip_that_was_built_in_it(
    api: FakeApi, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "phone"
    (folder / "dist").mkdir(parents=True)
    (folder / "plugin.json").write_text(json.dumps(MANIFEST))
    assert run("plugin", "push", str(folder)) == 2
    assert "hotswap plugin build" in capsys.readouterr().err
    path = archive(folder / "dist")
    api.on("GET /api/v1/plugins/phone", (200, {"name": "phone"}))
    api.on("GET /api/v1/plugins/phone/versions/1.0.0", (200, {"digest": sha256(path)}))
    assert run("plugin", "push", str(folder)) == 0


def test_a_file_that_cannot_be_written_is_a_fault_with_a_remedy(
    api: FakeApi, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = "/api/v1/plugins/phone/versions/1.0.0"
    content = b"bytes"
    record = {"plugin": "phone", "version": "1.0.0", "sizeBytes": len(content)}
    api.on(f"GET {base}", (200, {**record, "digest": hashlib.sha256(content).hexdigest()}))
    api.on(f"GET {base}/download", (200, content))
    assert run("plugin", "download", "phone", "1.0.0", "-o", str(tmp_path / "missing" / "phone.zip")) == 1
    told = capsys.readouterr().err
    assert "No such file or directory" in told
    assert "what to do: see that the file can be written" in told
    assert "Traceback" not in told


def test_download_proves_the_digest(api: FakeApi, run: Run, tmp_path: Path) -> None:
    content = b"the bytes"
    base = "/api/v1/plugins/phone/versions/1.0.0"
    record = {"plugin": "phone", "version": "1.0.0", "sizeBytes": len(content)}
    good = {**record, "digest": hashlib.sha256(content).hexdigest()}
    api.on(f"GET {base}", (200, good), (200, {**record, "digest": "0" * 64}))
    api.on(f"GET {base}/download", (200, content))
    target = tmp_path / "out.zip"
    assert run("plugin", "download", "phone", "1.0.0", "-o", str(target)) == 0
    assert target.read_bytes() == content
    assert run("plugin", "download", "phone", "1.0.0", "-o", str(target)) == 1
    assert not target.exists()
    assert [path for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_a_name_cannot_reach_another_path(api: FakeApi, run: Run) -> None:
    assert run("plugin", "show", "../deployments?x=1") == 1
    assert api.asked[-1].path == "/api/v1/plugins/..%2Fdeployments%3Fx%3D1"


def test_ping_says_what_is_away(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /health", (200, {"status": "ok"}))
    parts = {"postgres": {"state": "ok"}, "temporal": {"state": "away", "detail": "refused"}}
    api.on("GET /ready", (503, {"status": "away", "dependencies": parts}))
    api.on("GET /api/v1/deployments", listing())
    assert run("ping") == 1
    assert "temporal away (refused)" in capsys.readouterr().out


def test_no_command_and_a_wrong_one_are_usage(run: Run) -> None:
    assert run("nonsense") == 2
    assert run("deploy", "phone") == 2


@pytest.mark.parametrize("command", ["up", "demo", "deploy", "status", "list", "rollback", "ping"])
def test_help_shows_an_example(run: Run, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert "Examples" in capsys.readouterr().out
