"""Turns the URL of the settings into what SQLAlchemy and people may see. Neighbours: database, migrations.runner."""

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from hotswap.domain.errors import FieldFault, InvalidInput

_FORM = "postgresql://user:password@host:port/database"


def engine_url(url: str) -> URL:
    """The URL with the psycopg driver named. Raises InvalidInput (never showing the URL: it holds a password)."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _unreadable() from None
    if parsed.get_backend_name() not in ("postgresql", "postgres") or not parsed.database:
        raise _unreadable()
    return parsed.set(drivername="postgresql+psycopg")


def without_password(url: str) -> str:
    """`host:port/database`, for messages and logs."""
    parsed = engine_url(url)
    return f"{parsed.host or 'local socket'}:{parsed.port or 5432}/{parsed.database}"


def _unreadable() -> InvalidInput:
    return InvalidInput(
        f"HOTSWAP_POSTGRES__URL is not a PostgreSQL URL; write {_FORM}",
        [FieldFault("HOTSWAP_POSTGRES__URL", f"must read {_FORM}")],
    )
