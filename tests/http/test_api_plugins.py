"""The registry's routes over in-memory twins."""

import asyncio

import pytest

from hotswap.domain.lifecycle import PluginStatus
from tests.http.site import API, Site, error_of, fields_of


async def test_a_plugin_is_registered_as_draft_and_read_back(site: Site) -> None:
    body = {"name": "phone-format", "displayName": "Phones", "type": "DataProcessor", "tags": ["text", "phone"]}
    made = await site.developer.post(f"{API}/plugins", json=body)
    assert made.status_code == 201
    assert made.headers["Location"] == f"{API}/plugins/phone-format"
    read = await site.viewer.get(made.headers["Location"])
    assert read.json() == made.json()
    assert read.json() | body == read.json()
    assert (read.json()["pluginId"], read.json()["status"]) == ("phone-format", "Draft")


async def test_the_display_name_is_the_name_when_left_out(site: Site) -> None:
    made = await site.admin.post(f"{API}/plugins", json={"name": "greeter"})
    assert made.json()["displayName"] == "greeter"


async def test_a_name_is_taken_once(site: Site) -> None:
    await site.register()
    error_of(await site.admin.post(f"{API}/plugins", json={"name": "greeter"}), 409, "CONFLICT")
    assert (await site.admin.get(f"{API}/plugins")).json()["total"] == 1


async def test_every_wrong_field_is_named_in_camel_case_and_nothing_is_kept(site: Site) -> None:
    body = {
        "name": "Not A Name",
        "displayName": "x" * 256,
        "type": "Toy",
        "documentationUrl": "javascript:1",
        "colour": 1,
    }
    error = error_of(await site.admin.post(f"{API}/plugins", json=body), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"name", "displayName", "type", "documentationUrl", "colour"}
    assert "remove it" in fields_of(error)["colour"]
    assert (await site.admin.get(f"{API}/plugins")).json()["total"] == 0
    assert (await site.admin.get(f"{API}/audit-logs")).json()["total"] == 0


async def test_text_that_postgresql_cannot_keep_is_refused_as_input(site: Site) -> None:
    error = error_of(
        await site.admin.post(f"{API}/plugins", json={"name": "greeter", "description": "a\x00b"}),
        400,
        "VALIDATION_ERROR",
    )
    assert fields_of(error).keys() == {"description"}


async def test_the_list_is_filtered_and_paged(site: Site) -> None:
    for name in ("alpha", "beta", "gamma"):
        body = {"name": name, "tags": ["all", name], "type": "Other" if name == "beta" else "AuthProvider"}
        await site.admin.post(f"{API}/plugins", json=body)
    first = (await site.viewer.get(f"{API}/plugins", params={"limit": 2})).json()
    assert [item["name"] for item in first["items"]] == ["alpha", "beta"]
    assert (first["total"], first["hasMore"], first["nextOffset"]) == (3, True, 2)
    second = (await site.viewer.get(f"{API}/plugins", params={"limit": 2, "offset": 2})).json()
    assert [item["name"] for item in second["items"]] == ["gamma"]
    assert (second["hasMore"], second["nextOffset"]) == (False, None)
    for query, names in (
        ({"tags": "all,beta"}, ["beta"]),
        ({"type": "AuthProvider"}, ["alpha", "gamma"]),
        ({"search": "GAM"}, ["gamma"]),
        ({"status": "Archived"}, []),
    ):
        found = (await site.viewer.get(f"{API}/plugins", params=query)).json()
        assert [item["name"] for item in found["items"]] == names, query


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("offset=-1", "offset"),
        ("status=Sleeping", "status"),
        ("type=Toy", "type"),
        ("page=2", "page"),
    ],
)
async def test_a_wrong_query_is_refused_by_field(site: Site, query: str, field: str) -> None:
    error = error_of(await site.viewer.get(f"{API}/plugins?{query}"), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {field}


async def test_an_unknown_plugin_is_not_found(site: Site) -> None:
    for method in ("GET", "DELETE"):
        error_of(await site.admin.request(method, f"{API}/plugins/ghost"), 404, "NOT_FOUND")
    error_of(await site.admin.put(f"{API}/plugins/ghost", json={}), 404, "NOT_FOUND")
    error = error_of(await site.admin.get(f"{API}/plugins/NOT_A_NAME"), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"pluginId"}


async def test_a_change_leaves_alone_what_it_does_not_name(site: Site) -> None:
    body = {"name": "greeter", "description": "says hello", "tags": ["a"]}
    before = (await site.admin.post(f"{API}/plugins", json=body)).json()
    changed = await site.admin.put(f"{API}/plugins/greeter", json={"displayName": "Greeter!", "tags": []})
    assert changed.status_code == 200
    after = (await site.admin.get(f"{API}/plugins/greeter")).json()
    assert after == changed.json()
    assert (after["displayName"], after["tags"], after["description"]) == ("Greeter!", [], "says hello")
    assert after["createdAt"] == before["createdAt"]
    error = error_of(await site.admin.put(f"{API}/plugins/greeter", json={"name": "other"}), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"name"}


async def test_a_plugin_is_deleted_unless_it_is_deployed(site: Site) -> None:
    await site.ship()
    deployed = (await site.deploy()).json()["deploymentId"]
    error_of(await site.admin.delete(f"{API}/plugins/greeter"), 409, "CONFLICT")
    assert (await site.admin.get(f"{API}/plugins/greeter")).status_code == 200
    assert deployed
    await site.register("other")
    gone = await site.admin.delete(f"{API}/plugins/other")
    assert (gone.status_code, gone.content) == (204, b"")
    error_of(await site.admin.get(f"{API}/plugins/other"), 404, "NOT_FOUND")


async def test_each_change_leaves_one_audit_entry_with_its_trace(site: Site) -> None:
    made = await site.developer.post(f"{API}/plugins", json={"name": "greeter"})
    await site.admin.put(f"{API}/plugins/greeter", json={"author": "me"})
    await site.admin.delete(f"{API}/plugins/greeter")
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": "greeter"})).json()["items"]
    assert [(item["eventType"], item["user"]) for item in log] == [
        ("plugin.deleted", "admin"),
        ("plugin.changed", "admin"),
        ("plugin.registered", "developer"),
    ]
    assert log[2]["traceId"] == made.headers["X-Trace-Id"]
    assert log[1]["details"] == {"changed": ["author"], "before": {"author": ""}, "after": {"author": "me"}}


async def test_a_repeat_with_the_same_key_gets_the_first_answer(site: Site) -> None:
    keyed = {"Idempotency-Key": "k-1"}
    first = await site.admin.post(f"{API}/plugins", json={"name": "greeter"}, headers=keyed)
    again = await site.admin.post(f"{API}/plugins", json={"name": "greeter"}, headers=keyed)
    assert (again.status_code, again.json()) == (201, first.json())
    error = error_of(await site.admin.post(f"{API}/plugins", json={"name": "other"}, headers=keyed), 409, "CONFLICT")
    assert "k-1" in error["message"]
    # The key is the user's own: another user's request is another request.
    error_of(await site.developer.post(f"{API}/plugins", json={"name": "greeter"}, headers=keyed), 409, "CONFLICT")
    assert (await site.admin.get(f"{API}/audit-logs")).json()["total"] == 1


async def test_twenty_at_once_register_one(site: Site) -> None:
    answers = await asyncio.gather(*(site.admin.post(f"{API}/plugins", json={"name": "greeter"}) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19


@pytest.mark.parametrize("key", ["", "x" * 201, "with space"])
async def test_a_wrong_key_is_refused(site: Site, key: str) -> None:
    answer = await site.admin.post(f"{API}/plugins", json={"name": "greeter"}, headers={"Idempotency-Key": key})
    assert fields_of(error_of(answer, 400, "VALIDATION_ERROR")).keys() == {"Idempotency-Key"}


async def test_a_database_that_is_away_is_a_503_with_an_advice(site: Site) -> None:
    site.records.away = True
    answer = await site.admin.post(f"{API}/plugins", json={"name": "greeter"})
    error_of(answer, 503, "SERVICE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) > 0
    site.records.away = False
    assert (await site.admin.get(f"{API}/plugins")).json()["total"] == 0


async def test_an_archived_plugin_takes_no_version_and_no_deployment(site: Site) -> None:
    await site.ship()
    async with site.records.unit_of_work() as uow:
        plugin = await uow.plugins.get("greeter")
        await uow.plugins.save(plugin.model_copy(update={"status": PluginStatus.ARCHIVED}))
        await uow.commit()
    assert "Archived" in error_of(await site.upload(version="2.0.0"), 409, "CONFLICT")["message"]
    assert "Archived" in error_of(await site.deploy(), 409, "CONFLICT")["message"]
    assert site.rollouts.started == []


async def test_what_has_not_changed_is_not_sent_again(site: Site) -> None:
    await site.ship("greeter")
    for path in (f"{API}/plugins/greeter", f"{API}/plugins/greeter/versions/1.0.0"):
        first = await site.viewer.get(path)
        etag = first.headers["ETag"]
        assert first.headers["Cache-Control"] == "private, no-cache"
        for given in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
            again = await site.viewer.get(path, headers={"If-None-Match": given})
            assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
            assert "X-RateLimit-Remaining" in again.headers
        assert (await site.viewer.get(path, headers={"If-None-Match": '"other"'})).json() == first.json()
    before = (await site.viewer.get(f"{API}/plugins/greeter")).headers["ETag"]
    await site.admin.put(f"{API}/plugins/greeter", json={"description": "says hello"})
    changed = await site.viewer.get(f"{API}/plugins/greeter", headers={"If-None-Match": before})
    assert (changed.status_code, changed.json()["description"]) == (200, "says hello")


async def test_a_deprecated_plugin_warns_its_tenants_and_is_deployed_on_purpose_only(site: Site) -> None:
    await site.ship()
    path = f"{API}/plugins/greeter"
    assert fields_of(error_of(await site.admin.post(f"{path}/deprecate"), 400, "VALIDATION_ERROR")).keys() == {"reason"}
    error_of(await site.admin.post(f"{path}/reinstate", json={"reason": "x"}), 409, "CONFLICT")
    done = await site.admin.post(f"{path}/deprecate", json={"reason": "use invoice-check"})
    assert (done.json()["status"], done.json()["deprecationReason"]) == ("Deprecated", "use invoice-check")
    assert (await site.viewer.get(path)).json() == done.json()
    error_of(await site.admin.post(f"{path}/deprecate", json={"reason": "again"}), 409, "CONFLICT")
    (warning,) = (await site.owner.get(f"{API}/tenants/acme/plugins/greeter")).json()["warnings"]
    assert warning == "greeter is Deprecated (use invoice-check): plan to move away from it"
    assert "use invoice-check" in error_of(await site.deploy(), 409, "CONFLICT")["message"]
    stages = {"pluginId": "greeter", "version": "1.0.0", "stages": [{"environment": "Development"}]}
    error_of(await site.admin.post(f"{API}/pipelines", json=stages), 409, "CONFLICT")
    assert (await site.deploy(allowDeprecated=True)).status_code == 202
    back = await site.admin.post(f"{path}/reinstate", json={"reason": "it is good after all"})
    assert (back.json()["status"], back.json()["deprecationReason"]) == ("Active", "")
