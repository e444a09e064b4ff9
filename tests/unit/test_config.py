"""Settings: everything wrong is said at once and with a remedy, and no secret ever shows."""

import json
import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hotswap.config import Settings, SettingsInvalid, load_settings
from hotswap.domain.deployment import Environment, Role, Strategy
from hotswap.identity.key_material import decode_key

COMPLETE = {
    "HOTSWAP_POSTGRES__URL": "postgresql://hs:pg-secret@db/hotswap",
    "HOTSWAP_REDIS__URL": "redis://:redis-secret@cache:6379/0",
    "HOTSWAP_MINIO__ENDPOINT": "s3:9000",
    "HOTSWAP_MINIO__ACCESS_KEY": "minio-access",
    "HOTSWAP_MINIO__SECRET_KEY": "minio-secret",
}


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Only the settings that have no default."""
    for name in [name for name in os.environ if name.upper().startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def faults() -> list[str]:
    with pytest.raises(SettingsInvalid) as raised:
        load_settings()
    title, *lines = str(raised.value).splitlines()
    assert title == "settings are wrong:"
    return [line.strip() for line in lines]


@pytest.mark.usefixtures("environ")
def test_defaults_need_only_the_servers() -> None:
    settings = load_settings()
    assert settings.postgres.url.get_secret_value() == COMPLETE["HOTSWAP_POSTGRES__URL"]
    assert settings.max_plugin_bytes == 100 * 1024 * 1024
    assert settings.sandbox.timeout == timedelta(minutes=5)
    assert settings.sandbox.tier == "standard"
    assert settings.default_strategy is None


def test_nested_names_reach_their_group(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HOTSWAP_NODE__ENVIRONMENT", "Production")
    environ.setenv("HOTSWAP_NODE__BEAT", "PT0.5S")
    environ.setenv("HOTSWAP_TEMPORAL__TLS", "true")
    environ.setenv("HOTSWAP_DEFAULT_STRATEGY", "Canary")
    environ.setenv("HOTSWAP_POSTGRES__POOL_SIZE", "3")
    environ.setenv(
        "HOTSWAP_API__DEVELOPMENT_USERS", json.dumps([{"user": "ada", "roles": ["Admin", "Approver"], "token": "t"}])
    )
    settings = load_settings()
    assert settings.node.environment is Environment.PRODUCTION
    assert settings.node.beat == timedelta(seconds=0.5)
    assert settings.node.reconcile == timedelta(seconds=5), "the rest of the group keeps its defaults"
    assert settings.temporal.tls
    assert settings.default_strategy is Strategy.CANARY
    assert settings.postgres.pool_size == 3
    assert settings.api.development_users[0].roles == (Role.ADMIN, Role.APPROVER)


def test_a_setting_that_is_a_file_s_name_is_not_taken_for_a_secret_in_a_file(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HOTSWAP_NOTIFICATIONS__SMTP_CA_FILE", "/etc/ssl/our-ca.pem")
    assert load_settings().notifications.smtp_ca_file == Path("/etc/ssl/our-ca.pem")


def test_arguments_win_over_the_environment(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HOTSWAP_MAX_PLUGIN_BYTES", "2048")
    assert load_settings(max_plugin_bytes=4096).max_plugin_bytes == 4096


def test_every_missing_setting_is_named_at_once(environ: pytest.MonkeyPatch) -> None:
    for name in COMPLETE:
        environ.delenv(name)
    assert faults() == [f"{name} is not set" for name in COMPLETE]


def test_every_wrong_setting_is_listed_at_once(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environ.delenv("HOTSWAP_REDIS__URL")
    environ.setenv("HOTSWAP_MINIO__BUCKET", "Not A Bucket")
    environ.setenv("HOTSWAP_NODE__BEAT", "5")
    environ.setenv("HOTSWAP_NODE__PORBE", "PT5S")
    environ.setenv("HOTSWAP_POSTGRE__POOL_SIZE", "5")
    environ.setenv("HOTSWAP_TELEMETRY__SAMPLING_RATE", "2")
    environ.setenv("HOTSWAP_API__DEVELOPMENT_USERS", "ada")
    environ.setenv("HOTSWAP_MAX_PLUGIN_BYTES", "lots")
    environ.setenv("HOTSWAP_DEFAULT_STRATEGY", "Yolo")
    environ.setenv("HOTSWAP_TEMPORAL__API_KEY_FILE", str(tmp_path / "gone"))
    said = {line.split(":")[0].split(" ")[0]: line for line in faults()}
    assert set(said) == {
        "HOTSWAP_REDIS__URL",
        "HOTSWAP_MINIO__BUCKET",
        "HOTSWAP_NODE__BEAT",
        "HOTSWAP_NODE__PORBE",
        "HOTSWAP_POSTGRE__POOL_SIZE",
        "HOTSWAP_TELEMETRY__SAMPLING_RATE",
        "HOTSWAP_API__DEVELOPMENT_USERS",
        "HOTSWAP_MAX_PLUGIN_BYTES",
        "HOTSWAP_DEFAULT_STRATEGY",
        "HOTSWAP_TEMPORAL__API_KEY_FILE",
    }
    assert said["HOTSWAP_NODE__BEAT"].endswith("must be an ISO 8601 duration such as PT10S")
    assert said["HOTSWAP_NODE__PORBE"].endswith("is not a known setting; correct its spelling or unset it")
    assert said["HOTSWAP_API__DEVELOPMENT_USERS"].endswith("must be a JSON list")
    assert "mount the secret or unset the variable" in said["HOTSWAP_TEMPORAL__API_KEY_FILE"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HOTSWAP_API__PORT", "65536", "less than or equal to 65535"),
        ("HOTSWAP_NODE__ID", "Node 1", "pattern"),
        ("HOTSWAP_NODE__ENVIRONMENT", "Prod", "'Production'"),
        ("HOTSWAP_SANDBOX__TIER", "off", "'standard' or 'none'"),
        ("HOTSWAP_POSTGRES", "junk", "as HOTSWAP_POSTGRES__..."),
        ("HOTSWAP_POSTGRES", "[1]", "as HOTSWAP_POSTGRES__..."),
        ("HOTSWAP_API__DEVELOPMENT_USERS", '{"user": "ada"}', "must be a JSON list"),
        ("HOTSWAP_API__DEVELOPMENT_USERS", '[{"user": "ada", "roles": ["Boss"], "token": "t"}]', "__0__ROLES__0"),
    ],
)
def test_a_wrong_value_is_named(environ: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    environ.setenv(name, value)
    (line,) = faults()
    assert line.startswith(name)
    assert said in line


@pytest.mark.parametrize(("content", "why"), [(b"\xff\xfe", "not UTF-8"), (b" \n", "empty"), (None, "No such file")])
def test_an_unusable_secret_file_is_named(
    environ: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    environ.setenv("HOTSWAP_POSTGRES__URL_FILE", str(path))
    (line,) = faults()
    assert line.startswith(f"HOTSWAP_POSTGRES__URL_FILE: cannot read {path}")
    assert why in line


def test_secrets_are_read_from_files_and_stay_out_of_the_environment(
    environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HOTSWAP_POSTGRES__URL", "HOTSWAP_MINIO__SECRET_KEY"):
        environ.delenv(name)
        (tmp_path / name).write_text(f"from-file-{name}\n", encoding="utf-8")
        environ.setenv(f"{name}_FILE", str(tmp_path / name))
    before = dict(os.environ)
    settings = load_settings()
    assert settings.postgres.url.get_secret_value() == "from-file-HOTSWAP_POSTGRES__URL"
    assert settings.minio.secret_key.get_secret_value() == "from-file-HOTSWAP_MINIO__SECRET_KEY"
    assert dict(os.environ) == before
    assert load_settings() == settings, "reading twice is reading once"


def test_a_file_wins_over_the_plain_variable(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://file", encoding="utf-8")
    environ.setenv("HOTSWAP_POSTGRES__URL_FILE", str(tmp_path / "url"))
    assert load_settings().postgres.url.get_secret_value() == "postgresql://file"


def test_an_empty_variable_is_not_set(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HOTSWAP_NODE__ID", "")
    assert load_settings().node.id == "node-1"
    environ.setenv("HOTSWAP_POSTGRES__URL", "")
    assert faults() == ["HOTSWAP_POSTGRES__URL is not set"]


def test_variables_of_the_launcher_and_of_kubernetes_are_no_settings(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HOTSWAP_READY_FILE", "/nowhere/ready")
    environ.setenv("HOTSWAP_HOME", "/somewhere")
    environ.setenv("HOTSWAP_API_SERVICE_PORT", "tcp://10.0.0.1:80")
    load_settings()


def secrets_in(text: str) -> list[str]:
    return [
        secret for secret in ("pg-secret", "redis-secret", "minio-access", "minio-secret", "token-1") if secret in text
    ]


def test_secrets_never_show(environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    environ.setenv("HOTSWAP_NODE__TENANT_TOKEN", "token-1a")
    environ.setenv("HOTSWAP_TEMPORAL__API_KEY", "token-1b")
    environ.setenv(
        "HOTSWAP_API__DEVELOPMENT_USERS", json.dumps([{"user": "ada", "roles": ["Admin"], "token": "token-1c"}])
    )
    settings = load_settings()
    logging.getLogger("test").warning("started with %s", settings)
    shown: list[Any] = [repr(settings), str(settings), settings.model_dump_json(), settings.model_dump(), caplog.text]
    assert [secrets_in(str(item)) for item in shown] == [[]] * len(shown)


def test_secrets_never_show_in_faults(environ: pytest.MonkeyPatch) -> None:
    environ.setenv(
        "HOTSWAP_API__DEVELOPMENT_USERS", '[{"user": 5, "roles": [], "token": "token-1", "tokn": "token-1"}]'
    )
    environ.setenv("HOTSWAP_MINIO", "minio-secret")
    environ.setenv("HOTSWAP_POSTGRES__POOL_SIZE", "pg-secret")
    assert secrets_in("\n".join(faults())) == []


def test_settings_cannot_be_changed_after_start(environ: pytest.MonkeyPatch) -> None:
    del environ
    settings: Settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.max_plugin_bytes = 1  # type: ignore[misc]


KEY = "a2V5" * 10 + "a2U"


@pytest.mark.parametrize("key", [KEY, KEY.replace("a", "-"), f"{KEY}=", "0f" * 32])
def test_a_key_is_read_from_base64_or_hex(environ: pytest.MonkeyPatch, key: str) -> None:
    environ.setenv("HOTSWAP_AUTH__KEY_ENCRYPTION_KEY", key)
    given = load_settings().auth.key_encryption_key
    assert given is not None
    assert len(decode_key(given.get_secret_value())) == 32


@pytest.mark.parametrize("key", ["change-me", "A" * 42, "A" * 44, "zz" * 32, "ü" * 43])
def test_what_is_no_key_says_how_to_make_one_and_shows_nothing(environ: pytest.MonkeyPatch, key: str) -> None:
    environ.setenv("HOTSWAP_AUTH__KEY_ENCRYPTION_KEY", key)
    (said,) = faults()
    assert said.startswith("HOTSWAP_AUTH__KEY_ENCRYPTION_KEY: must be 32 random bytes")
    assert "openssl rand" in said
    assert key not in said


def test_a_shared_jwt_secret_is_refused_with_the_reason(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HOTSWAP_AUTH__JWT_SECRET", "predecessors-secret")
    (said,) = faults()
    assert "can also forge" in said
    assert "predecessors-secret" not in said


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"HOTSWAP_API__PRODUCTION": "true"}, ["HOTSWAP_AUTH__KEY_ENCRYPTION_KEY"]),
        (
            {"HOTSWAP_API__PRODUCTION": "true", "HOTSWAP_AUTH__KEY_ENCRYPTION_KEY": KEY, "users": "1"},
            ["HOTSWAP_API__DEVELOPMENT_USERS"],
        ),
        ({"HOTSWAP_OIDC__ISSUER": "https://i"}, ["HOTSWAP_OIDC__AUDIENCE", "HOTSWAP_OIDC__JWKS_URL"]),
        ({"HOTSWAP_OIDC__AUDIENCE": "a"}, ["HOTSWAP_OIDC__ISSUER"]),
        (
            {
                "HOTSWAP_OIDC__ISSUER": "hotswap",
                "HOTSWAP_OIDC__AUDIENCE": "a",
                "HOTSWAP_OIDC__JWKS_URL": "https://i/keys",
                "users": "1",
            },
            ["HOTSWAP_API__DEVELOPMENT_USERS", "HOTSWAP_OIDC__ISSUER"],
        ),
        ({"HOTSWAP_OIDC__JWKS_URL": "http://i/keys"}, ["HOTSWAP_OIDC__JWKS_URL"]),
        ({"HOTSWAP_API__TRUSTED_PROXIES": '["10.0.0.0/8", "proxy"]'}, ["HOTSWAP_API__TRUSTED_PROXIES"]),
    ],
)
def test_what_contradicts_is_named(environ: pytest.MonkeyPatch, variables: dict[str, str], named: list[str]) -> None:
    for name, value in variables.items():
        if name == "users":
            name, value = "HOTSWAP_API__DEVELOPMENT_USERS", '[{"user": "a", "roles": ["Admin"], "token": "t"}]'
        environ.setenv(name, value)
    said = faults()
    assert [line.split(":")[0].split(" ")[0] for line in said] == named


def test_production_with_a_key_or_a_provider_is_fine(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HOTSWAP_API__PRODUCTION", "true")
    environ.setenv("HOTSWAP_AUTH__KEY_ENCRYPTION_KEY", KEY)
    assert load_settings().api.production
    environ.delenv("HOTSWAP_AUTH__KEY_ENCRYPTION_KEY")
    for name, value in (("ISSUER", "https://i"), ("AUDIENCE", "a"), ("JWKS_URL", "https://i/keys")):
        environ.setenv(f"HOTSWAP_OIDC__{name}", value)
    assert load_settings().oidc.issuer == "https://i"
