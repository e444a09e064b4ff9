"""Settings of Temporal: where it is, who we are to it, what it may read, how much a worker takes on. Part of hotswap.config.

Certificates and keys are given as text, so each comes from a file by its _FILE form. docs/temporal.md says what they mean
to an operator.
"""

from datetime import UTC, datetime
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import Field, SecretStr, field_validator, model_validator

from hotswap.config_access import SettingsGroup
from hotswap.identity.key_material import decode_key


class TemporalSettings(SettingsGroup):
    address: str = "127.0.0.1:7233"
    namespace: str = "default"
    task_queue: str = "hotswap"
    tls: bool = False
    tls_ca: str = Field(default="", description="PEM of who signed the server's certificate; empty = the machine's")
    tls_client_cert: str = Field(default="", description="PEM, ours first, then intermediates; mTLS")
    tls_client_key: SecretStr | None = Field(default=None, description="PEM, unencrypted; of tls_client_cert")
    tls_server_name: str = Field(
        default="", pattern=r"^[A-Za-z0-9.-]*$", description="name in the server's certificate; empty = as in address"
    )
    api_key: SecretStr | None = None
    payload_keys: SecretStr | None = Field(
        default=None,
        description="encrypt what Temporal stores: 32 bytes each in base64 or hex, separated by white space; the first "
        "encrypts, all decrypt. The same on api, worker and nodes",
    )
    ui_url: str = Field(default="", description="base URL of the Temporal Web UI, for links; empty = no links")
    build_id: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$|^$",
        description="this worker's build (docs/worker-builds.md); 'auto' = from its sources, empty = unversioned",
    )
    deployment_name: str = Field(default="hotswap", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")
    metrics_address: str = Field(
        default="",
        pattern=r"^[0-9A-Za-z.:\[\]-]+:[0-9]{1,5}$|^$",
        description="host:port where the worker's Temporal SDK serves its /metrics; empty = nowhere",
    )
    make_current: bool = Field(
        default=False, description="the worker makes its build current by itself: only where one build runs at a time"
    )
    # What one worker process takes on; docs/temporal.md says when to change these.
    cached_workflows: int = Field(default=1000, ge=0, le=100_000, description="kept in memory; 0 = replay every time")
    workflow_tasks: int = Field(default=100, ge=2, le=10_000, description="at once")
    activities: int = Field(default=100, ge=1, le=10_000, description="at once, executions of sandboxes apart")
    workflow_pollers: int = Field(default=5, ge=2, le=100, description="long polls for workflow tasks")
    activity_pollers: int = Field(default=5, ge=1, le=100)

    @field_validator("tls_ca", "tls_client_cert")
    @classmethod
    def _certificates(cls, pem: str) -> str:
        if pem:
            try:
                x509.load_pem_x509_certificates(pem.encode())
            except (ValueError, UnsupportedAlgorithm):
                raise ValueError("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
        return pem

    @field_validator("payload_keys")
    @classmethod
    def _are_keys(cls, given: SecretStr | None) -> SecretStr | None:
        for number, text in enumerate(given.get_secret_value().split() if given else (), 1):
            try:
                decode_key(text)
            except ValueError as fault:
                raise ValueError(f"key {number} {fault}") from None
        return given

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """What belongs together. The names are said whole: the fault is of the group."""
        given = [
            f"HOTSWAP_TEMPORAL__{name.upper()}"
            for name in ("tls_ca", "tls_client_cert", "tls_client_key", "tls_server_name")
            if getattr(self, name)
        ]
        if given and not self.tls:
            raise ValueError(f"{given[0]} is set but HOTSWAP_TEMPORAL__TLS is not true: set it, or unset {given[0]}")
        if bool(self.tls_client_cert) != (self.tls_client_key is not None):
            missing = "TLS_CLIENT_KEY" if self.tls_client_cert else "TLS_CLIENT_CERT"
            raise ValueError(f"mTLS needs a certificate and its key: HOTSWAP_TEMPORAL__{missing} is not set")
        if self.tls_client_key is not None:
            _check_pair(self.tls_client_cert, self.tls_client_key.get_secret_value())
        return self

    def payload_key_bytes(self) -> tuple[bytes, ...]:
        """The key that encrypts first; none = nothing is encrypted."""
        if self.payload_keys is None:
            return ()
        return tuple(decode_key(text) for text in self.payload_keys.get_secret_value().split())

    def certificate_ends(self) -> datetime | None:
        """When our client certificate runs out; None without one."""
        if not self.tls_client_cert:
            return None
        return x509.load_pem_x509_certificates(self.tls_client_cert.encode())[0].not_valid_after_utc.astimezone(UTC)


def _check_pair(certificate: str, key: str) -> None:
    try:
        private = load_pem_private_key(key.encode(), password=None)
    except TypeError:
        raise ValueError(
            "HOTSWAP_TEMPORAL__TLS_CLIENT_KEY is encrypted: decrypt it (openssl pkey -in FILE) and protect the file instead"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("HOTSWAP_TEMPORAL__TLS_CLIENT_KEY holds no private key in PEM") from None
    ours = x509.load_pem_x509_certificates(certificate.encode())[0].public_key()
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != ours.public_bytes(*form):
        raise ValueError(
            "HOTSWAP_TEMPORAL__TLS_CLIENT_KEY is not the key of the first certificate in "
            "HOTSWAP_TEMPORAL__TLS_CLIENT_CERT: give both of one pair"
        )
