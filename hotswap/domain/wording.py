"""What a fault of pydantic's is called where its own words help nobody: a regular expression, a type of Python's. Pure.

Neighbours: hotswap.domain.manifest and api.errors turn pydantic's faults into ours, with the path as the sender wrote it.
"""

from collections.abc import Mapping
from typing import Any

from hotswap.domain.base import (
    METHOD_NAME_PATTERN,
    PLUGIN_NAME_PATTERN,
    TENANT_ID_PATTERN,
    WALL_TIME_PATTERN,
)

PLUGIN_NAME_RULE = "use 1 to 63 lower-case letters, digits and inner hyphens, e.g. invoice-export"

_RULES = {
    PLUGIN_NAME_PATTERN: PLUGIN_NAME_RULE,
    METHOD_NAME_PATTERN: "use 1 to 64 lower-case letters, digits and underscores, a letter first, e.g. export_invoice",
    TENANT_ID_PATTERN: "use 1 to 128 letters, digits, dots, underscores and hyphens, a letter or digit first, e.g. acme",
    WALL_TIME_PATTERN: "write a time of day from 00:00 to 23:59, e.g. 06:30",
}
NO_LIST = "must be a list"

_KINDS = {"tuple_type": NO_LIST, "list_type": NO_LIST}


def plain_words(fault: Mapping[str, Any]) -> str:
    """The message of one of `ValidationError.errors()`, with the remedy when we know it."""
    if fault["type"] == "string_pattern_mismatch":
        rule = _RULES.get(fault.get("ctx", {}).get("pattern", ""))
        if rule:
            return f"is not spelt as it must be; {rule}"
    return _KINDS.get(fault["type"]) or str(fault["msg"]).removeprefix("Value error, ")
