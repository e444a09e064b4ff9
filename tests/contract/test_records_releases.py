"""One contract, PostgreSQL and its twin: versions that move, what serves with what it needs, keys, pending uploads."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from hotswap.dependencies.models import Release
from hotswap.domain.errors import Conflict, InvalidInput, NotFound
from hotswap.domain.lifecycle import VersionStatus
from hotswap.domain.manifest import Dependency
from hotswap.domain.quota import QuotaOverride
from hotswap.domain.registry import Page, PluginVersion
from hotswap.domain.routes import RouteState
from hotswap.domain.signatures import PublisherKey, Signature
from hotswap.domain.uploads import PendingUpload
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import EPOCH, make_digest, make_manifest, make_plugin, make_route, make_version

S = VersionStatus
SIGNATURE = Signature(key_id="a" * 64, value="b" * 86 + "==")


async def add(unit_of_work: UnitOfWorkFactory, plugin: str, *versions: str, **needs: tuple[Dependency, ...]) -> None:
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(plugin))
        for version in versions:
            manifest = make_manifest(plugin, version, dependencies=needs.get(f"v{version[0]}", ()))
            await uow.versions.add(make_version(plugin, version, manifest=manifest))
        await uow.commit()


async def serve(unit_of_work: UnitOfWorkFactory, environment: str, plugin: str, state: RouteState) -> None:
    async with unit_of_work() as uow:
        current = await uow.routes.current(environment, plugin)
        await uow.routes.write(environment, plugin, current.generation if current else 0, state, "dep")
        await uow.commit()


async def test_a_version_moves_once_and_only_what_may_change_changes(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, "billing")
    pending = make_version(
        "billing", status=S.PENDING_APPROVAL, is_breaking_change=True, breaking_changes=("method run is gone",)
    )
    async with unit_of_work() as uow:
        await uow.versions.add(pending)
        await uow.commit()
    moved: dict[str, Any] = {
        "status": S.APPROVED,
        "approved_by": "admin",
        "approved_at": EPOCH,
        "deprecated_at": EPOCH,
        "deprecation_reason": "old",
        "archived_at": EPOCH,
        "artifact_removed_at": EPOCH,
        "signature": SIGNATURE,
    }
    async with unit_of_work() as uow:
        await uow.versions.move(pending.model_copy(update={**moved, "release_notes": "forged"}), S.PENDING_APPROVAL)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.versions.get("billing", "1.0.0") == pending.model_copy(update=moved)
        assert await uow.versions.signed_by(SIGNATURE.key_id, 9) == [pending.model_copy(update=moved)]
        assert await uow.versions.signed_by(SIGNATURE.key_id, 0) == []
        assert await uow.versions.signed_by("b" * 64, 9) == []
        with pytest.raises(Conflict, match=r"billing 1\.0\.0 is Approved by now"):
            await uow.versions.move(pending, S.PENDING_APPROVAL)
        with pytest.raises(NotFound):
            await uow.versions.move(make_version("billing", "9.0.0"), S.APPROVED)
        with pytest.raises(InvalidInput):
            await uow.versions.move(pending.model_copy(update={"deprecation_reason": "a\0b"}), S.APPROVED)


async def test_of_two_that_move_a_version_at_once_one_is_first(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, "billing", "1.0.0")

    async def deprecate(reason: str) -> str:
        async with unit_of_work() as uow:
            found = await uow.versions.get("billing", "1.0.0")
            change = {"status": S.DEPRECATED, "deprecation_reason": reason}
            try:
                await uow.versions.move(found.model_copy(update=change), S.APPROVED)
                await uow.commit()
            except Conflict:
                return ""
            return reason

    told = await asyncio.gather(*(deprecate(f"reason {number}") for number in range(5)))
    async with unit_of_work() as uow:
        assert [reason for reason in told if reason] == [
            (await uow.versions.get("billing", "1.0.0")).deprecation_reason
        ]


async def test_the_release_before_is_found_by_semver(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, "many", "0.9.0", "1.9.0", "1.10.0", "2.0.0-rc.2", "2.0.0-rc.10", "0.1.0-alpha")
    async with unit_of_work() as uow:
        for version, before in (
            ("2.0.0", "1.10.0"),  # a release is compared with a release
            ("2.0.0-rc.11", "1.10.0"),
            ("1.10.0", "1.9.0"),
            ("1.9.5", "1.9.0"),
            ("0.5.0", "0.1.0-alpha"),  # a pre-release only where there is nothing else
        ):
            found = await uow.versions.before("many", version)
            assert found is not None
            assert found.version == before
        assert await uow.versions.before("many", "0.0.1") is None
        assert await uow.versions.before("ghost", "1.0.0") is None


async def test_archived_versions_come_longest_archived_first_until_their_artifact_is_gone(
    unit_of_work: UnitOfWorkFactory,
) -> None:
    await add(unit_of_work, "old", "1.0.0", "2.0.0", "3.0.0", "4.0.0")
    for days, version in ((3, "1.0.0"), (5, "2.0.0"), (4, "3.0.0")):
        async with unit_of_work() as uow:
            found = await uow.versions.get("old", version)
            change = {"status": S.ARCHIVED, "archived_at": EPOCH - timedelta(days=days)}
            await uow.versions.move(found.model_copy(update=change), S.APPROVED)
            await uow.commit()

    async def names(limit: int = 10) -> list[str]:
        async with unit_of_work() as uow:
            return [row.version for row in await uow.versions.archived(limit)]

    assert await names() == ["2.0.0", "3.0.0", "1.0.0"]
    assert await names(2) == ["2.0.0", "3.0.0"]
    async with unit_of_work() as uow:
        found = await uow.versions.get("old", "2.0.0")
        await uow.versions.move(found.model_copy(update={"artifact_removed_at": EPOCH}), S.ARCHIVED)
        await uow.commit()
    assert await names() == ["3.0.0", "1.0.0"]


async def test_what_serves_is_told_with_what_it_needs(unit_of_work: UnitOfWorkFactory) -> None:
    tax = Dependency(name="tax", version_constraint="^3", optional=True, conflicts=("3.1.x",))
    await add(unit_of_work, "billing", "1.0.0", "2.0.0", v2=(tax,))
    await add(unit_of_work, "idle", "1.0.0")
    one = Release(plugin="billing", version="1.0.0")
    two = Release(plugin="billing", version="2.0.0", dependencies=(tax,))

    async def serving(environment: str = "QA") -> dict[str, list[Release]]:
        async with unit_of_work() as uow:
            return await uow.dependencies.serving(environment)

    assert await serving() == {}
    await serve(unit_of_work, "QA", "billing", make_route("billing", "1.0.0"))
    assert await serving() == {"billing": [one]}
    # A candidate counts from its first tenant on, by weight or by switched nodes.
    await serve(unit_of_work, "QA", "billing", make_route("billing", "1.0.0", "2.0.0", weight=0))
    assert await serving() == {"billing": [one]}
    await serve(unit_of_work, "QA", "billing", make_route("billing", "1.0.0", "2.0.0", weight=100))
    assert await serving() == {"billing": [one, two]}
    switched = make_route("billing", "1.0.0", "2.0.0", weight=0).model_copy(update={"switched_nodes": ("node-1",)})
    await serve(unit_of_work, "QA", "billing", switched)
    assert await serving() == {"billing": [one, two]}
    await serve(unit_of_work, "QA", "billing", make_route("billing", "2.0.0"))
    assert await serving() == {"billing": [two]}
    await serve(unit_of_work, "QA", "billing", RouteState())
    assert await serving() == {}
    assert await serving("Production") == {}


async def test_releases_are_told_newest_first_with_their_status(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, "billing", "1.9.0", "1.10.0", "1.10.0-rc.1")
    await add(unit_of_work, "tax", "1.0.0")
    async with unit_of_work() as uow:
        found = await uow.dependencies.releases(["tax", "billing", "ghost"])
        assert [one.release.name for one in found] == [
            "billing 1.10.0", "billing 1.10.0-rc.1", "billing 1.9.0", "tax 1.0.0"
        ]  # fmt: skip
        assert {one.status for one in found} == {S.APPROVED}
        assert await uow.dependencies.releases([]) == []


async def test_tenants_on_record_stay_when_their_pin_goes(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, "billing", "1.0.0")
    async with unit_of_work() as uow:
        await uow.pins.pin("globex", "billing", "1.0.0", "admin")
        await uow.pins.pin("acme", "billing", "1.0.0", "admin")
        await uow.pins.pin("acme", "billing", None, "admin")
        await uow.pins.pin("initech", "billing", None, "admin")
        await uow.quotas.set("hooli", "billing", QuotaOverride(concurrent=5), "admin")
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.pins.tenants("billing") == ["acme", "globex", "hooli"]
        assert await uow.pins.tenants("ghost") == []


def make_key(number: int = 1, **changes: Any) -> PublisherKey:
    given = {"publisher": "acme", "public_key": "A" * 43 + "=", "registered_by": "admin"} | changes
    return PublisherKey(key_id=make_digest(f"key-{number}"), registered_at=EPOCH + timedelta(seconds=number), **given)


async def test_a_publisher_key_is_kept_and_revoked_for_good(unit_of_work: UnitOfWorkFactory) -> None:
    first, second = make_key(1, plugins=("billing", "tax")), make_key(2)
    async with unit_of_work() as uow:
        await uow.publisher_keys.add(first)
        await uow.publisher_keys.add(second)
        with pytest.raises(Conflict, match="registered already"):
            await uow.publisher_keys.add(first)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.publisher_keys.get(first.key_id) == first
        assert await uow.publisher_keys.list(Page()) == ([second, first], 2)
        assert await uow.publisher_keys.list(Page(limit=1, offset=1)) == ([first], 2)
        revoked = await uow.publisher_keys.revoke(first.key_id, "admin", "it leaked", EPOCH)
        assert (revoked.revoked_by, revoked.revoked_at, revoked.revoke_reason) == ("admin", EPOCH, "it leaked")
        assert await uow.publisher_keys.revoke(first.key_id, "other", "again", EPOCH + timedelta(days=1)) == revoked
        for missing in (uow.publisher_keys.get("f" * 64), uow.publisher_keys.revoke("f" * 64, "a", "", EPOCH)):
            with pytest.raises(NotFound, match="publisher key"):
                await missing
        await uow.commit()
    async with unit_of_work() as uow:
        with pytest.raises(Conflict, match="does not come back"):
            await uow.publisher_keys.add(first)


async def test_pending_uploads_end_and_are_swept_in_order(unit_of_work: UnitOfWorkFactory) -> None:
    def make(number: int) -> PendingUpload:
        return PendingUpload(
            upload_id=f"upl_{number:032x}",
            plugin="gone",
            version="1.0.0",
            digest="a" * 64,
            size_bytes=5,
            created_by="developer",
            created_at=EPOCH,
            expires_at=EPOCH + timedelta(hours=number),
        )

    uploads = [make(number) for number in (3, 1, 2)]
    async with unit_of_work() as uow:
        for upload in uploads:
            await uow.uploads.open(upload)
        with pytest.raises(Conflict):
            await uow.uploads.open(uploads[0])
        await uow.uploads.complete(uploads[0].upload_id, EPOCH)
        await uow.uploads.complete(uploads[0].upload_id, EPOCH + timedelta(days=1))
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.uploads.get(uploads[0].upload_id) == uploads[0].model_copy(update={"completed_at": EPOCH})
        for missing in (uow.uploads.get("upl_x"), uow.uploads.complete("upl_x", EPOCH)):
            with pytest.raises(NotFound, match="upload"):
                await missing
        assert await uow.uploads.over(EPOCH + timedelta(hours=2), 9) == [make(1)]
        assert await uow.uploads.over(EPOCH + timedelta(hours=9), 2) == [make(1), make(2)]
        await uow.uploads.remove(make(1).upload_id)
        await uow.uploads.remove("upl_x")
        assert await uow.uploads.over(EPOCH + timedelta(hours=2, seconds=1), 9) == [make(2)]


async def test_deleting_a_plugin_takes_its_tenants_and_versions(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, "billing", "1.0.0")
    async with unit_of_work() as uow:
        await uow.pins.pin("acme", "billing", "1.0.0", "admin")
        await uow.plugins.delete("billing")
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.pins.tenants("billing") == []
        assert await uow.dependencies.releases(["billing"]) == []


def test_a_version_row_without_the_new_columns_reads_as_before() -> None:
    old = {"plugin": "billing", "version": "1.0.0", "manifest": make_manifest("billing"), "digest": "a" * 64}
    version = PluginVersion(**old, size_bytes=1, created_by="a", created_at=EPOCH)
    assert (version.signature, version.is_breaking_change, version.status) == (None, False, S.APPROVED)
