"""Approvals over HTTP: what waits, whose turn it is, decisions by the same commands as deployments' and pipelines' own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from hotswap.domain.deployment import ApprovalGiven, Role
from hotswap.domain.errors import Forbidden
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.pipeline import PipelineStatus
from tests.http.bundles import bundle, sha256
from tests.http.fake_promotions import FakePromotions
from tests.http.site import API, Site, error_of, fields_of

EXPIRES = datetime(2026, 2, 2, 12, tzinfo=UTC)


async def waiting(
    site: Site, environment: str = "Staging", client: httpx.AsyncClient | None = None, **more: Any
) -> str:
    """A deployment that awaits approval, as its workflow would project it."""
    if environment == "Production":
        await site.approve()
    made = await site.deploy("1.0.0", environment, client)
    assert made.status_code == 202, made.text
    deployment_id = str(made.json()["deploymentId"])
    given = {"approval_expires_at": EXPIRES, "approvals_required": 1} | more
    await site.project(deployment_id, status=DeploymentStatus.AWAITING_APPROVAL, **given)
    return deployment_id


async def gate(site: Site, **gate: Any) -> str:
    """A pipeline that stands at the gate before its second stage."""
    stages = [{"environment": "Development"}, {"environment": "QA", "gate": gate}]
    made = await site.admin.post(f"{API}/pipelines", json={"pluginId": "greeter", "version": "1.0.0", "stages": stages})
    assert made.status_code == 202, made.text
    pipeline_id = str(made.json()["pipelineId"])
    async with site.records.unit_of_work() as uow:
        now = (await uow.pipelines.get(pipeline_id)).progress
        entry = now.stages[1].model_copy(update={"gate_expires_at": EXPIRES + timedelta(hours=1)})
        stands = {"status": PipelineStatus.AWAITING_APPROVAL, "stage_number": 2, "stages": (now.stages[0], entry)}
        await uow.pipelines.project(now.model_copy(update={"sequence": 1, **stands}))
        await uow.commit()
    return pipeline_id


async def listed(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await client.get(f"{API}/approvals", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_what_waits_says_all_that_an_approver_needs(site: Site) -> None:
    await site.ship()
    deployment_id = await waiting(
        site,
        "Production",
        approvals_required=2,
        approval_needs_admin=True,
        approvals=(ApprovalGiven(approver="ada", roles=(Role.APPROVER,), comment="fine", at=EXPIRES),),
    )
    (item,) = (await listed(site.approver))["items"]
    assert (item["id"], item["kind"], item["link"]) == (
        deployment_id,
        "deployment",
        f"{API}/deployments/{deployment_id}",
    )
    assert (item["plugin"], item["version"], item["environment"]) == ("greeter", "1.0.0", "Production")
    assert item["digest"] == sha256(bundle("greeter", "1.0.0"))
    assert len(item["planHash"]) == 64
    assert (item["initiatedBy"], item["required"], item["needsAdmin"]) == ("admin", 2, True)
    assert item["roles"] == ["Admin", "Approver"]
    assert [given["approver"] for given in item["approvals"]] == ["ada"]
    assert item["missing"] == "1 more approval, by an Admin"
    assert item["expiresAt"] == "2026-02-02T12:00:00Z"
    assert (item["mine"], item["whyNot"]) == (True, "")
    assert (await site.approver.get(f"{API}/approvals/{deployment_id}")).json() == item


async def test_the_callers_own_come_first_and_of_those_what_expires_first(site: Site) -> None:
    await site.ship()
    own = await waiting(site, "Production", site.admin, approval_expires_at=EXPIRES - timedelta(days=1))
    late = await waiting(site, "QA", site.developer, approval_expires_at=EXPIRES)
    await site.ship("other")
    body = {"pluginId": "other", "version": "1.0.0", "environment": "QA"}
    early = str((await site.developer.post(f"{API}/deployments", json=body)).json()["deploymentId"])
    await site.project(
        early, status=DeploymentStatus.AWAITING_APPROVAL, approval_expires_at=EXPIRES - timedelta(hours=1)
    )
    page = await listed(site.admin)
    assert [item["id"] for item in page["items"]] == [early, late, own]
    assert [item["whyNot"] for item in page["items"]] == ["", "", "you initiated it"]
    assert [item["id"] for item in (await listed(site.admin, mine=True))["items"]] == [early, late]
    assert [item["id"] for item in (await listed(site.admin, environment="Production"))["items"]] == [own]
    assert [item["id"] for item in (await listed(site.admin, pluginId="other"))["items"]] == [early]
    second = await listed(site.admin, limit=1, offset=1)
    assert ([item["id"] for item in second["items"]], second["total"], second["nextOffset"]) == ([late], 3, 2)


async def test_a_pipelines_gate_is_one_of_them(site: Site) -> None:
    await site.ship()
    pipeline_id = await gate(site, role="TenantOwner", required=2)
    (item,) = (await listed(site.approver, kind="pipeline"))["items"]
    assert (item["id"], item["kind"], item["environment"]) == (f"{pipeline_id}.2", "pipeline", "QA")
    assert item["digest"] == sha256(bundle("greeter", "1.0.0"))
    assert (item["roles"], item["missing"]) == (["Admin", "TenantOwner"], "2 more approvals")
    assert (item["mine"], item["whyNot"]) == (False, "it takes one of: Admin, TenantOwner")
    assert (await listed(site.approver, kind="deployment"))["total"] == 0
    path = f"{API}/approvals/{pipeline_id}.2"
    promotions = site.container.promotions
    assert isinstance(promotions, FakePromotions)
    promotions.refusal = Forbidden("this gate takes one of: TenantOwner, Admin")
    error_of(await site.approver.post(f"{path}/approve"), 403, "FORBIDDEN")
    promotions.refusal = None
    done = await site.admin.post(f"{path}/approve", json={"reason": "ok"})
    assert (done.status_code, done.json()["id"]) == (200, f"{pipeline_id}.2")
    assert [(name, command.by) for name, command, _ in promotions.sent] == [("approve", "admin")]
    error = error_of(await site.admin.post(f"{API}/approvals/{pipeline_id}.1/approve"), 409, "CONFLICT")
    assert "at stage 2 by now" in error["message"]
    error_of(await site.admin.get(f"{API}/approvals/{pipeline_id}.1"), 404, "NOT_FOUND")


async def test_a_decision_is_the_deployments_own_command_once_for_each_key(site: Site) -> None:
    await site.ship()
    deployment_id = await waiting(site)
    plan_hash = "ab" * 32
    answers = [
        await site.approver.post(
            f"{API}/approvals/{deployment_id}/approve",
            json={"planHash": plan_hash, "reason": "read it"},
            headers={"Idempotency-Key": "k"},
        )
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    ((name, command, update_id),) = site.rollouts.sent
    assert (name, command.by, command.reason, update_id) == ("approve", "approver", "read it", "approve:approver:k")
    assert getattr(command, "plan_hash", None) == plan_hash
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": deployment_id})).json()["items"]
    assert [item["eventType"] for item in log] == ["deployment.approve.requested", "deployment.requested"]


async def test_a_rejection_needs_a_reason(site: Site) -> None:
    await site.ship()
    path = f"{API}/approvals/{await waiting(site)}/reject"
    assert fields_of(error_of(await site.approver.post(path), 400, "VALIDATION_ERROR")).keys() == {"reason"}
    assert (await site.approver.post(path, json={"reason": "not on a Friday"})).status_code == 200
    assert [name for name, _, _ in site.rollouts.sent] == ["reject"]


async def test_what_does_not_wait_is_not_found(site: Site) -> None:
    await site.ship()
    deployment_id = await waiting(site)
    await site.project(deployment_id, status=DeploymentStatus.IN_PROGRESS)
    error = error_of(await site.admin.get(f"{API}/approvals/{deployment_id}"), 404, "NOT_FOUND")
    assert "it is InProgress" in error["message"]
    assert (await listed(site.admin))["total"] == 0
    error_of(await site.admin.post(f"{API}/approvals/dep_{'0' * 32}/approve"), 404, "NOT_FOUND")


@pytest.mark.parametrize("wrong", ["dep_1", f"pip_{'0' * 32}", f"pip_{'0' * 32}.5", "..%2fplugins"])
async def test_an_id_of_another_shape_is_refused(site: Site, wrong: str) -> None:
    assert (await site.admin.post(f"{API}/approvals/{wrong}/approve")).status_code in (400, 404)
    assert site.rollouts.sent == []
