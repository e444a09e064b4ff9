"""Frames between a node and a plugin host: 12 bytes of header, then a payload that is never parsed on the way.

Pure: bytes in, bytes out, standard library only (the zygote imports it without site-packages). hotswap.runtime.handle
speaks the node's side, hotswap.runtime.host the plugin's. The node must expect any bytes from a host: the decoder has
hard caps and every fault is a FrameError.

Header, network order: payload length u32, request id u32, kind u16, flags u16 (0: none is defined yet).
CALL payload: method length u8, tenant length u8, traceparent length u8 (0: none), a zero byte, deadline u64, then method,
tenant, traceparent, JSON body. The deadline is an instant, microseconds of CLOCK_MONOTONIC, which node and host share: the
time a call waits in the channel counts.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

HEADER = struct.Struct("!IIHH")
CALL_HEAD = struct.Struct("!BBBxQ")
MAX_NAME_BYTES = 255
MAX_DEADLINE_US = 2**63 - 1
TRACEPARENT_BYTES = 55
"""Length of a W3C traceparent of version 00, the only one there is. Anything else is not passed on."""
MAX_FAULT_BYTES = 64 * 1024
"""Longest payload of any frame that is not a result or a call."""
MAX_MESSAGE_CHARS = 2000
MAX_KIND_CHARS = 200
REQUEST_ID_MASK = 2**32 - 1

WATERMARK = struct.Struct("=I")
"""Shared memory at a line's offset 0: the id of the last of its requests the host began. The plugin never saw a later one."""
BEGUN = struct.Struct("=I")
BEGUN_AT = 4
"""At a line's offset 4: how many of its CALLs the host has begun or refused, modulo 2^32. What was sent beyond waits there."""
ANSWERED = struct.Struct("=I")
ANSWERED_AT = 8
"""At a line's offset 8, for lines of routers: how many of its CALLs were answered, modulo 2^32."""
WATERMARK_BYTES = 4096
LINE_BYTES = 64
"""These words are there once for each line (channel) of a host, a cache line apart: see `marks_at`."""
MAX_LINES = WATERMARK_BYTES // LINE_BYTES

EXIT_MEMORY = 83
"""Exit code of a host that could not go on for lack of memory."""
EXIT_LOAD = 84
"""Exit code of a host that said FAILED."""


class Kind(IntEnum):
    """What a frame is. The first three come once each, before any call."""

    ISOLATED = 1
    """Host to node: the sandbox holds; nothing of the plugin has run yet."""
    READY = 2
    """Host to node: imported and constructed."""
    FAILED = 3
    """Host to node: could not load. Payload: a Fault."""
    CALL = 4
    """Node to host."""
    RESULT = 5
    """Host to node. Payload: the result as JSON."""
    ERROR = 6
    """Host to node. Payload: a Fault."""
    PING = 7
    """Node to host."""
    PONG = 8
    """Host to node."""
    CANCEL = 9
    """Node to host: nobody waits for this id any more. It is still answered."""
    CLOSE = 10
    """Node to host: run the plugin's `close` and exit."""
    SETTINGS = 11
    """Node to host: a tenant's configuration and secrets from here on, or the manifest's defaults. Payload: Settings."""


class FrameError(Exception):
    """The peer broke framing. The channel cannot be trusted again; a host that does it is killed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call has no result; the fields mean what they mean in hotswap.ports.hosts.Reply."""

    message: str
    kind: str = ""
    limit: str = ""
    unknown_method: bool = False
    invalid: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """`traceparent` is what the caller sent, by its length plausible and not looked at further; b"" = none."""

    method: str
    tenant: str
    deadline_us: int
    body: bytes
    traceparent: bytes = b""


def marks_at(line: int) -> int:
    """Where in shared memory the words of a line are. 0 is the node's own, further ones are routers' (HostSpec.lines)."""
    return line * LINE_BYTES


def encode(request_id: int, kind: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), request_id, kind, 0) + payload


def encode_call(
    request_id: int, method: bytes, tenant: bytes, deadline_us: int, body: bytes, traceparent: bytes = b""
) -> bytes:
    """One CALL frame. `method` and `tenant` are UTF-8; they and `traceparent` have at most MAX_NAME_BYTES each."""
    length = CALL_HEAD.size + len(method) + len(tenant) + len(traceparent) + len(body)
    return b"".join(
        (
            HEADER.pack(length, request_id, Kind.CALL, 0),
            CALL_HEAD.pack(len(method), len(tenant), len(traceparent), deadline_us),
            method,
            tenant,
            traceparent,
            body,
        )
    )


def decode_call(payload: bytes) -> Call:
    """Raises FrameError when the payload is shorter than it says or a name is not UTF-8."""
    try:
        method_length, tenant_length, trace_length, deadline_us = CALL_HEAD.unpack_from(payload)
        tenant_at = CALL_HEAD.size + method_length
        trace_at = tenant_at + tenant_length
        body_at = trace_at + trace_length
        method = payload[CALL_HEAD.size : tenant_at].decode()
        tenant = payload[tenant_at:trace_at].decode()
    except (UnicodeDecodeError, struct.error) as fault:
        raise FrameError(f"a CALL cannot be read: {fault}") from None
    if body_at > len(payload):
        raise FrameError(f"a CALL says its names end at byte {body_at} of {len(payload)}")
    return Call(method, tenant, deadline_us, payload[body_at:], payload[trace_at:body_at])


@dataclass(frozen=True, slots=True)
class Settings:
    """A tenant's, `config` None = it has none (any more). Tenant "" stands for the defaults of all; they come first."""

    tenant: str
    version: int
    config: dict[str, Any] | None
    secrets: dict[str, str] = field(repr=False)


def encode_settings(tenant: str, version: int, config: Mapping[str, Any] | None, secrets: Mapping[str, str]) -> bytes:
    """One SETTINGS frame."""
    fields = {"tenant": tenant, "version": version, "config": config, "secrets": secrets}
    return encode(0, Kind.SETTINGS, json.dumps(fields, separators=(",", ":")).encode())


def decode_settings(payload: bytes) -> Settings:
    """Raises FrameError; its text holds nothing of the payload."""
    try:
        return Settings(**json.loads(payload))
    except (ValueError, TypeError, RecursionError):
        raise FrameError("a SETTINGS cannot be read") from None


def encode_fault(fault: Fault) -> bytes:
    """JSON of the fault with its texts cut to their caps, so that it always fits MAX_FAULT_BYTES."""
    fields = asdict(fault)
    fields["message"] = fault.message[:MAX_MESSAGE_CHARS]
    fields["kind"] = fault.kind[:MAX_KIND_CHARS]
    return json.dumps(fields).encode("ascii")


def decode_fault(payload: bytes) -> Fault:
    """Raises FrameError unless the payload is a JSON object with just the fields of Fault, of the right types."""
    try:
        fields = json.loads(payload)
        fault = Fault(**fields)
    except (ValueError, TypeError, RecursionError) as error:
        raise FrameError(f"a fault cannot be read: {str(error)[:200]}") from None
    texts = (fault.message, fault.kind, fault.limit)
    flags = (fault.unknown_method, fault.invalid)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(flag, bool) for flag in flags):
        raise FrameError("a fault has a field of the wrong type")
    return Fault(
        printable(fault.message)[:MAX_MESSAGE_CHARS],
        printable(fault.kind)[:MAX_KIND_CHARS],
        printable(fault.limit)[:MAX_KIND_CHARS],
        fault.unknown_method,
        fault.invalid,
    )


def printable(text: str) -> str:
    """Outside text without lone surrogates and without control characters other than line feed and tab."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in clean)


class FrameDecoder:
    """Cuts a byte stream into frames. Never holds more than one frame of `max_payload` bytes and the last chunk fed.

    `kinds` are the kinds the peer may send, each with the largest payload it may have (bytes).
    """

    __slots__ = ("_caps", "_pending")

    def __init__(self, caps: dict[int, int]) -> None:
        self._caps = caps
        self._pending = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame held now."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames completed by `data`, as (request id, kind, payload). Raises FrameError; the decoder is then useless.

        Frames that came whole before a broken header in the same chunk are lost with it, which is safe: the host dies.
        """
        if self._pending:
            self._pending += data
            if len(self._pending) < self._needed():
                return []
            data = bytes(self._pending)
            self._pending.clear()
        frames = []
        at = 0
        end = len(data)
        while end - at >= 12:
            length, request_id, kind, flags = HEADER.unpack_from(data, at)
            self._check(length, kind, flags)
            stop = at + 12 + length
            if stop > end:
                break
            frames.append((request_id, kind, data[at + 12 : stop]))
            at = stop
        if at < end:
            self._pending += data[at:] if at else data
        return frames

    def _needed(self) -> int:
        """Bytes until a frame can be cut from what is pending: a header, or the whole frame once the header is there."""
        if len(self._pending) < 12:
            return 12
        length, _, kind, flags = HEADER.unpack_from(self._pending)
        self._check(length, kind, flags)
        return 12 + int(length)

    def _check(self, length: int, kind: int, flags: int) -> None:
        cap = self._caps.get(kind)
        if cap is None:
            raise FrameError(f"a frame of kind {kind} is not allowed here")
        if length > cap:
            raise FrameError(f"a frame of kind {kind} says {length} bytes; at most {cap} are allowed")
        if flags:
            raise FrameError(f"a frame has unknown flags {flags:#x}")


def host_caps(max_reply_bytes: int) -> dict[int, int]:
    """What a node accepts from a host."""
    return {
        Kind.ISOLATED: 0,
        Kind.READY: 0,
        Kind.FAILED: MAX_FAULT_BYTES,
        Kind.RESULT: max_reply_bytes,
        Kind.ERROR: MAX_FAULT_BYTES,
        Kind.PONG: 0,
    }


def node_caps() -> dict[int, int]:
    """What a host accepts from its node, which it trusts: the router has bounded the body already."""
    return {Kind.CALL: 2**31, Kind.SETTINGS: 2**31, Kind.PING: 0, Kind.CANCEL: 0, Kind.CLOSE: 0}
