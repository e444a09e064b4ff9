"""What a request is about, as its path says, for the records that are logged on its way. Pure."""

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "pluginId": "plugin",
    "version": "version",
    "deploymentId": "deployment",
    "tenant": "tenant",
    "environment": "environment",
}
_MAX_CHARS = 128


def facts_of_path(scope: Mapping[str, Any]) -> dict[str, str]:
    """Fields of hotswap.telemetry.FIELDS. Not validated yet, hence cut."""
    given = scope.get("path_params") or {}
    return {fact: str(given[name])[:_MAX_CHARS] for name, fact in _NAMES.items() if given.get(name)}
