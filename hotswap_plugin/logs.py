"""Logging for plugins: the standard library's, with each record bound to the request it was made in. Standard library only.

A record becomes one line of JSON on stderr, which hotswap.runtime.output takes apart again: level, tenant, trace and span id
stand in the node's log beside plugin and version. Never log a secret: the node masks those it knows, in their usual spellings.
"""

import json
import logging
import sys
from contextvars import ContextVar

from hotswap_plugin.context import Context

MARK_KEY = "hotswap.log"
MARK = b'{"hotswap.log":'
"""How every record begins."""

_MAX_LINE_BYTES = 4000
"""Below PIPE_BUF (4096), so that records of several threads never mix."""
_MAX_CHARS = 1500
"""Of the message, and of the traceback below it."""

current: ContextVar[Context | None] = ContextVar("hotswap_call", default=None)
"""The call that runs here. Set by the host; threads that a plugin starts itself have none."""

in_host = False
"""Whether this process is a plugin host. Elsewhere (an author's own tests) logging is left as it is."""


def get_logger(name: str = "plugin") -> logging.Logger:
    """The logger of that name, its records bound to the request. What libraries log from then on is bound as well.

    INFO and above are kept; `logging.getLogger().setLevel(logging.DEBUG)` keeps more.
    """
    root = logging.getLogger()
    if in_host and not any(isinstance(handler, _LineHandler) for handler in root.handlers):
        root.addHandler(_LineHandler())
        if root.level == logging.WARNING:  # as Python leaves it
            root.setLevel(logging.INFO)
    return logging.getLogger(name)


class _LineHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(line_of(record, current.get()) + "\n")
        except Exception:  # noqa: BLE001 - as the standard library's own handlers: a log call never breaks the work
            self.handleError(record)


def line_of(record: logging.LogRecord, call: Context | None) -> str:
    """The record as one line of at most _MAX_LINE_BYTES; of a long traceback the end is kept, where the cause is."""
    message = f"{record.name}: {record.getMessage()}"
    error = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    longest = _MAX_CHARS
    while True:
        text = message[:longest] + (f"\n{error[-longest:]}" if error else "")
        fields = {MARK_KEY: record.levelname if record.levelname in _LEVELS else "INFO", "message": text}
        if call is not None:
            fields["tenant"] = call.tenant
            if trace_id := call.trace_id:
                fields["trace_id"], fields["span_id"] = trace_id, call.span_id
        line = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        if len(line.encode("utf-8", "replace")) <= _MAX_LINE_BYTES or longest < 10:
            return line
        longest //= 2


_LEVELS = frozenset(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
