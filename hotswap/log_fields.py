"""Which plugin, version, tenant... a log record is about, bound to what runs now. Standard library only: workflows use it too.

Neighbour: hotswap.telemetry writes the records.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token

FIELDS = ("plugin", "version", "tenant", "environment", "deployment", "node")
"""What a record may say beside its message (spec section 9)."""

_bound: ContextVar[dict[str, str]] = ContextVar("hotswap_log_fields", default={})  # noqa: B039 - replaced, never changed


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Every record logged inside carries these fields, also in tasks started inside. Names outside FIELDS are a bug."""
    token = bind_log_fields(**fields)
    try:
        yield
    finally:
        _bound.reset(token)


def bind_log_fields(**fields: str) -> Token[dict[str, str]]:
    """`log_fields` for the rest of the present task."""
    unknown = sorted(fields.keys() - set(FIELDS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not a log field; use one of {', '.join(FIELDS)}")
    return _bound.set({**_bound.get(), **fields})


def bound_log_fields() -> Mapping[str, str]:
    return _bound.get()
