"""Judges a smoke test's result against its JSON Schema, inside a host of its own: both come from a stranger, and a
pattern such as (a+)+$ would hold the worker's interpreter for ever. Loaded like a plugin by hotswap.runtime.trial.
"""

from typing import Any

from jsonschema.exceptions import best_match
from jsonschema.validators import Draft202012Validator
from referencing import Registry

_MAX_FAULT_CHARS = 300


class SchemaCheck:
    def check(self, parameters: dict[str, Any], context: object) -> str:
        """parameters: {"schema", "result"}. Returns the fault that matters most, or "" when the result is valid."""
        registry: Registry[Any] = Registry()  # empty: a $ref to elsewhere is a fault, never fetched
        validator = Draft202012Validator(parameters["schema"], registry=registry)
        fault = best_match(validator.iter_errors(parameters["result"]))
        if fault is None:
            return ""
        where = "/".join(str(part) for part in fault.absolute_path) or "its root"
        return f"at {where}: {fault.message[:_MAX_FAULT_CHARS]}"
