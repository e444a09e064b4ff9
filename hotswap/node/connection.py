"""One client's HTTP/1.1 connection to the router: bytes in, parsed requests out, answers in the order of the requests.

Only `POST /invoke/{tenant}/{plugin}/{method}`, so there is no framework here. The peer is hostile: every size, every wait
and every queue is bounded. Neighbours: hotswap.node.router judges each request's head (`admit`) and carries it out
(`dispatch`); hotswap.node.answers makes the bytes.
"""

import array
import asyncio
import fcntl
import termios
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from hotswap.node.exchange import Exchange
from hotswap.node.refusals import Refusal

if TYPE_CHECKING:
    from hotswap.node.router import Router

_KEPT = frozenset({b"authorization", b"content-length", b"traceparent", b"expect", b"host", b"connection"})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_NO_TARGET = ("", "", "")

MAX_QUEUED = 16
"""Pipelined requests parsed ahead of the one being served; then reading stops."""

_MALFORMED = Refusal(400, "VALIDATION_ERROR", "the request is not valid HTTP/1.1; the connection is closed", close=True)
_NO_UPGRADE = Refusal(400, "VALIDATION_ERROR", "this port speaks HTTP/1.1 only; send no Upgrade header", close=True)
_HEAD_TOO_LARGE = Refusal(431, "PAYLOAD_TOO_LARGE", "the request's header fields are too large", close=True)
_TOO_SLOW = Refusal(408, "TIMEOUT", "the request did not arrive whole in time", close=True)


class Connection(asyncio.Protocol):
    """Requests of one connection are carried out one after another: what a client pipelines happens in its order."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_closed_for_input",
        "_current",
        "_head_bytes",
        "_headers",
        "_in_head",
        "_linger_since",
        "_parser",
        "_paused_since",
        "_pumping",
        "_queue",
        "_queued_bytes",
        "_reading",
        "_refusal",
        "_router",
        "_since",
        "_target",
        "_transport",
        "_url",
        "address",
    )

    def __init__(self, router: "Router") -> None:
        self._router = router
        self._transport: Any = None
        self.address = ""
        """The client's, without its port."""
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._queued_bytes = 0
        self._current: Exchange | None = None
        self._pumping = False
        self._since = router.now()
        """When the present quiet or the present request's arrival began."""
        self._paused_since = 0.0
        self._linger_since = 0.0
        self._closed_for_input = False
        self._reading = False
        """A request has begun to arrive and is not whole yet."""
        self._in_head = False
        self._head_bytes = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._target = _NO_TARGET
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._refusal: Refusal | None = None

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        refusal = self._router.opened(self)
        if refusal is not None:
            self._enqueue_refusal(refusal)
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._router.gone(self)
        self._closed_for_input = True
        self._queue.clear()
        current, self._current = self._current, None
        if current is not None:
            self._router.abandon(current)

    def eof_received(self) -> bool:
        """A half-closed client still gets the answers to what it sent whole."""
        self._closed_for_input = True
        if self._current is None and not self._queue:
            return False
        last = self._queue[-1] if self._queue else self._current
        if last is not None:
            last.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        if self._closed_for_input:
            return
        head_went_on = self._in_head and self._reading
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end_input(None)  # CONNECT: refused by now; what follows is no HTTP
        except httptools.HttpParserError:
            self._end_input(_MALFORMED)
        else:
            if self._reading and self._in_head and not self._closed_for_input:
                if head_went_on:
                    self._head_bytes += len(data)
                if self._head_bytes > self._router.limits.head_bytes:
                    self._end_input(_HEAD_TOO_LARGE)
        self._pump()

    def pause_writing(self) -> None:
        self._paused_since = self._router.now()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused_since = 0.0
        self._pump()

    # -- httptools callbacks -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._closed_for_input:
            self._begin()
            self._since = self._router.now()

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: nothing in it may count as a header
        self._head_bytes += len(name) + len(value)
        key = name.lower()
        if key in _KEPT:
            if key in self._headers and key != b"connection":
                self._refusal = _MALFORMED  # two of these: readers disagree on which counts
            self._headers[key] = value

    def on_headers_complete(self) -> None:
        if self._closed_for_input:
            return
        self._in_head = False
        headers = self._headers
        limits = self._router.limits
        if self._head_bytes + len(self._url) > limits.head_bytes:
            self._end_input(_HEAD_TOO_LARGE)
            return
        if self._refusal is None and b"host" not in headers and self._parser.get_http_version() == "1.1":
            self._refusal = _MALFORMED
        if self._refusal is None and b"connection" in headers and self._parser.should_upgrade():
            self._refusal = _NO_UPGRADE  # httptools would skip the body
        if self._refusal is not None:
            self._end_input(self._refusal)
            return
        judged = self._router.admit(self._parser.get_method(), self._url, headers)
        if isinstance(judged, Refusal):
            self._refusal = judged
        else:
            self._target = judged
        length = headers.get(b"content-length")
        if length is not None and int(length) > limits.body_bytes:
            self._end_input(self._router.too_large)
        elif b"expect" in headers:
            if self._refusal is not None:
                self._end_input(self._refusal)  # refused before the body was sent, which is what Expect is for
            elif self._current is None and not self._queue and not self._transport.is_closing():
                self._transport.write(_CONTINUE)

    def on_body(self, data: bytes) -> None:
        if self._closed_for_input:
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._router.limits.body_bytes:
            self._end_input(self._router.too_large)
        elif self._refusal is None:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self._closed_for_input:
            return
        self._reading = False
        body = self._body
        exchange = Exchange(self._router, self, self._target, body[0] if len(body) == 1 else b"".join(body))
        exchange.traceparent = self._headers.get(b"traceparent", b"")
        exchange.refusal = self._refusal
        keep_alive = self._parser.should_keep_alive()
        if keep_alive and b"connection" in self._headers and self._parser.get_http_version() == "1.0":
            exchange.old_keep_alive = True
        exchange.keep_alive = keep_alive
        if not keep_alive:
            self._closed_for_input = True
        self._queue.append(exchange)
        self._queued_bytes += self._body_bytes

    # -- order and flow ------------------------------------------------------------------------------------------

    def complete(self, exchange: Exchange, answer: bytes) -> None:
        """Send the answer to the request being served and go on with the next. `answer` is the whole response."""
        if exchange is not self._current:
            return  # the client has gone
        self._current = None
        self._since = self._router.now()
        transport = self._transport
        if transport.is_closing():
            return  # writing to a closed uvloop transport raises
        transport.write(answer)
        if not exchange.keep_alive:
            self._linger()
        elif not self._pumping:
            self._pump()

    def is_last(self) -> bool:
        """Whether nothing more has arrived after the request being served, not even in part."""
        return not self._queue and not self._reading

    def check(self, now: float) -> None:
        """Cut a client that is too slow or too quiet. Called about every second."""
        limits = self._router.limits
        if self._paused_since:
            if now - self._paused_since > limits.write_seconds:
                self._transport.abort()
        elif self._linger_since:
            if now - self._linger_since > limits.linger_seconds:
                self._transport.abort()
        elif self._current is None and not self._queue:
            if self._reading:
                if now - self._since > limits.read_seconds:
                    self._end_input(_TOO_SLOW)
                    self._pump()
            elif now - self._since > limits.idle_seconds:
                self._transport.close()

    def close_if_idle(self) -> None:
        """Part of draining: a connection with nothing under way has no reason to stay. A request that is in the kernel's
        buffer already is under way, and so is an answer that lingers: closing would reset the client.
        """
        is_idle = self._current is None and not self._queue and not self._reading and not self._linger_since
        if is_idle and not self._transport.is_closing() and not self._unread():
            self._transport.close()

    def _unread(self) -> int:
        """Bytes in the kernel's buffer."""
        there = array.array("i", [0])
        fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.FIONREAD, there)
        return there[0]

    def abort(self) -> None:
        self._transport.abort()

    def _begin(self) -> None:
        self._reading = True
        self._in_head = True
        self._head_bytes = 0
        self._url = b""
        self._headers = {}
        self._target = _NO_TARGET
        self._body = []
        self._body_bytes = 0
        self._refusal = None

    def _pump(self) -> None:
        """Serve what is queued, one at a time. Not re-entered: an answer that comes at once only returns to the loop."""
        if self._pumping:
            return
        self._pumping = True
        queue = self._queue
        while queue and self._current is None and not self._paused_since and not self._linger_since:
            exchange = queue.popleft()
            self._queued_bytes -= len(exchange.body)
            self._current = exchange
            self._router.dispatch(exchange)
        self._pumping = False
        if not queue:
            self._queued_bytes = 0
        if self._transport.is_closing() or self._paused_since:
            return
        if len(queue) >= MAX_QUEUED or self._queued_bytes > self._router.limits.body_bytes:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _end_input(self, refusal: Refusal | None) -> None:
        """Parse no more. The refusal, if any, is the answer after those already queued, and the last."""
        if self._closed_for_input:
            return
        self._closed_for_input = True
        self._reading = False
        if refusal is not None:
            self._enqueue_refusal(refusal)
        elif self._queue:
            self._queue[-1].keep_alive = False
        elif self._current is not None:
            self._current.keep_alive = False

    def _enqueue_refusal(self, refusal: Refusal) -> None:
        self._closed_for_input = True
        exchange = Exchange(self._router, self, _NO_TARGET, b"")
        exchange.refusal = refusal
        exchange.keep_alive = False
        exchange.traceparent = self._headers.get(b"traceparent", b"")
        self._queue.append(exchange)

    def _linger(self) -> None:
        """Close so that the last answer arrives: end our side, swallow what still comes, cut after a moment.

        Closing with unread input would reset the connection and could take the answer with it (RFC 9112, 9.6).
        """
        self._closed_for_input = True
        self._queue.clear()
        self._linger_since = self._router.now()
        transport = self._transport
        try:
            transport.write_eof()
        except OSError:  # the client has reset the connection meanwhile
            transport.abort()
            return
        if not transport.is_reading():
            transport.resume_reading()
