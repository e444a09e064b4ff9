"""The bytes of the router's responses: results as they came from the host, errors in the specification's envelope.

Pure but for the clock and the random trace id of an error. Neighbours: hotswap.node.router decides which answer,
hotswap.node.connection sends it.
"""

import json
import re
import secrets
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus

from hotswap.domain.base import bounded
from hotswap.node.refusals import Refusal

_TRACEPARENT = re.compile(rb"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_NO_TRACE = "0" * 32


class Answers:
    """Response heads of one node, those of results cached by version."""

    def __init__(self, node_id: str) -> None:
        self._node = f"x-hotswap-node: {node_id}\r\n".encode()
        self._heads: dict[str, bytes] = {}
        self._date = b""
        self.tick()

    def tick(self) -> None:
        """Refresh the Date header; once a second is enough."""
        self._date = f"date: {formatdate(usegmt=True)}\r\ncontent-length: ".encode()

    def result(self, version: str, body: bytes, connection: bytes = b"") -> bytes:
        """A 200 with the host's JSON, untouched. `connection` is a whole header line or nothing."""
        head = self._heads.get(version)
        if head is None:
            head = self._heads[version] = b"".join(
                (
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n",
                    self._node,
                    f"x-hotswap-version: {version}\r\n".encode(),
                )
            )
        return b"%b%b%b%d\r\n\r\n%b" % (head, connection, self._date, len(body), body)

    def error(self, refusal: Refusal, version: str, traceparent: bytes, connection: bytes) -> bytes:
        """The specification's envelope. `version` is "" when none was chosen."""
        body = json.dumps(
            {
                "error": {
                    "code": refusal.code,
                    "message": bounded(refusal.message),
                    "details": [{"field": refusal.field, "message": bounded(refusal.message)}] if refusal.field else [],
                    "traceId": trace_id(traceparent),
                    "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                }
            }
        ).encode()
        status = HTTPStatus(refusal.status)
        return b"".join(
            (
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n".encode(),
                self._node,
                f"x-hotswap-version: {version}\r\n".encode() if version else b"",
                refusal.extra,
                connection,
                self._date,
                b"%d\r\n\r\n" % len(body),
                body,
            )
        )


def trace_id(traceparent: bytes) -> str:
    """The trace id of a W3C traceparent, or a fresh random one: an error can always be named."""
    found = _TRACEPARENT.match(traceparent)
    if found is not None and (given := found[1].decode()) != _NO_TRACE:
        return given
    return secrets.token_hex(16)
