"""One typed settings object: HOTSWAP_ variables, nested with `__`; every wrong setting is listed at once.

A secret can be read from a file: HOTSWAP_POSTGRES__URL_FILE=/run/secrets/pg sets HOTSWAP_POSTGRES__URL (and wins over it).
An empty variable is one that is not set. Lists are written as JSON. Who may do what: hotswap.config_access.
"""

import json
import os
import re
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from hotswap.config_access import ApiSettings, AuthSettings, OidcSettings, SettingsGroup, contradictions
from hotswap.config_keys import KeySettings
from hotswap.config_temporal import TemporalSettings
from hotswap.config_trail import AuditSettings, NotificationSettings
from hotswap.domain.base import PLUGIN_NAME_PATTERN
from hotswap.domain.deployment import Environment, Strategy
from hotswap.domain.errors import HotSwapError
from hotswap.domain.metrics import origin_of
from hotswap.domain.quota import MAX_CONCURRENT, MAX_MEMORY_MB, MAX_REQUESTS_PER_MINUTE, Quota
from hotswap.domain.signatures import KeyId
from hotswap.lifeline import READY_FILE

MIB = 1024 * 1024
MAX_ROUTERS = 32
"""Of a node: each host has a line to each, and memory for 64 (hotswap.runtime.protocol.MAX_LINES)."""


class SettingsInvalid(HotSwapError):
    """One or more settings are wrong; the message lists all of them and how to mend each."""


class PostgresSettings(SettingsGroup):
    url: SecretStr = Field(description="postgresql://user:password@host:port/database")
    pool_size: int = Field(default=10, ge=1, le=200)
    connect_timeout: timedelta = timedelta(seconds=5)
    statement_timeout: timedelta = timedelta(seconds=30)


class RedisSettings(SettingsGroup):
    url: SecretStr = Field(description="redis://:password@host:port/0")
    timeout: timedelta = timedelta(seconds=2)


class MinioSettings(SettingsGroup):
    endpoint: str = Field(description="host:port, without a scheme")
    access_key: SecretStr
    secret_key: SecretStr
    bucket: str = Field(default="plugins", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    tls: bool = False
    public_endpoint: str = Field(
        default="", description="host:port that clients of presigned uploads reach; empty = endpoint"
    )
    public_tls: bool | None = Field(default=None, description="whether clients speak TLS there; default: as tls")


class QuotaSettings(SettingsGroup):
    """What a tenant may ask of one plugin on one node, unless its row says otherwise (docs/data-plane.md)."""

    requests_per_minute: int = Field(default=100, ge=1, le=MAX_REQUESTS_PER_MINUTE)
    concurrent: int = Field(default=10, ge=1, le=MAX_CONCURRENT)
    execution_seconds: float = Field(default=30.0, ge=0.001, le=3600)
    memory_mb: int = Field(default=512, ge=1, le=MAX_MEMORY_MB)

    def quota(self) -> Quota:
        return Quota(**self.model_dump())


class NodeSettings(SettingsGroup):
    id: str = Field(default="node-1", pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")
    environment: Environment = Environment.DEVELOPMENT
    host: str = "127.0.0.1"
    router_port: int = Field(default=0, ge=0, le=65535, description="0 = any free port")
    admin_port: int = Field(default=0, ge=0, le=65535)
    advertise_host: str = Field(default="127.0.0.1", description="name under which others reach this node")
    data_dir: Path = Path(".hotswap/node")
    replace: bool = Field(
        default=False, description="take the place of the process that serves from data_dir, without losing a request"
    )
    tenant_token: SecretStr | None = Field(
        default=None, description="one token for all tenants, for a gateway in front; without it each has its own"
    )
    admin_token: SecretStr | None = Field(default=None, description="bearer token of /figures; required")
    beat: timedelta = timedelta(seconds=1)
    reconcile: timedelta = timedelta(seconds=5)
    probe: timedelta = Field(default=timedelta(seconds=30), description="liveness probe of each host (spec section 2)")
    invoke_timeout: timedelta = timedelta(seconds=30)
    # docs/data-plane.md, "Stopping a node", tells what these two do.
    drain_delay: timedelta = Field(
        default=timedelta(0),
        ge=timedelta(0),
        le=timedelta(minutes=10),
        description="told to stop, a node is not ready any more but serves new connections for this long",
    )
    drain_idle: timedelta = Field(
        default=timedelta(seconds=5),
        ge=timedelta(0),
        le=timedelta(minutes=10),
        description="then a connection without a request is left open for this long, as its client may be sending one",
    )
    max_request_bytes: int = Field(default=MIB, ge=1024)
    max_reply_bytes: int = Field(default=4 * MIB, ge=1024)
    max_connections: int = Field(default=4096, ge=1)
    max_connections_per_address: int = Field(default=1024, ge=1, description="a balancer counts as one address")
    max_queued: int = Field(default=4000, ge=0, description="requests that wait for busy versions, all together")
    max_in_flight_per_host: int = Field(default=1000, ge=1, description="calls one plugin process may work on at once")
    routers: int = Field(
        default=1,
        ge=0,
        le=MAX_ROUTERS,
        description="1 = within the node's process; N = processes of their own on one port; 0 = one for each core",
    )
    quota: QuotaSettings = Field(default_factory=QuotaSettings)
    # docs/hosts.md tells what each of these does to the hosts.
    max_concurrency: int = Field(
        default=64, ge=1, le=64, description="caps the manifests' concurrency, as the cores do"
    )
    standby: tuple[str, ...] = Field(default=(), description='plugins with a spare process each; ["*"] = all')
    idle_after: timedelta = Field(
        default=timedelta(0), ge=timedelta(0), description="evict what nobody called for this long; 0 = never"
    )
    memory_budget_mb: int = Field(
        default=0, ge=0, description="of all hosts together; evict the least recently used beyond it; 0 = no limit"
    )

    @field_validator("standby")
    @classmethod
    def _plugins(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name != "*" and not re.fullmatch(PLUGIN_NAME_PATTERN, name):
                raise ValueError(f"'{name[:80]}' is neither a plugin's name nor *")
        return names


class SandboxSettings(SettingsGroup):
    tier: Literal["strong", "standard", "none"] = Field(
        default="standard", description="'none' is refused for Production; see docs/isolation.md"
    )
    max_memory_mb: int = Field(default=2048, ge=64)
    max_cpu_seconds: int = Field(default=600, ge=1, description="CPU seconds that a trial may burn")
    max_processes: int = Field(default=256, ge=1, description="processes and threads of one host")
    max_open_files: int = Field(default=1024, ge=16)
    max_scratch_mb: int = Field(default=256, ge=0, description="0 = no scratch directories; tier strong alone has them")
    timeout: timedelta = Field(
        default=timedelta(minutes=5), description="longest trial, and longest execution of a sandbox session"
    )
    max_instances: int = Field(default=50, ge=1, le=1000, description="trials at once; live sessions an environment")
    max_lifetime: timedelta = Field(
        default=timedelta(hours=1),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="longest life of a sandbox session",
    )
    parallel: int = Field(default=4, ge=1, le=100, description="executions of sessions that one worker runs at once")
    egress_allow_private: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="networks (CIDR) that plugins with a grant may reach though they are not public"
    )
    egress_connections: int = Field(default=32, ge=1, le=1024, description="connections open at once, one host")
    preload: tuple[str, ...] = Field(
        default=(), description="modules that every host has imported already, shared: standard library or installed"
    )

    @field_validator("preload")
    @classmethod
    def _modules(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"'{name[:80]}' is no module's name; write names as in an import, e.g. numpy.linalg")
        return names


class DriftSettings(SettingsGroup):
    interval: timedelta = Field(default=timedelta(minutes=1), ge=timedelta(seconds=1), le=timedelta(days=1))
    repair: bool = Field(default=False, description="repair by itself what two comparisons in a row have seen")


class SignatureSettings(SettingsGroup):
    """Who vouches for artifacts (docs/versions.md)."""

    required_in: tuple[Environment, ...] = Field(
        default=(), description='where only signed versions run; recommended: ["Production"]'
    )
    trusted_keys: tuple[KeyId, ...] = Field(
        default=(), description="key ids that count, whatever the registry says; empty = every registered key"
    )


class RetentionSettings(SettingsGroup):
    """When artifacts of Archived versions go (docs/versions.md)."""

    archived_for: timedelta = Field(
        default=timedelta(days=30), ge=timedelta(0), description="Archived for so long before its artifact goes"
    )
    interval: timedelta = Field(
        default=timedelta(days=1), ge=timedelta(0), description="between two sweeps of the worker; PT0S = never"
    )


class TelemetrySettings(SettingsGroup):
    otlp_endpoint: str = Field(default="", description="http(s)://host:4318 of an OTLP/HTTP collector; empty = off")
    sampling_rate: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of the traces that begin here; a caller's own flag decides over its trace",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class MetricSecret(SettingsGroup):
    """Credentials that a rollout's own metric may name. They are sent to `host` only."""

    name: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
    host: str = Field(min_length=1, description="host or host:port, as in allowed_hosts")
    token: SecretStr | None = Field(default=None, description="sent as a bearer token")
    signing_key: SecretStr | None = Field(
        default=None, description="a webhook's question is signed with it (HMAC-SHA256)"
    )


class MetricsSettings(SettingsGroup):
    """Whom the worker may ask about a rollout's own metrics (docs/metrics.md)."""

    prometheus_url: str = Field(
        default="", description="the platform's own Prometheus, e.g. http://prometheus:9090; empty = none"
    )
    prometheus_token: SecretStr | None = None
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="hosts (host or host:port) that a metric's own url may name; nobody else is ever asked"
    )
    secrets: tuple[MetricSecret, ...] = ()
    timeout: timedelta = Field(default=timedelta(seconds=3), gt=timedelta(0), le=timedelta(seconds=10))
    max_answer_bytes: int = Field(default=65_536, ge=256, le=MIB)

    @field_validator("prometheus_url")
    @classmethod
    def _plain(cls, url: str) -> str:
        if url and origin_of(url) is None:
            raise ValueError("must be http(s)://host[:port][/path] in lower case, without user or query")
        return url


class Settings(BaseSettings):
    """Everything a HotSwap process can be told. See docs and .env.example for the variables."""

    model_config = SettingsConfigDict(
        env_prefix="HOTSWAP_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    postgres: PostgresSettings
    redis: RedisSettings
    minio: MinioSettings
    temporal: TemporalSettings = Field(default_factory=TemporalSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    oidc: OidcSettings = Field(default_factory=OidcSettings)
    keys: KeySettings = Field(default_factory=KeySettings)
    node: NodeSettings = Field(default_factory=NodeSettings)
    sandbox: SandboxSettings = Field(default_factory=SandboxSettings)
    drift: DriftSettings = Field(default_factory=DriftSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    signatures: SignatureSettings = Field(default_factory=SignatureSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    notifications: NotificationSettings = Field(default_factory=NotificationSettings)
    max_plugin_bytes: int = Field(default=100 * MIB, ge=1024)
    max_presigned_bytes: int = Field(default=512 * MIB, ge=1024, description="largest artifact by presigned upload")
    presigned_for: timedelta = Field(
        default=timedelta(hours=1), ge=timedelta(minutes=1), le=timedelta(days=7), description="life of a presigned url"
    )
    default_strategy: Strategy | None = Field(default=None, description="overrides the environments' own default")
    work_dir: Path = Field(default=Path(".hotswap/work"), description="scratch: uploads, trials, caches")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment with secrets read from their files. No other source."""
        assert isinstance(env_settings, EnvSettingsSource)
        env_settings.env_vars = _environment()[0]
        return init_settings, env_settings


def load_settings(**overrides: Any) -> Settings:
    """Read the environment. Raises SettingsInvalid listing every wrong setting at once."""
    lines = _environment()[1]
    try:
        settings = Settings(**overrides)
    except ValidationError as fault:
        for item in fault.errors(include_url=False, include_input=False):
            lines.extend(_setting_faults(item))
    else:
        lines.extend(contradictions(settings.api, settings.auth, settings.oidc))
    if lines:
        raise SettingsInvalid("settings are wrong:\n" + "\n".join(f"  {line}" for line in lines))
    return settings


def _setting_faults(item: Any) -> list[str]:
    name = "HOTSWAP_" + "__".join(str(part) for part in item["loc"]).upper()
    if item["type"] == "missing":
        group = _group(item["loc"][0]) if len(item["loc"]) == 1 else None
        required = [key for key, field in group.model_fields.items() if field.is_required()] if group else []
        return [f"{name}__{key.upper()} is not set" for key in required] or [f"{name} is not set"]
    if item["type"] == "extra_forbidden":
        return [f"{name} is not a known setting; correct its spelling or unset it"]
    if item["type"].startswith("time_delta"):
        return [f"{name}: must be an ISO 8601 duration such as PT10S"]
    return [f"{name}: {item['msg'].removeprefix('Value error, ')}"]


def _environment() -> tuple[dict[str, str | None], list[str]]:
    """The HOTSWAP_ variables (names in lower case), files read and unusable ones left out; and the faults found.

    os.environ stays as it is: what is read from a file must not reach the environment of child processes.
    """
    variables: dict[str, str | None] = {}
    from_files: dict[str, str | None] = {}
    faults = []
    for name, value in os.environ.items():
        lowered = name.lower()
        if not lowered.startswith("hotswap_") or not value or name == READY_FILE:
            continue
        if lowered.endswith("_file") and not _is_setting(lowered):
            try:
                from_files[lowered.removesuffix("_file")] = _secret(Path(value))
            except (OSError, ValueError) as fault:
                why = fault.strerror if isinstance(fault, OSError) else "it is empty or not UTF-8 text"
                faults.append(f"{name}: cannot read {value[:200]} ({why}); mount the secret or unset the variable")
        else:
            variables[lowered] = value
    variables.update(from_files)
    for lowered, text in list(variables.items()):
        if said := _unusable(lowered, text or ""):
            faults.append(f"{lowered.upper()}{said}")
            del variables[lowered]
    return variables, faults


def _secret(path: Path) -> str:
    """Raises OSError, or ValueError for a file that holds no text."""
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise ValueError("empty")
    return text


def _unusable(lowered: str, value: str) -> str | None:
    """What is wrong with a variable before its type is looked at: no such group, or no JSON where JSON is needed."""
    head, nested, key = lowered.removeprefix("hotswap_").partition("__")
    group = _group(head)
    if group is None:
        return " is not a known setting; correct its spelling or unset it" if nested else None
    if nested and (key not in group.model_fields or get_origin(group.model_fields[key].annotation) is not tuple):
        return None
    try:
        if isinstance(json.loads(value), list if nested else dict):
            return None
    except (ValueError, RecursionError):
        pass  # said below, with the remedy
    if nested:
        return ": must be a JSON list"
    return f": must be a JSON object; or set its parts one by one, as HOTSWAP_{head.upper()}__..."


def _is_setting(lowered: str) -> bool:
    """Whether a variable is a setting by its whole name; HOTSWAP_NOTIFICATIONS__SMTP_CA_FILE is no secret's file form."""
    head, _, key = lowered.removeprefix("hotswap_").partition("__")
    group = _group(head)
    return group is not None and key in group.model_fields


def _group(name: str) -> type[SettingsGroup] | None:
    field = Settings.model_fields.get(name)
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, SettingsGroup) else None
