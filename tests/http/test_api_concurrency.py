"""Several deployments of one plugin to one environment: refused, queued, superseding, tried again. Over HTTP."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from temporalio.client import Client

from api.services.commands import CommandService
from api.services.deployments import DeploymentService
from api.services.rollout_gateway import RolloutGateway
from hotswap.config import Settings
from hotswap.domain.deployment import OnConflict
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus
from hotswap.runtime.signature_guard import guard_of
from tests.http.site import API, Site, error_of, fields_of

ENDED_BADLY = ("RolledBack", "Aborted", "Failed", "Rejected")


@pytest.fixture
async def running(site: Site) -> str:
    """A canary of 2.0.0 over 1.0.0 in Development."""
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "Development", "1.0.0", "dep_before")
    made = await site.deploy("2.0.0", strategy="Canary", config={"steps": [20, 100], "evaluationPeriod": "PT90S"})
    assert made.status_code == 202, made.text
    return str(made.json()["deploymentId"])


async def test_of_a_hundred_starts_at_once_one_runs_and_the_others_are_told_which(
    site: Site, settings: Settings, temporal_client: Client, unique: Callable[[str], str]
) -> None:
    """With the real Temporal behind it: its workflow id is the lock."""
    name = unique("plugin")
    queue = settings.temporal.model_copy(update={"task_queue": unique("nobody-polls")})
    rollouts = RolloutGateway(queue, command_timeout=timedelta(seconds=5))
    container = site.container
    guard = guard_of(container.settings.signatures, container.unit_of_work)
    container.deployments = DeploymentService(
        container.unit_of_work, container.unit_of_work, rollouts, container.settings, container.metrics, guard
    )
    container.commands = CommandService(container.unit_of_work, rollouts, container.deployments, container.metrics)
    await site.ship(name)
    body = {"pluginId": name, "version": "1.0.0", "environment": "Development"}
    answers = await asyncio.gather(*(site.admin.post(f"{API}/deployments", json=body) for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {202: 1, 409: 99}
    started = next(answer for answer in answers if answer.status_code == 202).json()
    refused = [answer for answer in answers if answer.status_code == 409]
    assert all(started["deploymentId"] in answer.json()["error"]["message"] for answer in refused)
    listed = (await site.admin.get(f"{API}/deployments", params={"pluginId": name})).json()
    assert listed["total"] == 1
    await temporal_client.get_workflow_handle(started["workflowId"]).terminate()


async def test_a_queued_deployment_is_visible_at_once_and_can_be_aborted(site: Site, running: str) -> None:
    answer = await site.deploy("2.0.0", onConflict="queue")
    assert answer.status_code == 202, answer.text
    queued = answer.json()
    assert (queued["status"], queued["waitingFor"], queued["onConflict"]) == ("Pending", "its turn", "queue")
    assert queued["workflowId"] == f"queued/Development/greeter/{queued['deploymentId']}"
    listed = (await site.viewer.get(f"{API}/deployments")).json()["items"]
    assert [item["deploymentId"] for item in listed] == [queued["deploymentId"], running]
    aborted = await site.admin.post(f"{API}/deployments/{queued['deploymentId']}/abort", json={"reason": "no"})
    assert aborted.status_code == 200, aborted.text
    assert aborted.json()["deploymentId"] == queued["deploymentId"]


async def test_a_repeat_under_the_same_key_queues_once(site: Site, running: str) -> None:
    first = await site.deploy("2.0.0", onConflict="queue", headers={"Idempotency-Key": "k"})
    site.records.committed.answers.clear()
    again = await site.deploy("2.0.0", onConflict="queue", headers={"Idempotency-Key": "k"})
    assert again.json()["deploymentId"] == first.json()["deploymentId"]
    assert [request.on_conflict for request in site.rollouts.started] == [OnConflict.REJECT, OnConflict.QUEUE]


async def test_what_is_served_now_may_queue_behind_what_replaces_it(site: Site, running: str) -> None:
    error_of(await site.deploy("1.0.0"), 409, "CONFLICT")
    answer = await site.deploy("1.0.0", onConflict="queue")
    assert answer.status_code == 202, answer.text
    assert (answer.json()["stepCount"], answer.json()["planHash"]) == (0, "")


async def test_what_is_served_and_stays_served_is_refused_at_once(site: Site) -> None:
    await site.ship()
    await site.serve("greeter", "Development", "1.0.0", "dep_before")
    error_of(await site.deploy("1.0.0", onConflict="queue"), 409, "CONFLICT")
    assert site.rollouts.started == []


async def test_how_conflicts_are_met_is_said_in_one_of_three_words(site: Site, running: str) -> None:
    error = error_of(await site.deploy("2.0.0", onConflict="fight"), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"onConflict"}
    plan = await site.admin.post(
        f"{API}/deployments/plan",
        json={"pluginId": "greeter", "version": "2.0.0", "environment": "Development", "hotfix": True},
    )
    assert plan.status_code == 200, plan.text
    assert plan.json()["plan"]["hotfix"] is True
    assert plan.json()["running"] == running


async def test_a_command_to_one_that_left_the_queue_meanwhile_goes_where_it_runs(site: Site, running: str) -> None:
    queued = (await site.deploy("2.0.0", onConflict="queue")).json()["deploymentId"]
    site.rollouts.finish(running)
    waiter = site.rollouts.running.pop(f"queued/Development/greeter/{queued}")
    first_read = site.container.rollouts.command

    async def then_it_runs(*call: object) -> object:
        """What the waiter does between the facade's look and its command."""
        site.rollouts.running["deployment/Development/greeter"] = waiter
        async with site.records.unit_of_work() as uow:
            await uow.deployments.hand_over(queued, "deployment/Development/greeter", f"run-{queued}")
            await uow.commit()
        return await first_read(*call)  # type: ignore[arg-type]

    site.container.rollouts.command = then_it_runs  # type: ignore[method-assign,assignment]
    answer = await site.admin.post(f"{API}/deployments/{queued}/abort", json={"reason": "x"})
    assert answer.status_code == 200, answer.text
    assert [name for name, _, _ in site.rollouts.sent] == ["abort"]


@pytest.mark.parametrize("status", ENDED_BADLY)
async def test_what_ended_badly_is_tried_again_with_the_same_request(site: Site, running: str, status: str) -> None:
    await site.project(running, status=DeploymentStatus(status))
    site.rollouts.finish(running)
    answer = await site.developer.post(
        f"{API}/deployments/{running}/retry", json={"reason": "the network was away"}, headers={"Idempotency-Key": "k"}
    )
    assert answer.status_code == 202, answer.text
    again = answer.json()["deploymentId"]
    assert answer.headers["Location"] == f"{API}/deployments/{again}"
    before, request = site.rollouts.started
    assert (request.deployment_id, request.retry_of) == (again, running)
    assert (request.version, request.config, request.environment) == (before.version, before.config, before.environment)
    assert (request.initiated_by, request.reason) == ("developer", "the network was away")
    shown = (await site.viewer.get(f"{API}/deployments/{again}")).json()
    assert shown["retryOf"] == running
    repeat = await site.developer.post(
        f"{API}/deployments/{running}/retry", json={"reason": "the network was away"}, headers={"Idempotency-Key": "k"}
    )
    assert (repeat.status_code, repeat.json()) == (202, answer.json())
    assert len(site.rollouts.started) == 2
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": again})).json()["items"]
    assert log[-1]["details"]["retryOf"] == running


@pytest.mark.parametrize("status", sorted(set(DeploymentStatus) - set(ENDED_BADLY)))
async def test_nothing_else_is_tried_again(site: Site, running: str, status: DeploymentStatus) -> None:
    await site.project(running, status=status)
    message = error_of(await site.admin.post(f"{API}/deployments/{running}/retry"), 409, "CONFLICT")["message"]
    assert f"{running} is {status}" in message
    assert len(site.rollouts.started) == 1
    assert ("ended" in message) == (status not in TERMINAL)


async def test_a_retry_asks_for_the_approval_again(site: Site, running: str) -> None:
    staged = (await site.deploy("2.0.0", environment="Staging", strategy="Direct")).json()["deploymentId"]
    await site.project(staged, status=DeploymentStatus.REJECTED)
    site.rollouts.finish(staged)
    again = (await site.admin.post(f"{API}/deployments/{staged}/retry")).json()["deploymentId"]
    assert (await site.viewer.get(f"{API}/deployments/{again}")).json()["approvalsRequired"] == 1


def test_the_routes_are_documented(site: Site) -> None:
    document = site.app.openapi()
    assert {"onConflict", "hotfix"} <= document["components"]["schemas"]["DeploymentIn"]["properties"].keys()
    assert "202" in document["paths"][f"{API}/deployments/{{deploymentId}}/retry"]["post"]["responses"]
