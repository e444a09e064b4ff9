"""Settings of the audit and of notifications. Part of hotswap.config, which reads them from the environment."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from hotswap.config_access import SettingsGroup
from hotswap.domain.errors import FieldFault
from hotswap.domain.metrics import allowed_origins, origin_of
from hotswap.domain.notification_rules import SLUG, EmailTarget, SlackTarget, Target, WebhookTarget


class AuditSettings(SettingsGroup):
    """The audit's checkpoints (docs/audit.md). The key belongs where the database's owner cannot read it."""

    signing_key: SecretStr | None = Field(
        default=None, min_length=32, description="signs checkpoints; without it there are none and nothing is truncated"
    )
    former_keys: tuple[SecretStr, ...] = Field(default=(), description="keys of older checkpoints, to verify them")
    keep_at_least: timedelta = Field(
        default=timedelta(days=90), ge=timedelta(days=1), description="younger entries are never truncated"
    )


class WebhookSecret(SettingsGroup):
    """Signs what is sent to `host`, and to nobody else."""

    name: str = Field(pattern=SLUG)
    host: str = Field(min_length=1, description="host or host:port, as in allowed_hosts")
    signing_key: SecretStr = Field(min_length=16)


class SlackChannel(SettingsGroup):
    """An incoming webhook under a name; its URL is the secret."""

    name: str = Field(pattern=SLUG)
    url: SecretStr

    @field_validator("url")
    @classmethod
    def _plain(cls, url: SecretStr) -> SecretStr:
        if origin_of(url.get_secret_value()) is None:
            raise ValueError("must be http(s)://host[:port][/path] in lower case, without user or query")
        return url


class NotificationSettings(SettingsGroup):
    """Whom the worker may notify, and with which secrets (docs/notifications.md). Rules name these; they hold none."""

    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="hosts (host or host:port) that a rule's webhook may name; nobody else is ever called"
    )
    secrets: tuple[WebhookSecret, ...] = ()
    slack: tuple[SlackChannel, ...] = ()
    smtp_host: str = Field(default="", description="empty = no email")
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_tls: Literal["starttls", "implicit", "none"] = "starttls"
    smtp_ca_file: Path | None = Field(default=None, description="default: the machine's certificate authorities")
    smtp_user: str = ""
    smtp_password: SecretStr | None = None
    email_from: str = Field(default="hotswap@localhost", pattern=r"^[^\s<>@]+@[^\s<>@]+$")
    timeout: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0), le=timedelta(seconds=20))
    per_minute: int = Field(default=60, ge=1, le=10_000, description="messages of one rule; more wait, none is lost")
    kept: timedelta = Field(default=timedelta(days=30), ge=timedelta(days=1), description="the log of deliveries")

    @field_validator("smtp_password")
    @classmethod
    def _not_in_the_clear(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if password is not None and info.data.get("smtp_tls") == "none":
            raise ValueError("would be sent in the clear; set HOTSWAP_NOTIFICATIONS__SMTP_TLS to starttls or implicit")
        return password

    def fault_of(self, target: Target) -> FieldFault | None:
        """Why nothing can be sent to this target; None when something can. Tells no secret and no list of them."""
        match target:
            case WebhookTarget():
                origin = origin_of(target.url)
                if origin not in allowed_origins(self.allowed_hosts):
                    why = "is not in the platform's allow-list (HOTSWAP_NOTIFICATIONS__ALLOWED_HOSTS)"
                    return FieldFault("target.url", why)
                if self.signing_key(target) is None:
                    why = f"the platform has no secret '{target.secret}' for {origin} (HOTSWAP_NOTIFICATIONS__SECRETS)"
                    return FieldFault("target.secret", why)
            case SlackTarget() if target.channel not in {one.name for one in self.slack}:
                why = f"the platform has no Slack channel '{target.channel}' (HOTSWAP_NOTIFICATIONS__SLACK)"
                return FieldFault("target.channel", why)
            case EmailTarget() if not self.smtp_host:
                return FieldFault("target.kind", "the platform has no mail server (HOTSWAP_NOTIFICATIONS__SMTP_HOST)")
        return None

    def signing_key(self, target: WebhookTarget) -> SecretStr | None:
        origin = origin_of(target.url)
        found = (one for one in self.secrets if one.name == target.secret and origin in allowed_origins([one.host]))
        return next((one.signing_key for one in found), None)
