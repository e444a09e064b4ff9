"""Settings of Temporal: certificates, keys and their mistakes, each with the setting's name and the remedy; from files too."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from hotswap.config import load_settings
from hotswap.config_temporal import TemporalSettings
from hotswap.temporal import tls_config
from tests.integration.tls_proxy import Authority, Pair
from tests.unit.test_config import environ as environ
from tests.unit.test_config import faults


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("test authority")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("hotswap")


def test_tls_is_the_machines_own_unless_more_is_said(authority: Authority, pair: Pair) -> None:
    assert tls_config(TemporalSettings()) is False
    plain = tls_config(TemporalSettings(tls=True))
    assert not isinstance(plain, bool)
    assert (plain.server_root_ca_cert, plain.domain, plain.client_cert, plain.client_private_key) == (None,) * 4
    whole = TemporalSettings(
        tls=True,
        tls_ca=authority.certificate,
        tls_client_cert=pair.certificate,
        tls_client_key=pair.key,
        tls_server_name="temporal.example",
    )
    made = tls_config(whole)
    assert not isinstance(made, bool)
    assert made.server_root_ca_cert == authority.certificate.encode()
    assert (made.client_cert, made.client_private_key) == (pair.certificate.encode(), pair.key.encode())
    assert made.domain == "temporal.example"
    ends = whole.certificate_ends()
    assert ends is not None
    assert ends > datetime.now(UTC)
    assert pair.key not in repr(whole)


def test_certificates_and_keys_come_from_files(environ: pytest.MonkeyPatch, pair: Pair, tmp_path: Path) -> None:
    files = {
        "TLS_CLIENT_CERT": pair.certificate,
        "TLS_CLIENT_KEY": pair.key,
        "PAYLOAD_KEYS": f"{'a' * 64}\n{'b' * 64}\n",
    }
    environ.setenv("HOTSWAP_TEMPORAL__TLS", "true")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        environ.setenv(f"HOTSWAP_TEMPORAL__{name}_FILE", str(tmp_path / name))
    settings = load_settings().temporal
    assert settings.payload_key_bytes() == (bytes.fromhex("a" * 64), bytes.fromhex("b" * 64))
    assert settings.tls_client_cert == pair.certificate.strip()
    environ.setenv("HOTSWAP_TEMPORAL__TLS_CA_FILE", str(tmp_path / "gone.pem"))
    (line,) = faults()
    assert line.startswith("HOTSWAP_TEMPORAL__TLS_CA_FILE: cannot read")
    assert "gone.pem" in line


@pytest.mark.usefixtures("environ")
def test_each_mistake_is_named_with_its_remedy(authority: Authority, pair: Pair) -> None:
    encrypted = (
        load_pem_private_key(pair.key.encode(), None)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
        .decode()
    )
    stranger = authority.issue("another")
    both = {"tls": True, "tls_client_cert": pair.certificate, "tls_client_key": pair.key}
    for given, said in (
        ({"tls_ca": authority.certificate}, "HOTSWAP_TEMPORAL__TLS_CA is set but HOTSWAP_TEMPORAL__TLS is not true"),
        ({"tls": True, "tls_client_cert": pair.certificate}, "HOTSWAP_TEMPORAL__TLS_CLIENT_KEY is not set"),
        ({"tls": True, "tls_client_key": pair.key}, "HOTSWAP_TEMPORAL__TLS_CLIENT_CERT is not set"),
        (both | {"tls_client_key": stranger.key}, "is not the key of the first certificate"),
        (both | {"tls_client_key": encrypted}, "is encrypted: decrypt it"),
        (both | {"tls_client_key": "text"}, "holds no private key in PEM"),
        (both | {"tls_client_cert": "text"}, "holds no certificate in PEM"),
        ({"payload_keys": f"{'a' * 64} short"}, "key 2 must be 32 random bytes in base64 or hex"),
        ({"workflow_pollers": 1}, "greater than or equal to 2"),
    ):
        with pytest.raises(ValidationError) as refused:
            TemporalSettings(**given)
        assert said in str(refused.value)
        assert pair.key not in str(refused.value)


def test_a_group_s_contradiction_is_one_line_among_the_faults(environ: pytest.MonkeyPatch, pair: Pair) -> None:
    environ.setenv("HOTSWAP_TEMPORAL__TLS_CLIENT_CERT", pair.certificate)
    environ.setenv("HOTSWAP_TEMPORAL__TLS", "true")
    assert faults() == [
        "HOTSWAP_TEMPORAL: mTLS needs a certificate and its key: HOTSWAP_TEMPORAL__TLS_CLIENT_KEY is not set"
    ]
