"""Backup and restore on real servers: what was taken comes back whole, sealed secrets stay sealed, and nothing is overwritten."""

import asyncio
import gzip
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from hotswap.backup.__main__ import main
from hotswap.backup.create import create
from hotswap.backup.manifest import read_manifest
from hotswap.backup.restore import restore
from hotswap.cli.main import app
from hotswap.config import load_settings
from hotswap.doctor.report import CheckState
from hotswap.domain.errors import Conflict, InvalidInput
from hotswap.domain.ids import artifact_key
from hotswap.embedded import seaweedfs
from hotswap.keys.ring import DataKeyRing
from migrations import runner
from tests.contract.factories import make_audit
from tests.integration.installation import PLAINTEXT, VERSIONS, Installation, key


def quiet(sentence: str) -> None:
    """Nobody listens."""


@pytest.fixture
async def source(
    environment: dict[str, str], new_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    url = new_database(migrated=True)
    variables = environment | {
        "HOTSWAP_POSTGRES__URL": url,
        "HOTSWAP_MINIO__BUCKET": f"backup-{secrets.token_hex(4)}",
        # Its own, or the rollouts of other tests would be running ones of which this record knows nothing.
        "HOTSWAP_TEMPORAL__TASK_QUEUE": f"backup-{secrets.token_hex(4)}",
        "HOTSWAP_AUTH__KEY_ENCRYPTION_KEY": key(),
        "HOTSWAP_KEYS__PROVIDER": "environment",
        "HOTSWAP_KEYS__WRAPPING_KEYS": f'["{key()}"]',
    }
    for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    await asyncio.to_thread(seaweedfs.create_bucket, variables)
    made = Installation(load_settings(), url, tmp_path)
    await made.fill("http://127.0.0.1:2")
    return made


@pytest.fixture
def target(source: Installation, new_database: Callable[..., str]) -> Installation:
    """Another machine's servers, empty, with the same keys."""
    url = new_database()
    made = Installation(source.settings, url, source.scratch, plugin=source.plugin)
    made.change("postgres", url=SecretStr(url))
    made.change("minio", bucket=f"restored-{secrets.token_hex(4)}")
    return made


async def backed_up(at: Installation, name: str = "backup", earlier: Path | None = None) -> Path:
    directory = at.scratch / name
    await create(at.settings, directory, earlier, quiet)
    return directory


async def test_what_was_backed_up_comes_back_whole_and_goes_on(source: Installation, target: Installation) -> None:
    backup = await backed_up(source)
    report = await restore(target.settings, backup, force=False, tell=quiet)
    assert report.findings == ()
    assert {check.name for check in report.checks if check.state is CheckState.DONE} >= {"schema", "artifacts", "audit"}

    again = read_manifest(await backed_up(target, "again"))
    before = read_manifest(backup)
    assert again.tables == before.tables, "every row of every table, to the byte"
    assert again.objects == before.objects
    assert len(again.objects) == len(VERSIONS)

    site = target.site()
    async with site.database.unit_of_work() as uow:
        await uow.audit.append(make_audit())  # the chain goes on behind what was restored, and ids do not come twice
        await uow.commit()
    async with site.database.unit_of_work() as uow:
        row = await uow.tenants.find("acme", source.plugin)
        assert await uow.audit.unsealed() == 0
    assert site.keys is not None
    assert row is not None
    ring = DataKeyRing(site.database.unit_of_work, site.keys)
    stored = {name: sealed.model_dump(by_alias=True, mode="json") for name, sealed in row.secrets.items()}
    await ring.prepare([stored])
    assert ring.decrypt("acme", source.plugin, stored) == {"apiKey": PLAINTEXT}
    await site.close()


async def test_sealed_secrets_stay_sealed_and_the_keys_are_not_in_it(
    source: Installation, target: Installation
) -> None:
    backup = await backed_up(source)
    texts = [
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in backup.rglob("*")
        if path.is_file()
    ]
    sealing = source.settings.auth.key_encryption_key
    assert sealing is not None
    wrapping = source.settings.keys.wrapping_keys[0]
    for secret in (PLAINTEXT, sealing.get_secret_value(), wrapping.get_secret_value()):
        assert not any(secret.encode() in text for text in texts)
    needed = read_manifest(backup).needed_keys
    assert len(needed.key_encryption) == 1
    assert needed.wrapping[0].startswith("local:")
    assert {path.stat().st_mode & 0o077 for path in (backup, *backup.rglob("*.copy.gz"))} == {0}

    target.change("keys", wrapping_keys=(SecretStr(key()),))
    target.change("auth", key_encryption_key=SecretStr(key()))
    report = await restore(target.settings, backup, force=False, tell=quiet)
    found = {finding.check for finding in report.findings}
    assert found == {"signing-keys", "key-provider"}, "the doctor names the keys that are missing"


async def test_what_changes_while_it_is_made_is_in_both_or_in_neither(
    source: Installation, target: Installation
) -> None:
    def meanwhile(sentence: str) -> None:
        """After the tables, before the artifacts: one version more, and retention takes another away."""
        if not sentence.startswith("copying 3 artifacts"):
            return
        source.sql(
            "INSERT INTO plugin_versions SELECT (r).* FROM (SELECT jsonb_populate_record(v, jsonb_build_object("
            " 'version_id', 'late', 'version', '9.9.9', 'checksum', repeat('e', 64),"
            " 'binary_path', 'artifacts/' || plugin_id || '/' || repeat('e', 64) || '.zip')) r"
            " FROM plugin_versions v WHERE version = '1.1.0') x"
        )
        source.sql("UPDATE plugin_versions SET artifact_removed_at = now() WHERE version = '1.2.0'")
        client, bucket = source.bucket()
        client.remove_object(bucket, artifact_key(source.plugin, source.ref("1.2.0").digest))

    directory = source.scratch / "moving"
    made = await create(source.settings, directory, None, meanwhile)
    assert made.gone == (artifact_key(source.plugin, source.ref("1.2.0").digest),)
    assert made.damaged == ()
    assert (await restore(target.settings, directory, force=False, tell=quiet)).findings == ()
    with psycopg.connect(target.url) as connection:
        rows = connection.execute(
            "SELECT version, artifact_removed_at IS NULL FROM plugin_versions ORDER BY 1"
        ).fetchall()
    assert rows == [("1.0.0", True), ("1.1.0", True), ("1.2.0", False)]


async def test_a_damaged_artifact_is_told_and_the_rest_is_backed_up(
    source: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    client, bucket = source.bucket()
    lost = artifact_key(source.plugin, source.ref("1.1.0").digest)
    client.remove_object(bucket, lost)
    directory = source.scratch / "with-a-hole"
    assert await asyncio.to_thread(main, ["create", str(directory)]) == 1
    assert lost in capsys.readouterr().err
    manifest = read_manifest(directory)
    assert (manifest.damaged, len(manifest.objects)) == ((lost,), 2)


async def test_a_target_that_holds_something_is_left_alone_unless_forced(source: Installation) -> None:
    backup = await backed_up(source)
    with pytest.raises(Conflict, match=r"not empty \(it has plugins.*--force, which DESTROYS"):
        await restore(source.settings, backup, force=False, tell=quiet)
    source.sql("DELETE FROM tenant_plugin_configs")
    site = source.site()
    async with site.database.unit_of_work() as uow:
        await uow.now()
        with pytest.raises(Conflict, match=r"sessions of HotSwap are connected.*stop api, workers and nodes"):
            await restore(source.settings, backup, force=True, tell=quiet)
    await site.close()
    assert (await restore(source.settings, backup, force=True, tell=quiet)).findings == ()
    assert read_manifest(await backed_up(source, "again")).tables == read_manifest(backup).tables


async def test_every_byte_is_looked_at_before_anything_is_touched(source: Installation, target: Installation) -> None:
    backup = await backed_up(source)
    manifest = read_manifest(backup)
    table = next(backup / one.path for one in manifest.tables if one.name == "plugins")
    artifact = backup / manifest.objects[0].path
    table.write_bytes(table.read_bytes()[:-1])
    artifact.unlink()
    with pytest.raises(InvalidInput) as refused:
        await restore(target.settings, backup, force=True, tell=quiet)
    assert str(table) in refused.value.message
    assert str(artifact) in refused.value.message
    assert await asyncio.to_thread(runner.current, target.url) is None, "the target was not touched"
    assert await asyncio.to_thread(main, ["verify", str(backup)]) == 1

    (backup / "manifest.json").unlink()
    with pytest.raises(InvalidInput, match="no whole backup"):
        await restore(target.settings, backup, force=False, tell=quiet)
    with pytest.raises(InvalidInput, match="not empty: name a new directory"):
        await create(source.settings, backup, None, quiet)


async def test_a_later_release_restores_an_older_backup_and_never_the_other_way_round(
    source: Installation, target: Installation
) -> None:
    """Also how a backup is made with the new release's tool before its migrations run."""
    older = "0008"
    await asyncio.to_thread(runner.downgrade, source.url, older)
    backup = await backed_up(source)
    assert read_manifest(backup).schema_revision == older
    assert (await restore(target.settings, backup, force=False, tell=quiet)).findings == ()
    assert await asyncio.to_thread(runner.current, target.url) == runner.head()

    document = json.loads((backup / "manifest.json").read_text())
    for change, said in (({"schemaRevision": "9999"}, "newer than this release's"), ({"format": 2}, "is of format 2")):
        (backup / "manifest.json").write_text(json.dumps(document | change))
        with pytest.raises(InvalidInput, match=said):
            await restore(target.settings, backup, force=True, tell=quiet)


async def test_the_next_backup_links_what_the_one_before_has(
    source: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    first = await backed_up(source)
    held = [first / one.path for one in read_manifest(first).objects]
    held[0].write_bytes(b"rotten")
    second = await backed_up(source, "second", first)
    manifest = read_manifest(second)
    capfd.readouterr()
    told = await asyncio.to_thread(CliRunner().invoke, app, ["backup", str(second), "--verify", "--json"])
    assert told.exit_code == 0, "what had rotted was fetched again"
    assert json.loads(capfd.readouterr().out) == json.loads((second / "manifest.json").read_text())
    linked = [(first / one.path).samefile(second / one.path) for one in manifest.objects]
    assert linked == [False, True, True]
