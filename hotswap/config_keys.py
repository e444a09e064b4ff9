"""Settings of who wraps tenants' data keys (docs/tenants.md): HOTSWAP_KEYS__... of hotswap.config."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from hotswap.config_access import SettingsGroup
from hotswap.identity.key_material import decode_key


class KeySettings(SettingsGroup):
    """The same for api and nodes. Without a provider tenants have no secrets."""

    provider: Literal["none", "environment", "file", "kubernetes", "vault"] = "none"
    wrapping_keys: tuple[SecretStr, ...] = Field(
        default=(), description="provider environment: 32 bytes each in base64 or hex; the first wraps, all unwrap"
    )
    path: Path | None = Field(
        default=None,
        description="provider file: a key a line; provider kubernetes: the directory of the mounted Secret",
    )
    vault_address: str = Field(default="", description="https://host:port of Vault or OpenBao")
    vault_token: SecretStr | None = Field(default=None, description="or vault_token_path, which an agent keeps fresh")
    vault_token_path: Path | None = None
    vault_namespace: str = ""
    vault_mount: str = Field(default="transit", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9/_-]{0,127}$")
    vault_key: str = Field(default="hotswap", pattern=r"^[A-Za-z0-9_-]{1,128}$")
    vault_timeout: timedelta = Field(default=timedelta(seconds=5), gt=timedelta(0), le=timedelta(minutes=1))

    @field_validator("wrapping_keys")
    @classmethod
    def _are_keys(cls, given: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in given:
            decode_key(key.get_secret_value())
        return given

    @field_validator("vault_address")
    @classmethod
    def _protected(cls, url: str) -> str:
        if url and not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
            raise ValueError("must begin with https:// (http:// for this machine only): data keys pass there")
        return url

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """What the provider needs."""
        if self.provider == "environment" and not self.wrapping_keys:
            raise ValueError("provider environment needs HOTSWAP_KEYS__WRAPPING_KEYS")
        if self.provider in ("file", "kubernetes") and self.path is None:
            raise ValueError(f"provider {self.provider} needs HOTSWAP_KEYS__PATH")
        if self.provider == "vault" and not self.vault_address:
            raise ValueError("provider vault needs HOTSWAP_KEYS__VAULT_ADDRESS")
        if self.provider == "vault" and self.vault_token is None and self.vault_token_path is None:
            raise ValueError("provider vault needs HOTSWAP_KEYS__VAULT_TOKEN or HOTSWAP_KEYS__VAULT_TOKEN_PATH")
        return self

    def current_vault_token(self) -> str:
        """Read anew where a file holds it. Raises OSError."""
        if self.vault_token_path is not None:
            return self.vault_token_path.read_text(encoding="utf-8").strip()
        return self.vault_token.get_secret_value() if self.vault_token is not None else ""
