"""The commands on freezes and pipelines against a small api: what is asked of it, what is printed, which exit code."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hotswap.cli import pipelines
from hotswap.cli.faults import UsageFault
from hotswap.cli.windows import freeze_window, window_text
from tests.unit.cli_fake_api import DEPLOYMENT_ID, FakeApi, Run, listing

FREEZE_ID = "frz_" + "0123456789abcdef" * 2
PIPELINE_ID = "pip_" + "0123456789abcdef" * 2
FREEZE = {
    "freezeId": FREEZE_ID,
    "kind": "deny",
    "environment": "Production",
    "plugin": None,
    "window": {
        "kind": "weekly",
        "days": ["Friday"],
        "start": "16:00",
        "endDay": "Monday",
        "end": "08:00",
        "timeZone": "UTC",
    },
    "reason": "week\x1b[31mend",
    "createdBy": "admin",
    "createdAt": "2026-01-31T12:00:00Z",
    "liftedAt": None,
}
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def pipeline(status: str = "InProgress", **more: Any) -> dict[str, Any]:
    stages = [
        {"environment": "Development", "strategy": "Direct", "state": "Done", "deploymentId": DEPLOYMENT_ID}
        | {"deploymentStatus": "Completed", "stepTitle": ""},
        {"environment": "QA", "strategy": "Rolling", "state": "Waiting", "deploymentId": ""},
    ]
    return {
        "pipelineId": PIPELINE_ID,
        "plugin": "phone",
        "version": "2.0.0",
        "status": status,
        "stages": stages,
        "stageNumber": 2,
        "waitingFor": "",
        "outcomeReason": "",
        "whatToDo": "",
        "requestedAt": "2026-01-31T12:00:00Z",
        "initiatedBy": "admin",
        **more,
    }


def window(**given: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("starts", "until", "lasting", "daily", "weekly"))
    return freeze_window(**{**empty, "time_zone": "UTC", "now": NOW, **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"kind": "once", "starts": "2026-06-01T12:00:00+00:00"}),
        (
            {"lasting": "2h"},
            {"kind": "once", "starts": "2026-06-01T12:00:00+00:00", "ends": "2026-06-01T14:00:00+00:00"},
        ),
        ({"starts": "2026-12-24T18:00+01:00", "lasting": "P1DT1H"}, {"ends": "2026-12-25T18:00:00+00:00"}),
        ({"starts": "2026-12-24T18:00Z", "until": "2026-12-25T18:00Z"}, {"ends": "2026-12-25T18:00:00+00:00"}),
        ({"daily": "22:00-6:00"}, {"kind": "daily", "start": "22:00", "end": "06:00", "timeZone": "UTC"}),
        (
            {"weekly": "Fri 16:00-Mon 08:00", "time_zone": "Europe/Berlin"},
            {"days": ["Friday"], "start": "16:00", "endDay": "Monday", "end": "08:00", "timeZone": "Europe/Berlin"},
        ),
        ({"weekly": "mon,tue, Wed 09:00 - 17:00"}, {"days": ["Monday", "Tuesday", "Wednesday"], "end": "17:00"}),
    ],
)
def test_windows_as_people_type_them(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected.items() <= window(**given).items()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"daily": "all day"}, "22:00-06:00"),
        ({"weekly": "Fri"}, "Fri 16:00"),
        ({"weekly": "T 09:00-10:00"}, "not a day"),
        ({"starts": "tomorrow"}, "not an instant"),
        ({"lasting": "long"}, "not a duration"),
        ({"lasting": "2h", "until": "2026-12-25T18:00Z"}, "both say"),
        ({"daily": "22:00-06:00", "weekly": "Fri 16:00-17:00"}, "--daily and --weekly"),
        ({"daily": "22:00-06:00", "starts": "2026-12-25T18:00Z"}, "--from"),
    ],
)
def test_what_is_no_window_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageFault) as fault:
        window(**given)
    assert said in f"{fault.value.message} {fault.value.remedy}"


def test_a_window_in_a_line() -> None:
    assert window_text(FREEZE["window"]) == "Fri 16:00 - Mon 08:00 UTC"  # type: ignore[arg-type]
    assert window_text(window(daily="22:00-06:00")) == "daily 22:00 - 06:00 UTC"
    assert window_text(window()) == "from 2026-06-01T12:00:00+00:00"


def test_a_freeze_is_added_listed_and_lifted(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("POST /api/v1/freezes", (201, FREEZE))
    assert run("freeze", "add", "-e", "production", "--weekly", "Fri 16:00-Mon 08:00", "-m", "weekend") == 0
    asked = api.last("POST /api/v1/freezes")
    assert asked.json() == {
        "kind": "deny",
        "reason": "weekend",
        "environment": "Production",
        "window": {**FREEZE["window"]},  # type: ignore[dict-item]
    }
    assert asked.headers["idempotency-key"]
    api.on("GET /api/v1/freezes", listing(FREEZE))
    assert run("freeze", "list") == 0
    assert api.last("GET /api/v1/freezes").query == {"limit": "20", "lifted": "false"}
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.split("\t")[:6] == [FREEZE_ID, "deny", "Production", "all", "Fri 16:00 - Mon 08:00 UTC", "stands"]
    assert "\x1b" not in row
    api.routes[f"DELETE /api/v1/freezes/{FREEZE_ID}"] = lambda asked: (204, b"")
    assert run("freeze", "lift", "frz_0123", "-m", "done") == 0
    assert api.last(f"DELETE /api/v1/freezes/{FREEZE_ID}").query == {"reason": "done"}


def test_an_allow_window_is_asked_for_as_such(api: FakeApi, run: Run) -> None:
    api.on("POST /api/v1/freezes", (201, FREEZE))
    assert run("freeze", "add", "--allow", "--daily", "09:00-16:00", "-z", "Europe/Berlin", "-m", "office") == 0
    body = api.last("POST /api/v1/freezes").json()
    assert (body["kind"], body["window"]["timeZone"]) == ("allow", "Europe/Berlin")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("stop-everything",), "POST /api/v1/freezes/stop"),
        (("release-everything",), "POST /api/v1/freezes/stop/lift"),
    ],
)
def test_the_switch_needs_a_reason(api: FakeApi, run: Run, arguments: tuple[str, ...], asked: str) -> None:
    assert run(*arguments) == 2
    assert api.asked == []
    api.on(asked, (200, FREEZE))
    assert run(*arguments, "-m", "incident 7") == 0
    assert api.last(asked).json() == {"reason": "incident 7"}


def test_one_deployment_is_let_through(api: FakeApi, run: Run) -> None:
    path = f"POST /api/v1/deployments/{DEPLOYMENT_ID}/override-freeze"
    api.on(path, (200, {"deploymentId": DEPLOYMENT_ID, "status": "InProgress", "message": "no freeze holds it"}))
    assert run("override-freeze", DEPLOYMENT_ID) == 2
    assert run("override-freeze", DEPLOYMENT_ID, "-m", "agreed") == 0
    assert api.last(path).json() == {"reason": "agreed"}


def test_a_pipeline_is_started_through_its_environments(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("POST /api/v1/pipelines", (202, pipeline("Pending")))
    typed = ("pipeline", "start", "phone", "2.0.0", "--through", "development,qa", "--soak", "1h", "--gate", "approver")
    assert run(*typed, "-m", "release 12") == 0
    assert api.last("POST /api/v1/pipelines").json() == {
        "pluginId": "phone",
        "version": "2.0.0",
        "stages": [
            {"environment": "Development", "soak": "PT3600S"},
            {"environment": "QA", "gate": {"role": "Approver"}},
        ],
        "onConflict": "wait",
        "reason": "release 12",
    }
    assert capsys.readouterr().out == f"{PIPELINE_ID} Pending\n"


def test_stages_may_be_written_out(api: FakeApi, run: Run) -> None:
    api.on("POST /api/v1/pipelines", (202, pipeline("Pending")))
    stages = [{"environment": "QA", "strategy": "Canary"}]
    assert run("pipeline", "start", "phone", "2.0.0", "--stages", json.dumps({"stages": stages})) == 0
    assert api.last("POST /api/v1/pipelines").json()["stages"] == stages
    for wrong in (
        (),
        ("--through", "moon"),
        ("--stages", "[]"),
        ("--stages", "{}"),
        ("--through", "qa", "--gate", "boss"),
    ):
        assert run("pipeline", "start", "phone", "2.0.0", *wrong) == 2


def test_a_watched_pipeline_says_what_changes_and_exits_with_its_outcome(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "LOOK_EVERY", 0.01)
    told = f"GET /api/v1/pipelines/{PIPELINE_ID}"
    waiting = pipeline(waitingFor="QA: 1 approval, not by admin")
    ended = pipeline("RolledBack", outcomeReason="QA ended RolledBack: the verdict failed", whatToDo="mend it")
    api.on(told, (200, waiting), (200, waiting), (200, ended))
    assert run("pipeline", "status", PIPELINE_ID, "--watch") == 10
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"{PIPELINE_ID} | phone 2.0.0 | InProgress",
        f"  Development by Direct: Done | {DEPLOYMENT_ID} Completed",
        "  QA by Rolling: Waiting",
        "waits for QA: 1 approval, not by admin",
        f"{PIPELINE_ID} | phone 2.0.0 | RolledBack",
        "because QA ended RolledBack: the verdict failed",
        "what to do mend it",
    ]


@pytest.mark.parametrize("verb", ["approve", "reject", "pause", "resume", "abort", "retry"])
def test_commands_on_a_pipeline(api: FakeApi, run: Run, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"POST /api/v1/pipelines/{PIPELINE_ID}/{verb}"
    api.on("GET /api/v1/pipelines", listing(pipeline()))
    api.on(path, (200, {"pipelineId": PIPELINE_ID, "status": "InProgress", "message": "done"}))
    assert run("pipeline", verb, "pip_0123") == (2 if verb in ("reject", "abort") else 0)
    assert run("pipeline", verb, "pip_0123", "-m", "because") == 0
    assert api.last(path).json() == {"reason": "because"}
    assert "InProgress: done" in capsys.readouterr().out


def test_pipelines_are_listed(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /api/v1/pipelines", listing(pipeline(waitingFor="QA to soak")))
    assert run("pipeline", "list", "-p", "phone") == 0
    assert api.last("GET /api/v1/pipelines").query == {"pluginId": "phone", "limit": "20"}
    assert capsys.readouterr().out.split("\t")[:6] == [PIPELINE_ID, "phone", "2.0.0", "InProgress", "2/2", "QA to soak"]
