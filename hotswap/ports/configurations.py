"""Who judges tenants' configurations by a plugin author's JSON Schema: hotswap.runtime.config_check, in a process of its own."""

from collections.abc import Sequence
from typing import Any, Protocol


class ConfigurationJudge(Protocol):
    async def fields(
        self, schema: dict[str, Any], values: Sequence[dict[str, Any]], version: str
    ) -> Sequence[Sequence[str]]:
        """For each value the fields that do not fit, from `configuration` on. Raises InvalidInput for a schema that cannot
        be applied, Unavailable (a repeat helps)."""
        ...
