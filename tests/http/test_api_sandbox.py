"""Sandbox sessions over HTTP: create, execute, results, end; limits, refusals, repeats."""

import asyncio
from typing import Any

import httpx
import pytest

from hotswap.domain.errors import Conflict, Unavailable
from hotswap.domain.sandbox import ExecutionStatus
from tests.http.bundles import bundle
from tests.http.fake_sandboxes import FakeSandboxes, echo
from tests.http.site import API, Site, error_of, fields_of

NOWHERE = f"sbx_{'0' * 32}"


def fake(site: Site) -> FakeSandboxes:
    found = site.container.sandboxes
    assert isinstance(found, FakeSandboxes)
    return found


async def create(site: Site, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    body = {"pluginId": "greeter", "version": "1.0.0", **more}
    return await site.developer.post(f"{API}/sandbox/create", json=body, headers=headers)


async def execute(site: Site, sandbox_id: str, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    body = {"method": "greet", **more}
    return await site.developer.post(f"{API}/sandbox/{sandbox_id}/execute", json=body, headers=headers)


async def results(site: Site, sandbox_id: str, **query: Any) -> dict[str, Any]:
    answer = await site.developer.get(f"{API}/sandbox/{sandbox_id}/results", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
async def sandbox(site: Site) -> str:
    await site.ship()
    made = await create(site)
    assert made.status_code == 201, made.text
    return str(made.json()["sandboxId"])


async def test_a_sandbox_is_made_with_the_platforms_limits(site: Site) -> None:
    await site.ship()
    made = await create(site)
    body = made.json()
    assert made.status_code == 201
    assert made.headers["Location"] == body["links"]["self"] == f"{API}/sandbox/{body['sandboxId']}"
    assert (body["status"], body["tier"], body["environment"]) == ("Active", "standard", "Development")
    assert body["executionTimeout"] == "PT5M"
    assert body["executionsLeft"] == 200
    assert body["links"]["temporalUi"].startswith("http://temporal.test/namespaces/default/workflows/sandbox%2Fsbx_")
    found = (await site.developer.get(body["links"]["self"])).json()
    assert found == body
    listed = (await site.developer.get(f"{API}/sandbox", params={"status": "Active", "pluginId": "greeter"})).json()
    assert [one["sandboxId"] for one in listed["items"]] == [body["sandboxId"]]
    assert fake(site).started == [body["sandboxId"]]
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": body["sandboxId"]})).json()["items"]
    assert [item["eventType"] for item in log] == ["sandbox.created"]


async def test_what_was_asked_for_replaces_the_manifests_limits(site: Site) -> None:
    await site.ship()
    asked: dict[str, Any] = {
        "ttl": "PT10M",
        "executionTimeout": "PT2S",
        "environment": "QA",
        "resources": {"memoryMb": 128},
    }
    body = (await create(site, **asked)).json()
    assert (body["environment"], body["executionTimeout"], body["resources"]["memoryMb"]) == ("QA", "PT2S", 128)
    assert body["resources"]["cpuSeconds"] == 60
    spent = await execute(site, body["sandboxId"], timeout="PT3S")
    assert fields_of(error_of(spent, 400, "VALIDATION_ERROR")) == {"timeout": "must lie between PT0.001S and PT2S"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ttl": "PT2H"}, "ttl"),
        ({"ttl": "PT0S"}, "ttl"),
        ({"ttl": "-PT1M"}, "ttl"),
        ({"ttl": 60}, "ttl"),
        ({"ttl": "an hour"}, "ttl"),
        ({"executionTimeout": "PT6M"}, "executionTimeout"),
        ({"executionTimeout": "P1000000000D"}, "executionTimeout"),
        ({"environment": "Moon"}, "environment"),
        ({"version": "one"}, "version"),
        ({"pluginId": "../etc"}, "pluginId"),
        ({"resources": {"memoryMb": 1}}, "resources.memoryMb"),
        ({"resources": {"memoryMb": 8000}}, "resources.memoryMb"),
        ({"resources": {"gpus": 8}}, "resources.gpus"),
        ({"resources": {"scratchMb": 8}}, "resources.scratchMb"),
        ({"resources": []}, "resources"),
        ({"speed": "fast"}, "speed"),
    ],
)
async def test_a_wrong_sandbox_is_refused_by_field_and_takes_no_place(
    site: Site, body: dict[str, Any], field: str
) -> None:
    await site.ship()
    assert field in fields_of(error_of(await create(site, **body), 400, "VALIDATION_ERROR"))
    assert (await site.developer.get(f"{API}/sandbox")).json()["total"] == 0
    assert fake(site).started == []


async def test_unknown_things_are_not_found(site: Site, sandbox: str) -> None:
    error_of(await create(site, version="9.0.0"), 404, "NOT_FOUND")
    error_of(await create(site, pluginId="nobody"), 404, "NOT_FOUND")
    for path in ("", "/results"):
        error_of(await site.developer.get(f"{API}/sandbox/{NOWHERE}{path}"), 404, "NOT_FOUND")
    error_of(await execute(site, NOWHERE), 404, "NOT_FOUND")
    error_of(await site.developer.delete(f"{API}/sandbox/{NOWHERE}"), 404, "NOT_FOUND")
    error_of(await site.developer.get(f"{API}/sandbox/everything"), 400, "VALIDATION_ERROR")
    missing = {"executionId": f"exe_{'0' * 32}"}
    error_of(await site.developer.get(f"{API}/sandbox/{sandbox}/results", params=missing), 404, "NOT_FOUND")


async def test_an_environment_has_fifty_places_however_many_ask_at_once(site: Site) -> None:
    await site.ship()
    answers = await asyncio.gather(*(create(site) for _ in range(100)))
    assert sorted(answer.status_code for answer in answers) == [201] * 50 + [409] * 50
    refused = next(answer for answer in answers if answer.status_code == 409)
    listed = (await site.developer.get(f"{API}/sandbox", params={"limit": 100})).json()
    message = error_of(refused, 409, "CONFLICT")["message"]
    assert listed["items"][-1]["sandboxId"] in message
    assert "DELETE /api/v1/sandbox/ID" in message
    assert (await create(site, environment="QA")).status_code == 201
    assert (await site.developer.delete(f"{API}/sandbox/{listed['items'][7]['sandboxId']}")).status_code == 204
    assert (await create(site)).status_code == 201


async def test_a_sandbox_that_cannot_be_started_takes_no_place_and_may_be_asked_for_again(site: Site) -> None:
    await site.ship()
    fake(site).away = Unavailable("Temporal at nowhere does not answer")
    error_of(await create(site, key="k"), 503, "SERVICE_UNAVAILABLE")
    assert (await site.developer.get(f"{API}/sandbox")).json()["total"] == 0
    fake(site).away = None
    first, again = await create(site, key="k"), await create(site, key="k")
    assert first.status_code == 201
    assert first.json() == again.json()
    assert len(fake(site).started) == 1
    error_of(await create(site, key="k", ttl="PT1M"), 409, "CONFLICT")


async def test_an_execution_is_taken_and_its_result_can_be_read(site: Site, sandbox: str) -> None:
    taken = await execute(site, sandbox, parameters={"name": "Ada", "deep": [1, {"x": None}]}, tenant="acme")
    body = taken.json()
    assert (taken.status_code, body["status"], body["output"]) == (202, "Queued", None)
    (sent,) = fake(site).sent
    assert (sent[0], sent[1].by, sent[2]) == ("execute", "developer", body["executionId"])
    page = await results(site, sandbox)
    assert page["total"] == 1
    (found,) = page["items"]
    assert (found["status"], found["output"]) == ("Succeeded", {"name": "Ada", "deep": [1, {"x": None}]})
    assert (found["tenant"], found["tier"], found["timeout"], found["attempts"]) == ("acme", "standard", "PT5M", 1)
    one = (await site.developer.get(taken.headers["Location"])).json()
    assert one["items"] == [found]
    counted = (await site.developer.get(f"{API}/sandbox/{sandbox}")).json()
    assert (counted["executions"], counted["executionsLeft"]) == ({"Succeeded": 1}, 199)
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": sandbox})).json()["items"]
    assert log[0]["eventType"] == "sandbox.execution.requested"
    assert "Ada" not in str(log), "parameters are on no record once it has run"


async def test_who_waits_gets_the_result_itself(site: Site, sandbox: str) -> None:
    done = await execute(site, sandbox, wait="PT20S", parameters={"name": "Ada"})
    assert (done.status_code, done.json()["status"], done.json()["output"]) == (200, "Succeeded", {"name": "Ada"})
    fake(site).run = None
    late = await execute(site, sandbox, wait="PT0.1S")
    assert (late.status_code, late.json()["status"]) == (202, "Queued")
    too_long = await execute(site, sandbox, wait="PT31S")
    assert fields_of(error_of(too_long, 400, "VALIDATION_ERROR")).keys() == {"wait"}


async def test_a_repeat_runs_nothing_twice_and_shows_how_it_stands(site: Site, sandbox: str) -> None:
    first = await execute(site, sandbox, key="k", parameters={"n": 1})
    again = await execute(site, sandbox, key="k", parameters={"n": 1}, wait="PT20S")
    assert first.json()["executionId"] == again.json()["executionId"]
    assert (again.status_code, again.json()["output"]) == (200, {"n": 1})
    assert (await results(site, sandbox))["total"] == len(fake(site).sent) == 1
    error_of(await execute(site, sandbox, key="k", parameters={"n": 2}), 409, "CONFLICT")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"method": "walk"}, "method"),
        ({"method": ""}, "method"),
        ({"method": "x" * 65}, "method"),
        ({"parameters": [1]}, "parameters"),
        ({"parameters": {"a": "x" * 262_144}}, "parameters"),
        ({"configuration": {"a": "x" * 262_144}}, "configuration"),
        ({"configuration": []}, "configuration"),
        ({"tenant": "a b"}, "tenant"),
        ({"timeout": "PT6M"}, "timeout"),
        ({"timeout": "PT0S"}, "timeout"),
        ({"wait": 3}, "wait"),
        ({"env": {}}, "env"),
    ],
)
async def test_a_wrong_execution_is_refused_by_field_and_not_kept(
    site: Site, sandbox: str, body: dict[str, Any], field: str
) -> None:
    error = error_of(await execute(site, sandbox, **body), 400, "VALIDATION_ERROR")
    assert field in fields_of(error)
    assert (await results(site, sandbox))["total"] == 0
    if body.get("method") == "walk":
        assert "it has greet" in error["message"]


async def test_hostile_bodies_are_refused(site: Site, sandbox: str) -> None:
    path = f"{API}/sandbox/{sandbox}/execute"
    json_type = {"Content-Type": "application/json"}
    deep = b'{"method": "greet", "parameters": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    huge = b'{"method": "greet", "parameters": {"a": "' + b"x" * 2**20 + b'"}}'
    for body, status, code in (
        (b'{"method": "greet", "parameters": {"a": NaN}}', 400, "VALIDATION_ERROR"),
        (b'{"method": "greet", "method": "greet"}', 400, "VALIDATION_ERROR"),
        (deep, 400, "VALIDATION_ERROR"),
        (huge, 413, "PAYLOAD_TOO_LARGE"),
        (b"{", 400, "VALIDATION_ERROR"),
    ):
        error_of(await site.developer.post(path, content=body, headers=json_type), status, code)
    fake(site).run = None
    odd = b'{"method": "greet", "parameters": {"a": "\\u0000 \\ud800"}}'
    assert (await site.developer.post(path, content=odd, headers=json_type)).status_code == 202
    assert (await results(site, sandbox))["total"] == 1


async def test_what_the_session_refuses_is_off_the_record_again(site: Site, sandbox: str) -> None:
    fake(site).refusal = Conflict("20 executions wait already; try again when one has finished")
    error = error_of(await execute(site, sandbox, key="k"), 409, "CONFLICT")
    assert "try again" in error["message"]
    assert (await results(site, sandbox))["total"] == 0
    fake(site).refusal = None
    assert (await execute(site, sandbox, key="k")).status_code == 202


async def test_when_no_worker_answers_a_repeat_finds_the_same_execution(site: Site, sandbox: str) -> None:
    fake(site).refusal = Unavailable("no worker answered")
    error_of(await execute(site, sandbox, key="k"), 503, "SERVICE_UNAVAILABLE")
    fake(site).refusal = None
    assert (await execute(site, sandbox, key="k", wait="PT20S")).json()["status"] == "Succeeded"
    assert (await results(site, sandbox))["total"] == 1


async def test_failures_show_their_limit_and_why(site: Site, sandbox: str) -> None:
    changes = {
        "status": ExecutionStatus.FAILED,
        "limit": "MEMORY_LIMIT",
        "exit_reason": "the host ran out of memory",
        "logs": "begun\n",
        "peak_memory_bytes": 1234,
        "duration_ms": 7.5,
    }
    fake(site).run = lambda execution, request: execution.model_copy(update=changes)
    body = (await execute(site, sandbox, wait="PT20S")).json()
    assert {key: body[key] for key in ("status", "limit", "exitReason", "logs", "peakMemoryBytes", "durationMs")} == {
        "status": "Failed",
        "limit": "MEMORY_LIMIT",
        "exitReason": "the host ran out of memory",
        "logs": "begun\n",
        "peakMemoryBytes": 1234,
        "durationMs": 7.5,
    }


async def test_results_are_paged_newest_first_and_large_ones_are_whole_by_id_alone(site: Site, sandbox: str) -> None:
    ids = [(await execute(site, sandbox, parameters={"n": n})).json()["executionId"] for n in range(3)]
    page = await results(site, sandbox, limit=2)
    assert [item["executionId"] for item in page["items"]] == ids[:0:-1]
    assert (page["total"], page["hasMore"], page["nextOffset"]) == (3, True, 2)
    large = (await execute(site, sandbox, parameters={"a": "x" * 20_000})).json()["executionId"]
    listed = (await results(site, sandbox))["items"][0]
    assert (listed["executionId"], listed["output"], listed["outputOmitted"]) == (large, None, True)
    whole = (await results(site, sandbox, executionId=large))["items"][0]
    assert (len(whole["output"]["a"]), whole["outputOmitted"]) == (20_000, False)


@pytest.mark.parametrize("way", ["delete", "cleanup"])
async def test_an_end_is_obeyed_once_and_a_repeat_is_fine(site: Site, sandbox: str, way: str) -> None:
    async def end() -> httpx.Response:
        if way == "delete":
            return await site.developer.delete(f"{API}/sandbox/{sandbox}")
        return await site.developer.post(f"{API}/sandbox/{sandbox}/cleanup", json={"reason": "done"})

    for _ in range(2):
        answer = await end()
        assert (answer.status_code, answer.content) == (204, b"")
    ((name, command, _),) = fake(site).sent
    assert (name, command.by, command.reason) == ("end", "developer", "" if way == "delete" else "done")
    found = (await site.developer.get(f"{API}/sandbox/{sandbox}")).json()
    assert (found["status"], found["endReason"]) == ("Deleted", "deleted by developer")
    message = error_of(await execute(site, sandbox), 409, "CONFLICT")["message"]
    assert "is Deleted: deleted by developer. Make another" in message
    assert (await results(site, sandbox))["total"] == 0


async def test_a_session_whose_workflow_was_ended_by_hand_can_still_be_deleted(site: Site, sandbox: str) -> None:
    fake(site).gone = True
    message = error_of(await execute(site, sandbox), 409, "CONFLICT")["message"]
    assert "ended in Temporal by hand: delete the sandbox" in message
    assert (await site.developer.delete(f"{API}/sandbox/{sandbox}")).status_code == 204
    found = (await site.developer.get(f"{API}/sandbox/{sandbox}")).json()
    assert (found["status"], found["endReason"]) == ("Deleted", "deleted by developer; its workflow was gone")
    assert fake(site).run is echo


async def test_a_configuration_must_fit_as_a_tenants_must(site: Site) -> None:
    schema = {"type": "object", "properties": {"region": {"enum": ["eu", "us"]}}, "required": ["region"]}
    await site.register()
    answer = await site.admin.post(
        f"{API}/plugins/greeter/versions",
        data={"version": "1.0.0"},
        files={"binary": ("plugin.zip", bundle("greeter", configurationSchema=schema), "application/zip")},
    )
    assert answer.status_code == 201, answer.text
    made = await site.developer.post(f"{API}/sandbox/create", json={"pluginId": "greeter", "version": "1.0.0"})
    path = f"{API}/sandbox/{made.json()['sandboxId']}/execute"
    wrong = {"method": "greet", "configuration": {"region": "mars"}}
    error = error_of(await site.developer.post(path, json=wrong), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"configuration.region"}
    for right in ({"method": "greet", "configuration": {"region": "eu"}}, {"method": "greet"}):
        assert (await site.developer.post(path, json=right)).status_code == 202
