"""Pipelines over HTTP: start, read, command; roles, refusals, repeats."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from hotswap.domain.errors import Conflict, Forbidden, Unavailable
from hotswap.domain.pipeline import PipelineProgress, PipelineStatus
from tests.http.fake_promotions import FakePromotions
from tests.http.site import API, Site, error_of, fields_of

DEV_QA: list[dict[str, Any]] = [{"environment": "Development", "soak": "PT1H"}, {"environment": "QA"}]


def promotions(site: Site) -> FakePromotions:
    found = site.container.promotions
    assert isinstance(found, FakePromotions)
    return found


async def start(
    site: Site, client: httpx.AsyncClient | None = None, key: str | None = None, **changes: Any
) -> httpx.Response:
    body = {"pluginId": "greeter", "version": "1.0.0", "stages": DEV_QA, **changes}
    headers = {"Idempotency-Key": key} if key else {}
    return await (client or site.admin).post(f"{API}/pipelines", json=body, headers=headers)


@pytest.fixture
async def running(site: Site) -> str:
    await site.ship("greeter", "1.0.0")
    made = await start(site)
    assert made.status_code == 202, made.text
    return str(made.json()["pipelineId"])


async def project(site: Site, pipeline_id: str, **changes: Any) -> PipelineProgress:
    async with site.records.unit_of_work() as uow:
        before = (await uow.pipelines.get(pipeline_id)).progress
        after = before.model_copy(update={"sequence": before.sequence + 1, **changes})
        await uow.pipelines.project(after)
        await uow.commit()
    return after


async def test_a_pipeline_is_started_with_every_stage_resolved(site: Site) -> None:
    await site.ship("greeter", "1.0.0")
    await site.approve()
    gate = {"role": "TenantOwner", "required": 2}
    stages = [
        {"environment": "Development", "soak": "PT1H"},
        {"environment": "QA", "strategy": "Canary", "config": {"steps": [50, 100]}},
        {"environment": "Production", "gate": gate},
    ]
    made = await start(site, stages=stages, reason="release 12", freezeOverrideReason="agreed")
    assert made.status_code == 202, made.text
    body = made.json()
    assert made.headers["Location"] == body["links"]["self"] == f"{API}/pipelines/{body['pipelineId']}"
    assert body["status"] == "Pending"
    assert [stage["strategy"] for stage in body["stages"]] == ["Direct", "Canary", "Canary"]
    assert body["workflowId"] == f"pipeline/greeter/{body['pipelineId']}"
    assert body["links"]["temporalUi"].startswith(
        "http://temporal.test/namespaces/default/workflows/pipeline%2Fgreeter"
    )
    request = promotions(site).started[body["pipelineId"]]
    assert request.stages[0].soak == timedelta(hours=1)
    assert request.stages[1].config.model_dump()["steps"] == (50, 100)
    assert request.stages[2].gate is not None
    assert request.stages[2].gate.required == 2
    assert (request.initiated_by, request.reason, request.freeze_override_reason) == ("admin", "release 12", "agreed")
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": body["pipelineId"]})).json()["items"]
    assert [item["eventType"] for item in log] == ["pipeline.requested"]
    assert log[0]["details"]["environments"] == ["Development", "QA", "Production"]


async def test_a_pipeline_is_listed_and_read_back_freshest_first(site: Site, running: str) -> None:
    listed = (await site.viewer.get(f"{API}/pipelines", params={"pluginId": "greeter"})).json()
    assert [item["pipelineId"] for item in listed["items"]] == [running]
    assert (await site.viewer.get(f"{API}/pipelines", params={"status": "Failed"})).json()["total"] == 0
    row = await project(site, running, status=PipelineStatus.IN_PROGRESS, waiting_for="from the record")
    assert (await site.viewer.get(f"{API}/pipelines/{running}")).json()["waitingFor"] == "from the record"
    fresh = {"sequence": row.sequence + 1, "waiting_for": "QA: 1 approval, not by admin"}
    promotions(site).tells = row.model_copy(update=fresh)
    found = (await site.viewer.get(f"{API}/pipelines/{running}")).json()
    assert found["waitingFor"] == "QA: 1 approval, not by admin"
    await project(site, running, status=PipelineStatus.COMPLETED)
    assert (await site.viewer.get(f"{API}/pipelines/{running}")).json()["status"] == "Completed"


async def test_a_repeat_under_the_same_key_starts_one(site: Site) -> None:
    await site.ship("greeter", "1.0.0")
    first, again = await start(site, key="k"), await start(site, key="k")
    assert first.json() == again.json()
    assert len(promotions(site).started) == 1
    error_of(await start(site, key="k", reason="another"), 409, "CONFLICT")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stages": []}, "stages"),
        ({"stages": [{"environment": "QA"}, {"environment": "Development"}]}, "stages"),
        ({"stages": [{"environment": "QA"}, {"environment": "QA"}]}, "stages"),
        ({"stages": [{"environment": "QA", "gate": {}}]}, "stages.0.gate"),
        ({"stages": [{"environment": "Moon"}]}, "stages.0.environment"),
        ({"stages": [{"environment": "QA", "soak": 60}]}, "stages.0.soak"),
        ({"stages": [{"environment": "QA", "soak": "P31D"}]}, "stages.0.soak"),
        ({"stages": [{"environment": "QA", "strategy": "Canary", "config": {"steps": [0]}}]}, "stages.0.config.steps"),
        (
            {"stages": [{"environment": "QA"}, {"environment": "Staging", "gate": {"required": 0}}]},
            "stages.1.gate.required",
        ),
        ({"onConflict": "shrug"}, "onConflict"),
        ({"speed": "fast"}, "speed"),
    ],
)
async def test_a_wrong_pipeline_is_refused_by_field_and_starts_nothing(
    site: Site, changes: dict[str, Any], field: str
) -> None:
    await site.ship("greeter", "1.0.0")
    answer = await start(site, **changes)
    assert field in fields_of(error_of(answer, 400, "VALIDATION_ERROR"))
    assert promotions(site).started == {}
    assert (await site.viewer.get(f"{API}/pipelines")).json()["total"] == 0


async def test_unknown_things_are_not_found_and_temporal_away_is_503(site: Site) -> None:
    await site.ship("greeter", "1.0.0")
    error_of(await start(site, version="9.0.0"), 404, "NOT_FOUND")
    error_of(await start(site, pluginId="nobody"), 404, "NOT_FOUND")
    error_of(await site.viewer.get(f"{API}/pipelines/pip_{'0' * 32}"), 404, "NOT_FOUND")
    promotions(site).away = True
    error_of(await start(site), 503, "SERVICE_UNAVAILABLE")
    assert (await site.viewer.get(f"{API}/pipelines")).json()["total"] == 0


async def test_a_developer_promotes_through_development_and_qa_only(site: Site) -> None:
    await site.ship("greeter", "1.0.0")
    assert (await start(site, site.developer)).status_code == 202
    stages = [*DEV_QA, {"environment": "Staging"}]
    error_of(await start(site, site.developer, stages=stages), 403, "FORBIDDEN")
    error_of(await start(site, site.developer, freezeOverrideReason="x"), 403, "FORBIDDEN")
    through = (await start(site, stages=stages)).json()["pipelineId"]
    error_of(await site.developer.post(f"{API}/pipelines/{through}/pause"), 403, "FORBIDDEN")


@pytest.mark.parametrize("name", ["approve", "reject", "pause", "resume", "abort", "retry"])
async def test_a_command_reaches_the_workflow_with_who_and_why(site: Site, running: str, name: str) -> None:
    path = f"{API}/pipelines/{running}/{name}"
    answer = await site.admin.post(path, json={"reason": "because"}, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"pipelineId": running, "status": "InProgress", "message": f"{name}: done"}
    again = await site.admin.post(path, json={"reason": "because"}, headers={"Idempotency-Key": "k"})
    assert again.json() == answer.json()
    ((sent, command, update_id),) = promotions(site).sent
    assert (sent, command.by, command.reason, update_id) == (name, "admin", "because", f"{name}:admin:k")
    bare = await site.admin.post(path)
    if name in ("reject", "abort"):
        assert fields_of(error_of(bare, 400, "VALIDATION_ERROR")).keys() == {"reason"}
    else:
        assert bare.status_code == 200
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": running})).json()["items"]
    assert f"pipeline.{name}.requested" in [item["eventType"] for item in log]


async def test_gates_are_open_to_their_role_and_judged_by_the_workflow(site: Site, running: str) -> None:
    assert (await site.owner.post(f"{API}/pipelines/{running}/approve")).status_code == 200
    assert promotions(site).sent[-1][1].roles == ("TenantOwner",)
    error_of(await site.viewer.post(f"{API}/pipelines/{running}/approve"), 403, "FORBIDDEN")
    error_of(await site.approver.post(f"{API}/pipelines/{running}/retry"), 403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (Conflict("only a paused pipeline can be resumed"), 409, "CONFLICT"),
        (Forbidden("this gate takes one of: Approver"), 403, "FORBIDDEN"),
        (Unavailable("'resume' was sent, but no worker answered"), 503, "SERVICE_UNAVAILABLE"),
    ],
)
async def test_a_refusal_keeps_the_workflows_words(
    site: Site, running: str, refusal: Any, status: int, code: str
) -> None:
    promotions(site).refusal = refusal
    error = error_of(await site.admin.post(f"{API}/pipelines/{running}/resume"), status, code)
    assert error["message"] == refusal.message


async def test_one_that_is_over_says_how_it_ended(site: Site, running: str) -> None:
    await project(site, running, status=PipelineStatus.ABORTED, outcome_reason="aborted by ada: wrong version")
    promotions(site).over = True
    message = error_of(await site.admin.post(f"{API}/pipelines/{running}/pause"), 409, "CONFLICT")["message"]
    assert "is Aborted: aborted by ada: wrong version" in message
