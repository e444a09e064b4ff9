"""Embedded S3: SeaweedFS in one process, one identity with generated keys, one bucket with versioning.

Every port is given, because the defaults bind all interfaces; buckets are made here only, never by an upload.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.error import MinioException
from minio.versioningconfig import VersioningConfig

from hotswap.embedded import http_probe
from hotswap.embedded.binaries import SEAWEEDFS, Binary, resolve
from hotswap.embedded.data_dir import DataDir, write_private
from hotswap.embedded.parts import NotReady, Part
from hotswap.embedded.ports import LOOPBACK, Ports
from hotswap.embedded.servers import clean_environment

log = logging.getLogger(__name__)

ENDPOINT = "HOTSWAP_MINIO__ENDPOINT"
ACCESS_KEY = "HOTSWAP_MINIO__ACCESS_KEY"
SECRET_KEY = "HOTSWAP_MINIO__SECRET_KEY"  # noqa: S105 - a variable's name
BUCKET = "HOTSWAP_MINIO__BUCKET"
TLS = "HOTSWAP_MINIO__TLS"

DEFAULT_BUCKET = "plugins"
REGION = "us-east-1"
"""Any name does; naming one saves the client a request that asks for it."""

SERVICES = ("master", "volume", "filer", "s3", "admin")
SOCKETS = (Path("/tmp"), "seaweedfs-*.sock")  # noqa: S108 - weed's choice
"""Where weed makes a Unix socket for each of its ports, whatever it is told; some stay behind when it ends."""


class SeaweedServer:
    name = "seaweedfs"
    ports: tuple[str, ...] = tuple(f"seaweedfs-{name}{kind}" for name in SERVICES for kind in ("", "-grpc"))

    def __init__(self, data: DataDir, ports: Ports) -> None:
        self._data = data
        self._ports = ports

    @cached_property
    def binary(self) -> Binary:
        return resolve(SEAWEEDFS)

    async def prepare(self) -> Part:
        folder = self._data.folder(self.name)
        identities = self._data.root / "seaweedfs.json"
        write_private(identities, json.dumps({"identities": [self._identity()]}))
        options = {
            "dir": str(folder),
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "s3.config": str(identities),
            "s3.autoCreateBucket": "false",
            "s3.allowDeleteBucketNotEmpty": "false",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "master.telemetry": "false",
            "admin.ui": "false",
            "webdav": "false",
            "volume.preStopSeconds": "0",
        }
        for service in SERVICES:
            options[f"{service}.port"] = str(self._ports[f"seaweedfs-{service}"])
            options[f"{service}.port.grpc"] = str(self._ports[f"seaweedfs-{service}-grpc"])
        return Part(
            name=self.name,
            command=(
                str(self.binary.path),
                "-logtostderr=true",
                "mini",
                "-disableHttp",
                *(f"-{name}={value}" for name, value in options.items()),
            ),
            environment=clean_environment(self._data.root, GOMEMLIMIT="400MiB"),
            log=self._data.log(self.name),
            probe=self._probe,
            address=self._endpoint,
            before_start=remove_dead_sockets,
            after_stop=remove_dead_sockets,
            stop_grace=timedelta(seconds=10),
        )

    async def provision(self) -> None:
        await asyncio.to_thread(create_bucket, self.settings())

    def settings(self) -> dict[str, str]:
        return {
            ENDPOINT: self._endpoint,
            ACCESS_KEY: self._data.secret("s3-access-key"),
            SECRET_KEY: self._data.secret("s3-secret-key"),
            BUCKET: DEFAULT_BUCKET,
            TLS: "false",
        }

    @property
    def _endpoint(self) -> str:
        return f"{LOOPBACK}:{self._ports['seaweedfs-s3']}"

    def _identity(self) -> dict[str, object]:
        settings = self.settings()
        return {
            "name": "hotswap",
            "credentials": [{"accessKey": settings[ACCESS_KEY], "secretKey": settings[SECRET_KEY]}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }

    async def _probe(self) -> None:
        await http_probe.request(self._ports["seaweedfs-s3"], "/healthz")
        await asyncio.to_thread(_list_buckets, self.settings())


def remove_dead_sockets() -> None:
    """Remove this user's SeaweedFS sockets that nobody listens on: of this stack, and of stacks that were killed."""
    folder, pattern = SOCKETS
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if path.lstat().st_uid != os.getuid() or not path.is_socket():
                continue
            probe.settimeout(1)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError as fault:
                log.info("left %s alone: %s", path, fault)


def create_bucket(settings: dict[str, str]) -> None:
    """Make the bucket, with versioning on, where it is missing. Works on any S3 endpoint. Blocks."""
    bucket = settings.get(BUCKET, DEFAULT_BUCKET)
    with _pool() as pool:
        client = _client(settings, pool)
        if not client.bucket_exists(bucket):
            client.make_bucket(bucket)
        if client.get_bucket_versioning(bucket).status != ENABLED:
            client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))


def _list_buckets(settings: dict[str, str]) -> None:
    with _pool() as pool:
        try:
            _client(settings, pool).list_buckets()
        except (MinioException, urllib3.exceptions.HTTPError, ValueError) as fault:
            raise NotReady(f"{type(fault).__name__}: {fault}"[:300]) from None


def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=4), retries=False)


def _client(settings: dict[str, str], pool: urllib3.PoolManager) -> Minio:
    return Minio(
        settings[ENDPOINT],
        access_key=settings[ACCESS_KEY],
        secret_key=settings[SECRET_KEY],
        secure=settings.get(TLS, "false").lower() in {"true", "1", "yes", "on"},
        region=REGION,
        http_client=pool,
    )
