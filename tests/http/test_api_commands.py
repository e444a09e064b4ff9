"""Commands to deployments: roles, reasons, refusals, repeats, and taking back a completed deployment."""

import asyncio
from typing import Any

import httpx
import pytest

from hotswap.domain.errors import Conflict, Forbidden, InvalidInput, Unavailable
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus
from tests.http.site import API, Site, error_of, fields_of
from workflows.messages import ApproveCommand

COMMANDS = ("approve", "reject", "pause", "resume", "promote", "promote-full", "abort", "rollback")


async def order(
    client: httpx.AsyncClient, deployment_id: str, name: str, key: str | None = None, **body: Any
) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post(f"{API}/deployments/{deployment_id}/{name}", json=body, headers=headers)


@pytest.fixture
async def running(site: Site) -> str:
    """A deployment of 2.0.0 over 1.0.0 in Development."""
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "Development", "1.0.0", "dep_before")
    made = await site.deploy("2.0.0")
    assert made.status_code == 202, made.text
    return str(made.json()["deploymentId"])


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_command_reaches_the_workflow_with_who_and_why(site: Site, running: str, name: str) -> None:
    answer = await order(site.admin, running, name, key="k-1", reason="because")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"deploymentId": running, "status": "InProgress", "message": f"{name}: done"}
    ((sent, command, update_id),) = site.rollouts.sent
    assert (sent, command.by, command.roles, command.reason) == (name, "admin", ("Admin",), "because")
    assert isinstance(command, ApproveCommand) == (name == "approve")
    assert update_id == f"{name}:admin:k-1"


@pytest.mark.parametrize("name", COMMANDS)
async def test_reject_abort_and_rollback_need_a_reason_the_others_do_not(site: Site, running: str, name: str) -> None:
    needed = name in ("reject", "abort", "rollback")
    path = f"{API}/deployments/{running}/{name}"
    for answer in (await site.admin.post(path), await site.admin.post(path, json={"reason": "  "})):
        if needed:
            assert fields_of(error_of(answer, 400, "VALIDATION_ERROR")).keys() == {"reason"}
        else:
            assert answer.status_code == 200, answer.text
    assert bool(site.rollouts.sent) != needed


async def test_an_approval_is_bound_to_the_plan_that_was_read(site: Site, running: str) -> None:
    await order(site.approver, running, "approve", planHash="a" * 64)
    ((_, command, _),) = site.rollouts.sent
    assert isinstance(command, ApproveCommand)
    assert (command.plan_hash, command.by, command.roles) == ("a" * 64, "approver", ("Approver",))
    error = error_of(await order(site.approver, running, "approve", planHash="short"), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"planHash"}
    error = error_of(await order(site.admin, running, "pause", planHash="a" * 64), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"planHash"}


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (Conflict("only a paused deployment can be resumed"), 409, "CONFLICT"),
        (Forbidden("developer started it and cannot approve it"), 403, "FORBIDDEN"),
        (InvalidInput("reason: is required"), 400, "VALIDATION_ERROR"),
        (Unavailable("'resume' was sent, but no worker answered"), 503, "SERVICE_UNAVAILABLE"),
    ],
)
async def test_a_refusal_keeps_the_workflows_words_and_is_not_audited(
    site: Site, running: str, refusal: Any, status: int, code: str
) -> None:
    site.rollouts.refusal = refusal
    error = error_of(await order(site.admin, running, "resume", key="k"), status, code)
    assert error["message"] == refusal.message
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": running})).json()["items"]
    assert [item["eventType"] for item in log] == ["deployment.requested"]
    # A refusal is no answer to keep: the same key may succeed later.
    site.rollouts.refusal = None
    assert (await order(site.admin, running, "resume", key="k")).status_code == 200


@pytest.mark.parametrize("status", sorted(TERMINAL - {DeploymentStatus.COMPLETED}))
async def test_a_finished_deployment_takes_no_command_and_says_how_it_ended(
    site: Site, running: str, status: DeploymentStatus
) -> None:
    await site.project(running, status=status, outcome_reason="p99 over 500 ms")
    for name in COMMANDS:
        message = error_of(await order(site.admin, running, name, reason="x"), 409, "CONFLICT")["message"]
        assert f"is {status}" in message
        assert "p99 over 500 ms" in message
        assert ("to try it again, use 'retry'" in message) == (status is not DeploymentStatus.SUPERSEDED)
    assert site.rollouts.sent == []


async def test_what_completed_is_taken_back_by_a_rollback_if_there_was_something_before(
    site: Site, running: str
) -> None:
    remedy = "to go back to the version before, use 'rollback'"
    for before, told in ((None, False), ("0.9.0", True)):
        await site.project(running, status=DeploymentStatus.COMPLETED, from_version=before)
        message = error_of(await order(site.admin, running, "abort", reason="x"), 409, "CONFLICT")["message"]
        assert (remedy in message) == told
        assert ("deploy the version that you want instead" in message) != told


async def test_a_workflow_that_ended_a_moment_ago_is_told_by_its_projection(site: Site, running: str) -> None:
    site.rollouts.finish(running)
    message = error_of(await order(site.admin, running, "pause"), 409, "CONFLICT")["message"]
    assert "its workflow is Completed" in message
    assert "recorded as Pending" in message


async def test_a_repeat_with_the_same_key_gets_the_first_answer_even_after_the_end(site: Site, running: str) -> None:
    first = await order(site.admin, running, "abort", key="k", reason="x")
    await site.project(running, status=DeploymentStatus.ABORTED)
    again = await order(site.admin, running, "abort", key="k", reason="x")
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(site.rollouts.sent) == 1
    error_of(await order(site.admin, running, "abort", key="k", reason="y"), 409, "CONFLICT")
    error_of(await order(site.admin, running, "abort", key="other", reason="x"), 409, "CONFLICT")


async def test_commands_are_audited_and_counted(site: Site, running: str) -> None:
    await order(site.approver, running, "reject", reason="not on a friday")
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": running, "user": "approver"})).json()["items"]
    assert [(item["eventType"], item["details"]["reason"]) for item in log] == [
        ("deployment.reject.requested", "not on a friday")
    ]
    await order(site.admin, running, "reject")
    figures = (await site.nobody.get("/metrics")).text
    assert 'deployment_commands_total{command="reject",outcome="accepted"} 1.0' in figures
    assert 'deployment_commands_total{command="reject",outcome="InvalidInput"} 1.0' in figures


async def test_a_developer_commands_where_he_may_deploy(site: Site, running: str) -> None:
    assert (await order(site.developer, running, "pause")).status_code == 200
    await site.approve()
    there = (await site.deploy("1.0.0", environment="Production")).json()["deploymentId"]
    for name in ("pause", "resume", "promote", "abort", "rollback"):
        error_of(await order(site.developer, there, name, reason="x"), 403, "FORBIDDEN")
    assert (await order(site.approver, there, "approve")).status_code == 200


async def test_an_unknown_deployment_is_not_found(site: Site) -> None:
    for name in COMMANDS:
        error_of(await order(site.admin, f"dep_{'0' * 32}", name, reason="x"), 404, "NOT_FOUND")


async def test_rolling_back_a_completed_deployment_starts_a_direct_one_of_the_version_before(
    site: Site, running: str
) -> None:
    await site.complete(running)
    answer = await order(site.developer, running, "rollback", key="k", reason="wrong totals")
    assert answer.status_code == 202, answer.text
    back = answer.json()["deploymentId"]
    assert back != running
    assert answer.headers["Location"] == f"{API}/deployments/{back}"
    request = site.rollouts.started[-1]
    assert (request.deployment_id, request.version, request.rollback_of) == (back, "1.0.0", running)
    assert (request.config.kind, request.initiated_by, request.reason) == ("Direct", "developer", "wrong totals")
    deployment = (await site.viewer.get(f"{API}/deployments/{back}")).json()
    assert (deployment["fromVersion"], deployment["toVersion"]) == ("2.0.0", "1.0.0")
    again = await order(site.developer, running, "rollback", key="k", reason="wrong totals")
    assert (again.status_code, again.json()) == (202, answer.json())
    message = error_of(await order(site.admin, running, "rollback", reason="me too"), 409, "CONFLICT")["message"]
    assert back in message
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": running})).json()["items"]
    assert log[0]["eventType"] == "deployment.rollback.requested"


async def test_a_rollback_of_a_deployment_that_completed_a_moment_ago_waits_for_the_record(
    site: Site, running: str
) -> None:
    """The workflow says Completed and refuses the command, and the projection does not know yet."""
    site.rollouts.refusal = Conflict("it is Completed; 'rollback' makes no sense any more")
    site.rollouts.tells = (await site.progress(running)).model_copy(update={"status": DeploymentStatus.COMPLETED})
    ordered = asyncio.create_task(order(site.admin, running, "rollback", reason="wrong totals"))
    done, _ = await asyncio.wait({ordered}, timeout=0.2)
    assert not done
    await site.complete(running)
    answer = await ordered
    assert answer.status_code == 202, answer.text
    assert site.rollouts.started[-1].rollback_of == running


async def test_a_refused_rollback_of_a_running_deployment_stays_refused(site: Site, running: str) -> None:
    site.rollouts.refusal = Conflict("it is being rolled back already")
    site.rollouts.tells = await site.progress(running)
    error_of(await order(site.admin, running, "rollback", reason="x"), 409, "CONFLICT")
    assert len(site.rollouts.started) == 1


async def test_a_repeated_rollback_whose_answer_was_lost_starts_nothing_twice(site: Site, running: str) -> None:
    await site.complete(running)
    first = await order(site.admin, running, "rollback", key="k", reason="x")
    await site.complete(first.json()["deploymentId"])
    site.records.committed.answers.clear()
    again = await order(site.admin, running, "rollback", key="k", reason="x")
    assert (again.status_code, again.json()["deploymentId"]) == (202, first.json()["deploymentId"])
    assert len(site.rollouts.started) == 2


async def test_a_first_deployment_has_nothing_to_go_back_to(site: Site) -> None:
    await site.ship()
    first = (await site.deploy()).json()["deploymentId"]
    await site.complete(first)
    message = error_of(await order(site.admin, first, "rollback", reason="x"), 409, "CONFLICT")["message"]
    assert "first of greeter" in message
    assert len(site.rollouts.started) == 1


async def test_only_the_newest_completed_deployment_is_taken_back(site: Site, running: str) -> None:
    await site.complete(running)
    assert (await site.upload(version="3.0.0")).status_code == 201
    newer = (await site.deploy("3.0.0")).json()["deploymentId"]
    await site.complete(newer)
    message = error_of(await order(site.admin, running, "rollback", reason="x"), 409, "CONFLICT")["message"]
    assert newer in message
    assert (await order(site.admin, newer, "rollback", reason="x")).status_code == 202


async def test_a_rollback_is_not_rolled_back_past_its_gates(site: Site, running: str) -> None:
    """A rollback skips approval and trial, so undoing one would bring the bad version back with neither."""
    await site.complete(running)
    back = (await order(site.admin, running, "rollback", reason="bad")).json()["deploymentId"]
    await site.complete(back)
    message = error_of(await order(site.admin, back, "rollback", reason="again"), 409, "CONFLICT")["message"]
    assert "itself a rollback" in message
    assert (await site.deploy("2.0.0")).status_code == 202


async def test_a_rollback_refuses_when_something_else_is_served(site: Site, running: str) -> None:
    await site.project(running, status=DeploymentStatus.COMPLETED)
    site.rollouts.finish(running)
    message = error_of(await order(site.admin, running, "rollback", reason="x"), 409, "CONFLICT")["message"]
    assert "serves 1.0.0, not 2.0.0" in message
