"""A plugin's stdout and stderr on their way into the node's log: whole lines, a bounded rate, nothing that breaks a log.

Reads the pipe that hotswap.runtime.host writes without ever blocking. Past the budget the pipe is left unread, so the
host drops the rest by itself and a flood costs the node nothing. A line of hotswap_plugin.logs keeps its level, tenant and
trace; they are the plugin's word, as its text is. Secrets that its host was given are masked.
"""

import asyncio
import contextlib
import contextvars
import json
import logging
import os
import re
from collections.abc import Callable
from typing import Any

from hotswap.runtime.masking import SecretMask
from hotswap.runtime.protocol import printable
from hotswap_plugin.logs import MARK, MARK_KEY

logger = logging.getLogger("hotswap.plugin")

BYTES_PER_WINDOW = 64 * 1024
WINDOW_SECONDS = 1.0
LINE_COST_BYTES = 100
"""Charged for each line besides its bytes: a log record costs more than its text."""
MAX_LINE_CHARS = 2000
_MAX_LINE_BYTES = 4 * MAX_LINE_CHARS
"""Bytes of one line that are kept: 2000 characters of any script, and any record of hotswap_plugin.logs."""
_READ_BYTES = 16 * 1024
_LEVELS = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class PluginOutput:
    """Owns the reading end of the pipe. Belongs to one event loop. `told` hears every line besides the log."""

    def __init__(
        self,
        fd: int,
        plugin: str,
        version: str,
        loop: asyncio.AbstractEventLoop,
        mask: SecretMask | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._fd = fd
        self._told = told
        self._loop = loop
        self._facts = {"plugin": plugin, "version": version}
        self._mask = mask or SecretMask()
        self._partial = b""
        self._cut = False
        """The present line is past its cap and logged already; what still comes of it is left out."""
        self._budget = BYTES_PER_WINDOW
        self._window: asyncio.TimerHandle | None = None
        self.limited = False
        """Whether OUTPUT_LIMIT was ever hit."""
        # Out of the order that loads the host, whose trace and log fields every later line would bear.
        contextvars.Context().run(loop.add_reader, fd, self._readable)

    def close(self) -> None:
        """Log what is left in the pipe (within the budget) and close it. Repeats are fine."""
        if self._fd < 0:
            return
        while self._budget > 0 and self._read():
            pass
        self._end()

    def _readable(self) -> None:
        if self._read() == b"":
            self._end()
        elif self._budget <= 0:
            self._loop.remove_reader(self._fd)

    def _read(self) -> bytes | None:
        """What was read; b"" at the end of the pipe, None when nothing is there now."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            return data
        if self._window is None:
            self._window = self._loop.call_later(WINDOW_SECONDS, self._new_window)
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._budget -= len(data) + len(lines) * LINE_COST_BYTES
        for line in lines:
            self._log(line)
        if len(self._partial) > _MAX_LINE_BYTES:
            self._log(self._partial)
            self._partial = b""
            self._cut = True
        if self._budget <= 0:
            self.limited = True
            logger.warning(
                "OUTPUT_LIMIT: the plugin writes more than %d bytes in %.0f s; the rest is dropped",
                BYTES_PER_WINDOW,
                WINDOW_SECONDS,
                extra=self._facts,
            )
        return data

    def _new_window(self) -> None:
        self._window = None
        if self._budget <= 0:
            self._loop.add_reader(self._fd, self._readable)
        self._budget = BYTES_PER_WINDOW

    def _log(self, line: bytes) -> None:
        if self._cut:  # the rest of a line whose beginning was logged
            self._cut = False
            return
        line = line[:_MAX_LINE_BYTES]
        record = _record(line) if line.startswith(MARK) else None
        text, level, facts = record or (line.decode("utf-8", "replace"), logging.INFO, {})
        text = self._mask.clean(printable(text))  # before it is cut: a cut secret is not known any more
        if text:
            logger.log(level, "%s", text[:MAX_LINE_CHARS], extra=self._facts | facts)
            if self._told is not None:
                self._told(text[:MAX_LINE_CHARS])

    def _end(self) -> None:
        if self._partial and not self._cut:
            self._log(self._partial)
            self._partial = b""
        if self._window is not None:
            self._window.cancel()
            self._window = None
        with contextlib.suppress(ValueError, OSError):  # not registered: it was past its budget
            self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1


def _record(line: bytes) -> tuple[str, int, dict[str, str]] | None:
    """Text, level and facts of a line that hotswap_plugin.logs wrote; None when it did not, whatever it begins with."""
    try:
        fields: dict[str, Any] = json.loads(line)
        text, level = str(fields["message"]), _LEVELS[fields[MARK_KEY]]
        tenant, trace_id = str(fields.get("tenant", "")), str(fields.get("trace_id", ""))
        span_id = str(fields.get("span_id", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    facts = {}
    if _TENANT.fullmatch(tenant):
        facts["tenant"] = tenant
    if _TRACE_ID.fullmatch(trace_id):
        facts["trace_id"] = trace_id
        if _SPAN_ID.fullmatch(span_id):
            facts["span_id"] = span_id
    return text, level, facts
