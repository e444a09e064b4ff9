"""What people do to versions over HTTP: approve, deprecate, archive, sign, who uses them, retention."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from hotswap.domain.signatures import Signature
from hotswap.runtime import signing
from tests.http.bundles import bundle, sha256
from tests.http.site import API, Site, error_of, fields_of

VERSIONS = f"{API}/plugins/greeter/versions"


async def move(site: Site, name: str, version: str = "1.0.0", user: str = "admin", **body: Any) -> httpx.Response:
    return await site.clients[user].post(f"{VERSIONS}/{version}/{name}", json=body or None)


async def uploaded(site: Site, version: str = "1.0.0", user: str = "developer", **fields: Any) -> httpx.Response:
    """By a developer, so that the admin may approve it."""
    needs = fields.pop("dependencies", None)
    content = bundle("greeter", version, **({"dependencies": needs} if needs else {}))
    return await site.clients[user].post(
        VERSIONS, data={"version": version, **fields}, files={"binary": ("plugin.zip", content, "application/zip")}
    )


async def audit(site: Site, entity: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await site.admin.get(f"{API}/audit-logs", params={"entity": entity})).json()["items"]
    return found


async def test_a_version_is_approved_by_somebody_else_and_then_goes_to_production(site: Site) -> None:
    await site.register()
    assert (await uploaded(site)).json()["status"] == "PendingApproval"
    refused = error_of(await site.deploy(environment="Production"), 409, "CONFLICT")["message"]
    assert "is PendingApproval and may not be deployed to Production: an Admin who did not upload it" in refused
    assert (await site.deploy(environment="Staging")).status_code == 202
    approved = (await move(site, "approve")).json()
    assert (approved["status"], approved["approvedBy"]) == ("Approved", "admin")
    assert (await site.viewer.get(f"{VERSIONS}/1.0.0")).json() == approved
    assert (await site.deploy(environment="Production")).status_code == 202
    again = error_of(await move(site, "approve"), 409, "CONFLICT")["message"]
    assert again == "'approve' makes no sense while the version is Approved; possible now: deprecate"
    assert (await audit(site, "greeter"))[0]["eventType"] == "version.approved"


async def test_nobody_approves_his_own_upload(site: Site) -> None:
    await site.register()
    await uploaded(site, user="admin")
    error = error_of(await move(site, "approve"), 403, "FORBIDDEN")
    assert "admin uploaded greeter 1.0.0 and cannot approve it" in error["message"]
    assert (await site.viewer.get(f"{VERSIONS}/1.0.0")).json()["status"] == "PendingApproval"


async def test_a_draft_is_for_development_until_it_is_submitted(site: Site) -> None:
    await site.register()
    assert (await uploaded(site, draft="true")).json()["status"] == "Draft"
    assert "submit it first" in error_of(await site.deploy(environment="QA"), 409, "CONFLICT")["message"]
    assert (await site.deploy(environment="Development")).status_code == 202
    error_of(await move(site, "approve"), 409, "CONFLICT")
    assert (await move(site, "submit", user="developer")).json()["status"] == "PendingApproval"
    wrong = await uploaded(site, "1.1.0", draft="perhaps")
    assert fields_of(error_of(wrong, 400, "VALIDATION_ERROR"))["draft"] == "must be true or false"


@pytest.mark.parametrize("name", ["deprecate", "archive", "reinstate"])
async def test_what_others_must_understand_takes_a_reason(site: Site, name: str) -> None:
    await site.ship()
    for body in ({}, {"reason": "  "}):
        error = error_of(await move(site, name, **body), 400, "VALIDATION_ERROR")
        assert fields_of(error) == {"reason": "is required; say why"}


async def pin(site: Site, *tenants: str, version: str = "1.0.0") -> None:
    async with site.records.unit_of_work() as uow:
        for tenant in tenants:
            await uow.pins.pin(tenant, "greeter", version, "admin")
        await uow.commit()


async def test_deprecating_tells_each_tenant_on_record_and_takes_nothing_away(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "Staging", "2.0.0", "dep_1")
    await pin(site, "acme", "globex")
    await pin(site, "initech", version="2.0.0")
    done = (await move(site, "deprecate", reason="use 2.x")).json()
    assert (done["status"], done["deprecationReason"]) == ("Deprecated", "use 2.x")
    assert (await audit(site, "greeter"))[0]["details"]["tenants"] == 2
    for tenant in ("acme", "globex"):
        (told,) = await audit(site, tenant)
        assert (told["eventType"], told["details"]["version"]) == ("tenant.version-deprecated", "1.0.0")
        assert told["details"]["reason"] == "use 2.x"
    assert await audit(site, "initech") == []
    assert "allowDeprecated" in error_of(await site.deploy(environment="QA"), 409, "CONFLICT")["message"]
    meant = await site.deploy(environment="QA", allowDeprecated=True)
    assert meant.status_code == 202, meant.text
    assert (await audit(site, meant.json()["deploymentId"]))[0]["details"]["allowDeprecated"] is True
    back = (await move(site, "reinstate", reason="2.x is worse")).json()
    assert (back["status"], back["deprecatedAt"], back["approvedBy"]) == ("PendingApproval", None, None)


async def test_adoption_shows_who_gets_a_version(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "QA", "1.0.0", "dep_1")
    await site.serve("greeter", "Staging", "2.0.0", "dep_2")
    await pin(site, "acme")
    await pin(site, "globex", version="2.0.0")
    found = (await site.viewer.get(f"{VERSIONS}/1.0.0/adoption")).json()
    assert [(place["environment"], place["role"], place["knownTenants"]) for place in found["environments"]] == [
        ("QA", "Stable", 1),
        ("Staging", "Pinned", 1),
    ]
    assert (found["tenants"], found["tenantCount"], found["tenantsOnRecord"]) == (["acme"], 1, 2)
    error_of(await site.owner.get(f"{VERSIONS}/1.0.0/adoption"), 403, "FORBIDDEN")
    error_of(await site.viewer.get(f"{VERSIONS}/9.9.9/adoption"), 404, "NOT_FOUND")


async def test_an_archived_version_is_gone_from_the_store_but_not_from_the_record(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "QA", "1.0.0", "dep_1")
    needed = error_of(await move(site, "archive", reason="old"), 409, "CONFLICT")["message"]
    assert "is still needed and cannot be archived: QA has it loaded (route generation 1)" in needed
    await site.serve("greeter", "QA", "2.0.0", "dep_2")
    assert (await move(site, "archive", reason="old")).json()["status"] == "Archived"
    error_of(await site.deploy(), 409, "CONFLICT")
    kept = (await site.admin.get(f"{API}/retention")).json()
    assert (kept["dryRun"], kept["removed"]) == (True, [])
    assert kept["kept"][0]["reasons"][0].startswith("archived until")
    site.container.settings = site.container.settings.model_copy(
        update={"retention": site.container.settings.retention.model_validate({"archived_for": "PT0S"})}
    )
    assert [one["version"] for one in (await site.admin.get(f"{API}/retention")).json()["removed"]] == ["1.0.0"]
    assert site.artifact() in site.artifacts.objects
    assert [one["version"] for one in (await site.admin.post(f"{API}/retention/sweep")).json()["removed"]] == ["1.0.0"]
    assert list(site.artifacts.objects) == [site.artifact(version="2.0.0")]
    assert (await site.viewer.get(f"{VERSIONS}/1.0.0")).json()["artifactRemovedAt"] is not None
    assert "removed at" in error_of(await site.viewer.get(f"{VERSIONS}/1.0.0/download"), 404, "NOT_FOUND")["message"]


async def test_of_ten_who_deprecate_at_once_one_does(site: Site) -> None:

    await site.ship()
    answers = await asyncio.gather(*(move(site, "deprecate", reason=f"reason {number}") for number in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9


async def test_breaking_changes_are_found_at_upload(site: Site) -> None:
    await site.register()
    text = {"name": "greet", "parameters": {"type": "object", "properties": {"name": {"type": "string"}}}}
    strict = {**text, "parameters": {**text["parameters"], "required": ["name"]}}  # type: ignore[dict-item]
    for version, method, broken in (("1.0.0", text, False), ("1.1.0", strict, True), ("1.2.0", strict, False)):
        content = bundle("greeter", version, methods=[method])
        made = await site.developer.post(VERSIONS, data={"version": version}, files={"binary": ("a.zip", content)})
        assert made.json()["isBreakingChange"] is broken, made.text
    assert (await site.viewer.get(f"{VERSIONS}/1.1.0")).json()["breakingChanges"] == [
        "method greet: parameters.name: is required now"
    ]


async def test_wrong_dependencies_are_refused_at_upload_by_their_keys(site: Site) -> None:
    await site.register()
    needs = [{"name": "greeter", "versionConstraint": "^1"}, {"name": "tax", "versionConstraint": "latest"}]
    error = error_of(await uploaded(site, dependencies=needs), 400, "VALIDATION_ERROR")
    assert sorted(fields_of(error)) == ["manifest.dependencies.0.name", "manifest.dependencies.1.versionConstraint"]
    assert site.artifacts.objects == {}


class Key:
    def __init__(self, site: Site, name: str) -> None:
        site.work_dir.mkdir(parents=True, exist_ok=True)
        path = site.work_dir.parent / f"{name}.pem"
        self.public = signing.generate(path)
        self.private = signing.read_private(path)
        self.id = signing.key_id_of(self.public)

    def sign(self, digest: str) -> Signature:
        return signing.sign(self.private, digest)


async def register_key(site: Site, key: Key, **more: Any) -> httpx.Response:
    return await site.admin.post(f"{API}/publisher-keys", json={"publisher": "acme", "publicKey": key.public, **more})


async def test_a_signed_upload_is_verified_and_its_key_can_be_revoked(site: Site) -> None:
    await site.register()
    key, digest = Key(site, "one"), sha256(bundle("greeter"))
    fields = {"signature": key.sign(digest).value, "keyId": key.id}
    unknown = fields_of(error_of(await uploaded(site, **fields), 400, "VALIDATION_ERROR"))
    assert "is not registered" in unknown["keyId"]
    made = await register_key(site, key, plugins=["greeter"])
    assert (made.status_code, made.json()["keyId"], made.json()["trusted"]) == (201, key.id, True)
    error_of(await register_key(site, key), 409, "CONFLICT")
    other = await uploaded(site, **{**fields, "signature": key.sign("0" * 64).value})
    assert "does not fit its bytes" in error_of(other, 400, "VALIDATION_ERROR")["message"]
    for wrong in ({"signature": fields["signature"]}, {"keyId": key.id}, {**fields, "signature": "x"}):
        error_of(await uploaded(site, **wrong), 400, "VALIDATION_ERROR")
    assert site.artifacts.objects == {}
    signed = (await uploaded(site, **fields)).json()
    assert signed["signature"] == {"keyId": key.id, "value": fields["signature"]}
    revoke = f"{API}/publisher-keys/{key.id}/revoke"
    error_of(await site.admin.post(revoke), 400, "VALIDATION_ERROR")
    assert (await site.admin.post(revoke, json={"reason": "leaked"})).json()["revokedBy"] == "admin"
    error_of(await site.admin.post(f"{API}/publisher-keys/{'0' * 64}/revoke", json={"reason": "x"}), 404, "NOT_FOUND")
    digest = sha256(bundle("greeter", "1.1.0"))
    late = await uploaded(site, "1.1.0", signature=key.sign(digest).value, keyId=key.id)
    assert "was revoked by admin (leaked)" in error_of(late, 400, "VALIDATION_ERROR")["message"]
    listed = (await site.viewer.get(f"{API}/publisher-keys")).json()["items"]
    assert [(one["keyId"], one["revokeReason"]) for one in listed] == [(key.id, "leaked")]


async def test_where_signatures_are_required_only_signed_versions_go(site: Site) -> None:
    required = site.container.settings.signatures.model_validate({"required_in": ["Production"]})
    site.container.settings = site.container.settings.model_copy(update={"signatures": required})
    site.container.__post_init__()
    await site.ship()
    await site.approve()
    key = Key(site, "one")
    assert (await register_key(site, key)).status_code == 201
    assert (await site.deploy(environment="Staging")).status_code == 202
    refused = error_of(await site.deploy(environment="Production"), 400, "VALIDATION_ERROR")["message"]
    assert "greeter 1.0.0 carries no signature, and Production takes signed versions only" in refused
    digest = sha256(bundle("greeter"))
    sign = f"{VERSIONS}/1.0.0/sign"
    wrong = {"keyId": key.id, "signature": key.sign("1" * 64).value}
    error_of(await site.developer.post(sign, json=wrong), 400, "VALIDATION_ERROR")
    body = {"keyId": key.id, "signature": key.sign(digest).value}
    assert (await site.developer.post(sign, json=body)).json()["signature"]["keyId"] == key.id
    deployed = await site.deploy(environment="Production")
    assert deployed.status_code == 202, deployed.text
    await site.serve("greeter", "Production", "1.0.0", "dep_1")
    revoke = f"{API}/publisher-keys/{key.id}/revoke"
    kept = error_of(await site.admin.post(revoke, json={"reason": "leaked"}), 409, "CONFLICT")["message"]
    assert "greeter 1.0.0 in Production" in kept
    forced = await site.admin.post(revoke, json={"reason": "leaked", "force": True})
    assert forced.status_code == 200
    assert (await audit(site, key.id))[0]["details"]["serving"] == ["greeter 1.0.0 in Production"]


async def test_a_key_is_what_it_says_and_names_plugins_that_are_there(site: Site) -> None:
    key = Key(site, "one")
    for wrong in ("short", "A" * 44, "=" * 44):
        answer = await site.admin.post(f"{API}/publisher-keys", json={"publisher": "acme", "publicKey": wrong})
        assert "publicKey" in fields_of(error_of(answer, 400, "VALIDATION_ERROR"))
    error_of(await register_key(site, key, plugins=["ghost"]), 404, "NOT_FOUND")
    assert json.loads((await site.admin.get(f"{API}/publisher-keys")).text)["total"] == 0
