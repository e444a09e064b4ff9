"""A TLS endpoint in front of a plain server, with certificates made for the test: real handshakes, mutual where asked."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: str
    key: str


class Authority:
    """Signs certificates that hold for an hour."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = self._certificate(name, self._key, authority=True).sign(self._key, hashes.SHA256())
        self.certificate = made.public_bytes(Encoding.PEM).decode()

    def issue(self, name: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._certificate(name, key).sign(self._key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Pair(made.public_bytes(Encoding.PEM).decode(), private.decode())

    def _certificate(
        self, name: str, key: ec.EllipticCurvePrivateKey, authority: bool = False
    ) -> x509.CertificateBuilder:
        begins = datetime.now(UTC) - timedelta(minutes=5)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )


@asynccontextmanager
async def tls_in_front_of(target: str, pair: Pair, clients: Authority, scratch: Path) -> AsyncIterator[str]:
    """`127.0.0.1:port` of a TLS endpoint that passes bytes on to `target`, for clients with a certificate of `clients`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=clients.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    for name, text in (("server.pem", pair.certificate), ("server.key", pair.key)):
        await asyncio.to_thread((scratch / name).write_text, text)
    context.load_cert_chain(scratch / "server.pem", scratch / "server.key")
    host, _, port = target.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pass(reader, behind_writer), _pass(behind_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        writer.close()
