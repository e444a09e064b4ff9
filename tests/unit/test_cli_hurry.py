"""The commands of people in a hurry, against a small api: --on-conflict, --hotfix, promote-full, retry."""

import pytest

from tests.unit.cli_fake_api import DEPLOYMENT_ID, FakeApi, Run, deployment, sse

DEPLOYMENT = f"/api/v1/deployments/{DEPLOYMENT_ID}"


def test_deploy_says_how_to_meet_a_running_one_and_that_it_is_urgent(api: FakeApi, run: Run) -> None:
    api.on("POST /api/v1/deployments", (202, deployment("Pending")))
    assert run("deploy", "phone", "2.0.0", "-e", "qa", "--on-conflict", "supersede", "--hotfix") == 0
    asked = api.last("POST /api/v1/deployments").json()
    assert (asked["onConflict"], asked["hotfix"]) == ("supersede", True)
    assert run("deploy", "phone", "2.0.0", "-e", "qa") == 0
    assert not {"onConflict", "hotfix"} & api.last("POST /api/v1/deployments").json().keys()


def test_an_unknown_way_to_meet_a_running_one_is_refused_before_anything_is_asked(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", "phone", "2.0.0", "-e", "qa", "--on-conflict", "fight") == 2
    assert "reject, queue, supersede" in capsys.readouterr().err
    assert api.asked == []


def test_promote_full_and_retry_go_to_the_deployment(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on(f"GET {DEPLOYMENT}", (200, deployment("RolledBack")))
    api.on(
        f"POST {DEPLOYMENT}/promote-full",
        (200, {"deploymentId": DEPLOYMENT_ID, "status": "InProgress", "message": "skipping"}),
    )
    assert run("promote-full", DEPLOYMENT_ID, "-m", "seen in QA") == 0
    assert api.last(f"POST {DEPLOYMENT}/promote-full").json() == {"reason": "seen in QA"}
    again = "dep_" + "f" * 32
    api.on(f"POST {DEPLOYMENT}/retry", (202, {"deploymentId": again, "status": "Pending", "message": "anew"}))
    assert run("retry", DEPLOYMENT_ID) == 0
    assert again[:12] in capsys.readouterr().out
    api.on(f"GET /api/v1/deployments/{again}/events", [sse("end", {"status": "Completed"})])
    assert run("retry", DEPLOYMENT_ID, "--watch") == 0
