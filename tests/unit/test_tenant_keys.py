"""Tenants' secrets under their data keys: what opens them, what does not, and rotation under each key provider."""

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from hotswap.adapters.key_providers import key_provider
from hotswap.adapters.local_keys import CURRENT
from hotswap.adapters.memory.records import MemoryRecords
from hotswap.config_keys import KeySettings
from hotswap.domain.errors import Unavailable
from hotswap.domain.tenants import SealedSecret
from hotswap.keys.ring import DataKeyRing
from hotswap.keys.sealing import new_data_key, seal, unseal
from hotswap.ports.keys import KeyProvider, WrappedKey
from tests.contract.factories import EPOCH
from tests.unit.vault_fake import VaultFake

MARKER = "s3cret-Zm9v"


def fresh_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


class Keys:
    """A provider of one kind, whose wrapping key can be changed."""

    def __init__(self, kind: str, folder: Path, vault: VaultFake) -> None:
        self._kind = kind
        self._folder = folder
        self._vault = vault
        self._keys: list[str] = []
        self.add()

    def add(self) -> None:
        """A new key in front of the others."""
        self._keys.insert(0, fresh_key())
        if self._kind == "file":
            (self._folder / "keys").write_text("# newest first\n" + "\n".join(self._keys) + "\n")
        elif self._kind == "kubernetes":
            for number, key in enumerate(reversed(self._keys)):
                (self._folder / f"v{number}").write_text(key + "\n")
            (self._folder / CURRENT).write_text(f"v{len(self._keys) - 1}\n")
        elif self._kind == "vault":
            self._vault.rotate()

    def settings(self) -> KeySettings:
        match self._kind:
            case "environment":
                return KeySettings(provider="environment", wrapping_keys=tuple(SecretStr(key) for key in self._keys))
            case "file":
                return KeySettings(provider="file", path=self._folder / "keys")
            case "kubernetes":
                return KeySettings(provider="kubernetes", path=self._folder)
        return KeySettings(provider="vault", vault_address=self._vault.url, vault_token=SecretStr(self._vault.token))

    def provider(self) -> KeyProvider:
        """A new one, as another process would build it."""
        found = key_provider(self.settings())
        assert found is not None
        return found


@pytest.fixture
async def vault() -> AsyncIterator[VaultFake]:
    async with VaultFake() as fake:
        yield fake


@pytest.fixture(params=["environment", "file", "kubernetes", "vault"])
def keys(request: pytest.FixtureRequest, tmp_path: Path, vault: VaultFake) -> Keys:
    return Keys(request.param, tmp_path, vault)


async def sealed_by(ring: DataKeyRing, tenant: str = "acme") -> dict[str, Any]:
    """Stored secrets as a row holds them."""
    key_id, sealed = await ring.seal(tenant, "exporter", "token", MARKER)
    return {"token": SealedSecret(key_id=key_id, sealed=sealed, updated_at=EPOCH).model_dump(mode="json")}


def test_a_secret_opens_only_as_what_it_was_sealed_for() -> None:
    key = new_data_key()
    sealed = seal(key, "dk_1", MARKER, "acme", "exporter", "token")
    assert unseal(key, "dk_1", sealed, "acme", "exporter", "token") == MARKER
    assert sealed != seal(key, "dk_1", MARKER, "acme", "exporter", "token"), "a nonce is used once"
    changed = base64.b64encode(base64.b64decode(sealed)[:-1] + b"\0").decode()
    for wrong in (
        (new_data_key(), "dk_1", sealed, "acme", "exporter", "token"),
        (key, "dk_2", sealed, "acme", "exporter", "token"),
        (key, "dk_1", sealed, "globex", "exporter", "token"),
        (key, "dk_1", sealed, "acme", "importer", "token"),
        (key, "dk_1", sealed, "acme", "exporter", "other"),
        (key, "dk_1", changed, "acme", "exporter", "token"),
        (key, "dk_1", "no base64!", "acme", "exporter", "token"),
    ):
        with pytest.raises(Unavailable, match="does not open") as fault:
            unseal(*wrong)
        assert MARKER not in str(fault.value)


async def test_a_provider_unwraps_what_it_wrapped_for_the_same_tenant_only(keys: Keys) -> None:
    provider = keys.provider()
    key = new_data_key()
    wrapped = await provider.wrap(key, "data key of tenant acme")
    assert base64.b64encode(key).decode() not in wrapped.wrapped
    moved = WrappedKey(wrapped.wrapped, wrapped.wrapped_by, "data key of tenant globex")
    broken = WrappedKey("nothing", wrapped.wrapped_by, wrapped.context)
    assert await provider.unwrap([wrapped, moved, broken]) == [key, None, None]
    assert await provider.unwrap([]) == []
    keys.add()
    newer = keys.provider()
    assert await newer.unwrap([wrapped]) == [key], "old keys unwrap on"
    assert (await newer.wrap(key, "x")).wrapped_by != wrapped.wrapped_by
    for one in (provider, newer):
        await one.close()


async def test_another_process_opens_it_and_the_wrapping_key_changes_under_it(keys: Keys) -> None:
    records = MemoryRecords()
    provider = keys.provider()
    ring = DataKeyRing(records.unit_of_work, provider)
    stored = await sealed_by(ring)
    everything = json.dumps([key.model_dump(mode="json") for key in records.committed.data_keys.values()])
    assert MARKER not in everything + json.dumps(stored)

    async def opened_elsewhere() -> dict[str, str]:
        other = keys.provider()
        node = DataKeyRing(records.unit_of_work, other)
        await node.prepare([stored])
        await other.close()
        return node.decrypt("acme", "exporter", stored)

    assert await opened_elsewhere() == {"token": MARKER}
    keys.add()
    newer = keys.provider()
    api = DataKeyRing(records.unit_of_work, newer)
    assert await api.rewrap(list(records.committed.data_keys.values())) == 1
    assert await api.rewrap(list(records.committed.data_keys.values())) == 0, "once is enough"
    assert await opened_elsewhere() == {"token": MARKER}
    for one in (provider, newer):
        await one.close()


async def test_a_key_that_cannot_be_had_costs_its_own_tenant_only(tmp_path: Path, vault: VaultFake) -> None:
    keys = Keys("file", tmp_path, vault)
    records = MemoryRecords()
    ring = DataKeyRing(records.unit_of_work, keys.provider())
    ours, theirs = await sealed_by(ring), await sealed_by(ring, "globex")
    lost = next(key for key in records.committed.data_keys.values() if key.tenant == "globex")
    records.committed.data_keys[lost.key_id] = lost.model_copy(update={"wrapped_by": "local:gone"})
    node = DataKeyRing(records.unit_of_work, keys.provider())
    with pytest.raises(Unavailable, match=lost.key_id):
        await node.prepare([ours, theirs, {"odd": 7}, "odd"])
    assert node.decrypt("acme", "exporter", ours) == {"token": MARKER}
    with pytest.raises(Unavailable, match="could not be unwrapped"):
        node.decrypt("globex", "exporter", theirs)


async def test_vault_is_asked_as_its_interface_wants_and_its_refusals_are_told(vault: VaultFake) -> None:
    settings = KeySettings(
        provider="vault", vault_address=vault.url, vault_token=SecretStr("wrong"), vault_namespace="team"
    )
    provider = key_provider(settings)
    assert provider is not None
    with pytest.raises(Unavailable, match="403 permission denied"):
        await provider.wrap(new_data_key(), "x")
    assert vault.namespaces == {"team"}
    await provider.close()
    right = Keys("vault", Path(), vault).provider()
    wrapped = await right.wrap(new_data_key(), "x")
    vault.broken = True
    with pytest.raises(Unavailable, match="500"):
        await right.unwrap([wrapped])
    await vault.stop()
    with pytest.raises(Unavailable, match="does not answer"):
        await right.unwrap([wrapped])
    await right.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"provider": "environment"}, "HOTSWAP_KEYS__WRAPPING_KEYS"),
        ({"provider": "environment", "wrapping_keys": ["short"]}, "32 random bytes"),
        ({"provider": "file"}, "HOTSWAP_KEYS__PATH"),
        ({"provider": "vault"}, "HOTSWAP_KEYS__VAULT_ADDRESS"),
        ({"provider": "vault", "vault_address": "https://v"}, "HOTSWAP_KEYS__VAULT_TOKEN"),
        ({"vault_address": "http://vault.example:8200"}, "https://"),
    ],
)
def test_settings_that_cannot_work_say_what_is_missing(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        KeySettings.model_validate(given)


async def test_files_that_are_wrong_are_told_by_name(tmp_path: Path) -> None:
    provider = key_provider(KeySettings(provider="kubernetes", path=tmp_path))
    assert provider is not None
    with pytest.raises(Unavailable, match="cannot be read"):
        await provider.wrap(new_data_key(), "x")
    (tmp_path / CURRENT).write_text("v7")
    with pytest.raises(Unavailable, match="names 'v7'"):
        await provider.wrap(new_data_key(), "x")
    (tmp_path / "v7").write_text("not a key")
    with pytest.raises(Unavailable, match="key 1 must be 32 random bytes"):
        await provider.wrap(new_data_key(), "x")
