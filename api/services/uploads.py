"""Takes a multipart upload from the wire to disk without holding it in memory: hashed and limited while it streams.

Neighbours: python_multipart parses, api.services.versions judges what came. Everything received is hostile.
"""

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from hotswap.domain.errors import ArtifactTooLarge, FieldFault, InvalidInput
from hotswap.domain.manifest import MAX_MANIFEST_BYTES

if TYPE_CHECKING:  # the library defines it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELD_BYTES = MAX_MANIFEST_BYTES
"""Longest text field: the manifest is the largest."""

OVERHEAD_BYTES = 4 * MAX_FIELD_BYTES
"""What a whole request may hold beside the binary: text fields, part headers, boundaries."""

WRITE_BYTES = 1024 * 1024
"""Bytes gathered before a thread writes and hashes them, so that neither blocks the event loop."""

IDLE_SECONDS = 30.0
"""An upload that sends nothing for so long is given up: it holds a connection and a file."""

LEFT_BEHIND = timedelta(hours=1)
"""Scratch directories older than this were left by a process that was killed."""

TEXT_FIELDS = frozenset({"version", "releaseNotes", "manifest", "digest", "signature", "keyId", "draft"})
BINARY_FIELD = "binary"
UPLOADS, DOWNLOADS = "uploads", "downloads"
"""Directories under the work directory."""


@dataclass
class Upload:
    """What came: text fields by name, and the binary on disk with its SHA-256."""

    path: Path
    fields: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    size_bytes: int = 0


def sweep(work_dir: Path) -> int:
    """Remove what killed processes left under `work_dir`; returns how many directories. Blocks: call it in a thread."""
    oldest = time.time() - LEFT_BEHIND.total_seconds()
    swept = 0
    for directory in (*(work_dir / UPLOADS).glob("*"), *(work_dir / DOWNLOADS).glob("*")):
        with contextlib.suppress(FileNotFoundError):  # another api sweeps as well
            if directory.stat().st_mtime < oldest:
                shutil.rmtree(directory)
                swept += 1
    return swept


@asynccontextmanager
async def received_upload(
    content_type: str, content_length: str | None, stream: AsyncIterator[bytes], work_dir: Path, max_bytes: int
) -> AsyncIterator[Upload]:
    """The upload, on disk until the block is left.

    Raises ArtifactTooLarge (before reading when Content-Length tells, else at the first byte too many) and
    InvalidInput naming the field for everything else.
    """
    boundary = _boundary(content_type)
    if content_length and content_length.isdigit() and int(content_length) > max_bytes + OVERHEAD_BYTES:
        raise _too_large(max_bytes)
    with scratch(work_dir / UPLOADS) as directory:
        upload = Upload(directory / "binary.zip")
        with upload.path.open("xb") as target:
            await _Receiver(upload, target, boundary, max_bytes).receive(stream)
        yield upload


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A fresh directory under `parent` until the block is left."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        yield Path(directory)


class _Receiver:
    """One pass over the request's body. The parser calls back for each part, the loop flushes what has gathered."""

    def __init__(self, upload: Upload, target: IO[bytes], boundary: bytes, max_bytes: int) -> None:
        self._upload = upload
        self._target = target
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._gathered = bytearray()
        self._text = bytearray()
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._name = ""
        self._seen: set[str] = set()
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        try:
            self._parser = python_multipart.MultipartParser(boundary, callbacks)
        except FormParserError as fault:
            raise InvalidInput(f"Content-Type: {fault}", [FieldFault("Content-Type", str(fault))]) from None

    async def receive(self, stream: AsyncIterator[bytes]) -> None:
        received = 0
        try:
            async for chunk in _unless_idle(stream):
                received += len(chunk)
                if received > self._max_bytes + OVERHEAD_BYTES:
                    raise _too_large(self._max_bytes)
                self._parser.write(chunk)
                if len(self._gathered) >= WRITE_BYTES:
                    await self._flush()
            self._parser.finalize()
        except FormParserError as fault:
            raise InvalidInput(
                f"the multipart body is broken: {fault}",
                [FieldFault("(body)", "must be well-formed multipart/form-data")],
            ) from None
        await self._flush()
        if not self._ended:
            raise InvalidInput(
                "the multipart body ends early",
                [FieldFault("(body)", "must end with its closing boundary; send it again")],
            )
        if BINARY_FIELD not in self._seen:
            raise InvalidInput("binary: is required", [FieldFault("binary", "is required: the plugin's zip")])
        if not self._upload.size_bytes:
            raise InvalidInput("binary: is empty", [FieldFault("binary", "is empty; send the plugin's zip")])
        self._upload.digest = self._hash.hexdigest()

    async def _flush(self) -> None:
        if self._gathered:
            content, self._gathered = bytes(self._gathered), bytearray()
            await asyncio.to_thread(self._store, content)

    def _store(self, content: bytes) -> None:
        self._hash.update(content)
        self._target.write(content)

    def _on_part_begin(self) -> None:
        self._disposition, self._name = b"", ""
        self._text.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")[:100]
        if self._name != BINARY_FIELD and self._name not in TEXT_FIELDS:
            known = ", ".join(sorted({BINARY_FIELD, *TEXT_FIELDS}))
            raise _field_fault(self._name or "(unnamed)", f"is not a known field; known: {known}")
        if self._name in self._seen:
            raise _field_fault(self._name, "is given twice")
        self._seen.add(self._name)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == BINARY_FIELD:
            self._upload.size_bytes += end - start
            if self._upload.size_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            self._gathered += data[start:end]
        else:
            if len(self._text) + end - start > MAX_FIELD_BYTES:
                raise _field_fault(self._name, f"is longer than {MAX_FIELD_BYTES} bytes")
            self._text += data[start:end]

    def _on_part_end(self) -> None:
        if self._name != BINARY_FIELD:
            try:
                text = self._text.decode("utf-8")
            except UnicodeDecodeError:
                raise _field_fault(self._name, "is not UTF-8") from None
            if "\x00" in text:
                raise _field_fault(self._name, "holds a NUL character")
            self._upload.fields[self._name] = text

    def _on_end(self) -> None:
        self._ended = True


async def _unless_idle(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            message = f"the upload stood still for {IDLE_SECONDS:g} s; send it again"
            raise InvalidInput(message, [FieldFault("(body)", message)]) from None
        yield chunk


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidInput(
            "the request must be multipart/form-data",
            [
                FieldFault(
                    "Content-Type",
                    "must be multipart/form-data with a boundary; fields: version, releaseNotes, manifest, digest, signature, keyId, draft, binary",
                )
            ],
        )
    return boundary


def _field_fault(name: str, message: str) -> InvalidInput:
    return InvalidInput(f"{name}: {message}", [FieldFault(name, message)])


def _too_large(max_bytes: int) -> ArtifactTooLarge:
    return ArtifactTooLarge(
        f"the binary is over {max_bytes} bytes, the limit of an upload through the api; make the plugin smaller, "
        "or send it to the object store: POST .../versions/presigned (hotswap plugin push does it by itself)"
    )
