"""Starting, planning and reading deployments over in-memory twins."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace

from hotswap.domain.deployment import Strategy
from hotswap.domain.lifecycle import DeploymentStatus
from tests.http.site import API, Site, error_of, fields_of

DEPLOYMENTS = f"{API}/deployments"


async def nothing_was_started(site: Site) -> None:
    assert site.rollouts.started == []
    assert (await site.admin.get(DEPLOYMENTS)).json()["total"] == 0
    log = (await site.admin.get(f"{API}/audit-logs", params={"limit": 100})).json()["items"]
    assert not [item for item in log if item["entityType"] == "deployment"]


async def test_a_start_is_accepted_and_read_back_the_same(site: Site) -> None:
    await site.ship()
    made = await site.deploy(client=site.developer, reason="monday release")
    assert made.status_code == 202, made.text
    deployment = made.json()
    assert (
        deployment
        | {
            "plugin": "greeter",
            "environment": "Development",
            "strategy": "Direct",
            "toVersion": "1.0.0",
            "fromVersion": None,
            "status": "Pending",
            "initiatedBy": "developer",
            "reason": "monday release",
            "progressPercent": 0,
            "sequence": 0,
            "workflowId": "deployment/Development/greeter",
        }
        == deployment
    )
    base = f"{DEPLOYMENTS}/{deployment['deploymentId']}"
    assert deployment["links"]["self"] == base
    assert deployment["links"]["events"] == f"{base}/events"
    assert deployment["links"]["temporalUi"] == (
        "http://temporal.test/namespaces/default/workflows/deployment%2FDevelopment%2Fgreeter/"
        f"{deployment['runId']}/history"
    )
    assert made.headers["Location"] == base
    read = await site.viewer.get(base)
    assert read.json() == deployment
    assert read.headers["X-HotSwap-Source"] == "projection"
    (request,) = site.rollouts.started
    assert (request.deployment_id, request.initiated_by) == (deployment["deploymentId"], "developer")


async def test_the_environment_gives_the_strategy_unless_it_is_asked_for(site: Site) -> None:
    await site.ship()
    await site.approve()
    for environment, strategy in (("Development", "Direct"), ("Staging", "Rolling"), ("Production", "Canary")):
        made = await site.deploy(environment=environment)
        assert made.json()["strategy"] == strategy, made.text
    asked = await site.deploy(environment="QA", strategy="Direct")
    assert asked.json()["strategy"] == "Direct"


async def test_the_settings_may_give_another_default(site: Site) -> None:
    await site.ship()
    site.container.deployments._settings = site.container.settings.model_copy(
        update={"default_strategy": Strategy.CANARY}
    )
    assert (await site.deploy()).json()["strategy"] == "Canary"


async def test_the_configuration_reaches_the_workflow(site: Site) -> None:
    await site.ship()
    config = {"steps": [10, 100], "evaluationPeriod": "PT5S"}
    made = await site.deploy(strategy="Canary", config=config)
    assert made.status_code == 202, made.text
    (request,) = site.rollouts.started
    assert request.config.kind == "Canary"
    assert request.config.steps == (10, 100)
    assert request.config.evaluation_period == timedelta(seconds=5)
    assert (await site.row(made.json()["deploymentId"])).config["steps"] == [10, 100]


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ([0, 100], "config.steps"),
        ([50, 101], "config.steps"),
        ([50, 10, 100], "config.steps"),
        ([10, 10, 100], "config.steps"),
        ([10, 50], "config.steps"),
        ([], "config.steps"),
        (["10", 100], "config.steps.0"),
        ([10.5, 100], "config.steps.0"),
        ("all", "config.steps"),
    ],
)
async def test_wrong_steps_are_refused_by_field_and_start_nothing(site: Site, steps: Any, field: str) -> None:
    await site.ship()
    answer = await site.deploy(strategy="Canary", config={"steps": steps})
    assert field in fields_of(error_of(answer, 400, "VALIDATION_ERROR"))
    await nothing_was_started(site)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"pluginId": "greeter", "version": "1.0.0"}, "environment"),
        ({"pluginId": "greeter", "version": "one", "environment": "QA"}, "version"),
        ({"pluginId": "greeter", "version": "1.0.0", "environment": "Moon"}, "environment"),
        ({"pluginId": "greeter", "version": "1.0.0", "environment": "QA", "strategy": "Hope"}, "strategy"),
        (
            {
                "pluginId": "greeter",
                "version": "1.0.0",
                "environment": "QA",
                "strategy": "Rolling",
                "config": {"batchSize": 0},
            },
            "config.batchSize",
        ),
        ({"pluginId": "greeter", "version": "1.0.0", "environment": "QA", "config": {"colour": 1}}, "config.colour"),
        ({"pluginId": "greeter", "version": "1.0.0", "environment": "QA", "config": []}, "config"),
        ({"pluginId": "greeter", "version": "1.0.0", "environment": "QA", "urgent": True}, "urgent"),
    ],
)
async def test_a_wrong_request_is_refused_by_field_and_starts_nothing(
    site: Site, body: dict[str, Any], field: str
) -> None:
    await site.ship()
    for path in (DEPLOYMENTS, f"{DEPLOYMENTS}/plan"):
        assert field in fields_of(error_of(await site.admin.post(path, json=body), 400, "VALIDATION_ERROR"))
    await nothing_was_started(site)


async def test_unknown_plugins_and_versions_are_not_found(site: Site) -> None:
    assert "`hotswap plugin list`" in fields_of(error_of(await site.deploy(), 404, "NOT_FOUND"))["pluginId"]
    await site.ship()
    error = error_of(await site.deploy("9.9.9"), 404, "NOT_FOUND")
    assert "`hotswap plugin versions greeter`" in fields_of(error)["version"]
    error_of(await site.admin.get(f"{DEPLOYMENTS}/dep_{'0' * 32}"), 404, "NOT_FOUND")
    error_of(await site.admin.get(f"{DEPLOYMENTS}/dep_1"), 400, "VALIDATION_ERROR")
    await nothing_was_started(site)


async def test_what_is_served_already_is_refused(site: Site) -> None:
    await site.ship()
    await site.serve("greeter", "Development", "1.0.0", "dep_before")
    error_of(await site.deploy(), 409, "CONFLICT")
    await nothing_was_started(site)


async def test_a_developer_deploys_to_development_and_qa_only(site: Site) -> None:
    await site.ship()
    for environment in ("Staging", "Production"):
        for path in (DEPLOYMENTS, f"{DEPLOYMENTS}/plan"):
            body = {"pluginId": "greeter", "version": "1.0.0", "environment": environment}
            assert environment in error_of(await site.developer.post(path, json=body), 403, "FORBIDDEN")["message"]
    await nothing_was_started(site)
    for environment in ("Development", "QA"):
        assert (await site.deploy(environment=environment, client=site.developer)).status_code == 202


async def test_a_second_deployment_is_refused_naming_the_first(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    first = (await site.deploy()).json()["deploymentId"]
    error = error_of(await site.deploy("2.0.0"), 409, "CONFLICT")
    assert first in error["message"]
    assert (await site.admin.get(DEPLOYMENTS)).json()["total"] == 1
    assert (await site.deploy("2.0.0", environment="QA")).status_code == 202


async def test_of_twenty_at_once_one_starts(site: Site) -> None:
    await site.ship()
    answers = await asyncio.gather(*(site.deploy() for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 19
    assert (await site.admin.get(DEPLOYMENTS)).json()["total"] == 1


async def test_temporal_away_is_a_503_that_leaves_no_trace(site: Site) -> None:
    await site.ship()
    site.rollouts.away = True
    answer = await site.deploy()
    error_of(answer, 503, "SERVICE_UNAVAILABLE")
    assert "Retry-After" in answer.headers
    await nothing_was_started(site)


async def test_a_repeat_with_the_same_key_is_the_same_deployment_for_ever(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    keyed = {"Idempotency-Key": "release-7"}
    first = await site.deploy(headers=keyed)
    assert (await site.deploy(headers=keyed)).json() == first.json()
    error_of(await site.deploy("2.0.0", headers=keyed), 409, "CONFLICT")
    await site.complete(first.json()["deploymentId"])
    # Also when the kept answer is gone: the id is derived from the key, so nothing starts twice.
    site.records.committed.answers.clear()
    again = await site.deploy(headers=keyed)
    assert (again.json()["deploymentId"], again.json()["status"]) == (first.json()["deploymentId"], "Completed")
    assert len(site.rollouts.started) == 1


async def test_the_same_key_of_two_people_is_two_deployments(site: Site) -> None:
    await site.ship()
    keyed = {"Idempotency-Key": "k"}
    mine = await site.deploy(headers=keyed)
    other = await site.deploy(environment="QA", headers=keyed, client=site.developer)
    assert (mine.status_code, other.status_code) == (202, 202)
    assert mine.json()["deploymentId"] != other.json()["deploymentId"]


async def test_a_plan_shows_every_step_and_starts_nothing(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "Staging", "1.0.0", "dep_before")
    body = {
        "pluginId": "greeter",
        "version": "2.0.0",
        "environment": "Staging",
        "strategy": "Canary",
        "config": {"steps": [25, 100]},
    }
    answer = await site.admin.post(f"{DEPLOYMENTS}/plan", json=body)
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["fromVersion"], plan["toVersion"], plan["strategy"]) == ("1.0.0", "2.0.0", "Canary")
    assert plan["approvalsRequired"] == 1
    assert [step["number"] for step in plan["steps"]] == list(range(1, len(plan["steps"]) + 1))
    assert "shift 25 % of tenants" in [step["title"] for step in plan["steps"]]
    assert plan["steps"][0]["step"]["kind"] == "verify-artifact"
    assert plan["running"] is None
    await nothing_was_started(site)
    made = await site.deploy("2.0.0", environment="Staging", strategy="Canary", config={"steps": [25, 100]})
    assert made.json()["planHash"] == plan["planHash"]
    assert made.json()["stepCount"] == len(plan["steps"])
    again = (await site.admin.post(f"{DEPLOYMENTS}/plan", json=body)).json()
    assert again["running"] == made.json()["deploymentId"]


async def test_the_workflows_own_word_beats_an_older_projection(site: Site) -> None:
    await site.ship()
    deployment_id = (await site.deploy()).json()["deploymentId"]
    told = (await site.progress(deployment_id)).model_copy(
        update={"status": DeploymentStatus.IN_PROGRESS, "step_number": 2, "sequence": 9}
    )
    site.rollouts.tells = told
    fresh = await site.viewer.get(f"{DEPLOYMENTS}/{deployment_id}")
    assert (fresh.json()["status"], fresh.headers["X-HotSwap-Source"]) == ("InProgress", "workflow")
    assert fresh.json()["progressPercent"] == round(200 / fresh.json()["stepCount"])
    await site.project(deployment_id, sequence=10, status=DeploymentStatus.PAUSED)
    newer = await site.viewer.get(f"{DEPLOYMENTS}/{deployment_id}")
    assert (newer.json()["status"], newer.headers["X-HotSwap-Source"]) == ("Paused", "projection")


async def test_another_deployment_under_the_same_workflow_id_is_not_believed(site: Site) -> None:
    await site.ship()
    deployment_id = (await site.deploy()).json()["deploymentId"]
    site.rollouts.tells = (await site.progress(deployment_id)).model_copy(
        update={"deployment_id": "dep_other", "sequence": 99}
    )
    read = await site.viewer.get(f"{DEPLOYMENTS}/{deployment_id}")
    assert (read.json()["deploymentId"], read.headers["X-HotSwap-Source"]) == (deployment_id, "projection")


async def test_a_finished_deployment_is_read_without_asking_temporal(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.ship()
    deployment_id = (await site.deploy()).json()["deploymentId"]
    await site.complete(deployment_id)

    async def asked(handle: Any) -> None:
        pytest.fail("Temporal was asked")

    monkeypatch.setattr(site.rollouts, "status", asked)
    assert (await site.viewer.get(f"{DEPLOYMENTS}/{deployment_id}")).json()["status"] == "Completed"


async def test_deployments_are_listed_newest_first_and_filtered(site: Site) -> None:
    await site.ship()
    ids = {}
    for environment in ("Development", "QA", "Staging"):
        ids[environment] = (await site.deploy(environment=environment)).json()["deploymentId"]
    await site.complete(ids["QA"])
    page = (await site.viewer.get(DEPLOYMENTS, params={"limit": 2})).json()
    assert [item["deploymentId"] for item in page["items"]] == [ids["Staging"], ids["QA"]]
    assert (page["total"], page["hasMore"], page["nextOffset"]) == (3, True, 2)
    for query, found in (
        ({"environment": "QA"}, ["QA"]),
        ({"status": "Completed"}, ["QA"]),
        ({"status": "Pending", "pluginId": "greeter"}, ["Staging", "Development"]),
        ({"pluginId": "other"}, []),
    ):
        items = (await site.viewer.get(DEPLOYMENTS, params=query)).json()["items"]
        assert [item["environment"] for item in items] == found, query
    error = error_of(await site.viewer.get(DEPLOYMENTS, params={"status": "Done"}), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"status"}


async def test_rollback_history_tells_what_was_rolled_back_there(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.deploy(environment="QA")
    bad = (await site.deploy("2.0.0")).json()["deploymentId"]
    await site.project(bad, status=DeploymentStatus.ROLLED_BACK, outcome_reason="too many errors")
    site.rollouts.finish(bad)
    good = (await site.deploy("1.0.0")).json()["deploymentId"]
    history = (await site.viewer.get(f"{DEPLOYMENTS}/{good}/rollback-history")).json()
    assert history["total"] == 1
    (item,) = history["items"]
    assert (item["deploymentId"], item["version"], item["reason"]) == (bad, "2.0.0", "too many errors")
    error_of(await site.viewer.get(f"{DEPLOYMENTS}/dep_{'0' * 32}/rollback-history"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "config", ['{"a": "\\ud800"}', '{"\\ud800": 1}', '{"steps": [1e400]}', '{"steps": [' + "9" * 5000 + "]}"]
)
async def test_what_json_allows_and_no_row_can_hold_is_refused_as_input(site: Site, config: str) -> None:
    await site.ship()
    head = '{"pluginId": "greeter", "version": "1.0.0", "environment": "QA", "strategy": "Canary", "config": '
    headers = {"Content-Type": "application/json"}
    error_of(await site.admin.post(DEPLOYMENTS, content=head + config + "}", headers=headers), 400, "VALIDATION_ERROR")
    await nothing_was_started(site)


async def test_the_callers_trace_reaches_the_rollout(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.ship()
    start = site.rollouts.start
    seen: list[str] = []

    async def noting(request: Any) -> Any:
        seen.append(trace.format_trace_id(trace.get_current_span().get_span_context().trace_id))
        return await start(request)

    monkeypatch.setattr(site.rollouts, "start", noting)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    made = await site.deploy(headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    assert made.status_code == 202
    assert seen == [trace_id]


async def test_starts_are_audited_and_counted(site: Site) -> None:
    await site.ship()
    made = await site.deploy(client=site.developer, reason="because")
    log = (await site.admin.get(f"{API}/audit-logs", params={"user": "developer"})).json()["items"]
    assert [(item["eventType"], item["entityId"]) for item in log] == [
        ("deployment.requested", made.json()["deploymentId"])
    ]
    assert log[0]["details"]["reason"] == "because"
    assert log[0]["traceId"] == made.headers["X-Trace-Id"]
    figures = (await site.nobody.get("/metrics")).text
    assert 'deployments_started_total{environment="Development",strategy="Direct"} 1.0' in figures
