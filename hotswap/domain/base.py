"""The base of every frozen model. Field names are snake_case in Python and camelCase on every wire."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

MAX_HISTORY_TEXT = 500
"""Longest free text (characters) that may enter a workflow history or an event."""


class Model(BaseModel):
    """Frozen, closed (unknown keys are an error that names them), camelCase on the wire, either case in Python."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True
    )


def bounded(text: str, limit: int = MAX_HISTORY_TEXT) -> str:
    """Cut outside text to `limit` characters, so that histories and events stay small."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _text(value: Any) -> Any:
    """No bare number, whose unit nobody could tell, also not as text."""
    if (isinstance(value, str) and re.match(r"\d{4}-", value) is None) or isinstance(value, int | float):
        raise ValueError("must be an instant such as 2026-01-31T12:00:00Z")
    return value


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("must carry a time zone, e.g. 2026-01-31T12:00:00Z")
    return value.astimezone(UTC)


Instant = Annotated[datetime, BeforeValidator(_text), AfterValidator(_aware)]
"""An aware datetime, normalised to UTC."""

BoundedText = Annotated[str, AfterValidator(bounded)]
"""Text cut to MAX_HISTORY_TEXT characters."""

PLUGIN_NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"

PluginName = Annotated[str, StringConstraints(pattern=PLUGIN_NAME_PATTERN)]
"""1 to 63 lower-case letters, digits and inner hyphens: safe in a URL, an S3 key, a file name and a DNS label."""

METHOD_NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"

TENANT_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

TenantId = Annotated[str, StringConstraints(pattern=TENANT_ID_PATTERN)]

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of an artifact, 64 lower-case hex digits."""

WALL_TIME_PATTERN = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
