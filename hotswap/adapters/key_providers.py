"""Which key provider the settings ask for. Built in composition roots (api.app, hotswap.node.__main__)."""

from functools import partial

from hotswap.adapters.local_keys import LocalKeyProvider, keys_in_file, keys_in_mount, keys_of
from hotswap.adapters.vault_keys import VaultKeyProvider
from hotswap.config_keys import KeySettings
from hotswap.ports.keys import KeyProvider


def key_provider(settings: KeySettings) -> KeyProvider | None:
    """None: no secrets of tenants here. What the provider needs was checked with the settings."""
    match settings.provider:
        case "none":
            return None
        case "environment":
            texts = [key.get_secret_value() for key in settings.wrapping_keys]
            return LocalKeyProvider(partial(keys_of, texts))
        case "vault":
            return VaultKeyProvider(settings)
        case "file" | "kubernetes":
            assert settings.path is not None
            read = keys_in_file if settings.provider == "file" else keys_in_mount
            return LocalKeyProvider(partial(read, settings.path))
