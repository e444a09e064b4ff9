"""A program of its own: reads {"schema", "values"} on stdin, writes for each value [[path, message], ...]. For config_check.

The schema is a plugin author's and a pattern such as (a+)+$ may never end, so CPU and memory are bounded first.
"""

import json
import resource
import sys
from typing import Any

CPU_SECONDS = 5
MEMORY_BYTES = 512 * 1024 * 1024
MOST_FAULTS = 20
_MOST_CHARS = 300


def faults(schema: dict[str, Any], value: Any) -> list[tuple[str, str]]:
    """Path from the value's root ("" = itself) and what is wrong there, the shallowest first."""
    from jsonschema.validators import Draft202012Validator
    from referencing import Registry

    registry: Registry[Any] = Registry()  # empty: a $ref to elsewhere is a fault, never fetched
    found = []
    for fault in Draft202012Validator(schema, registry=registry).iter_errors(value):
        found.append((".".join(str(part) for part in fault.absolute_path), fault.message[:_MOST_CHARS]))
        if len(found) >= MOST_FAULTS:
            break
    return sorted(found, key=lambda one: (one[0].count("."), one))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    document = json.load(sys.stdin)
    json.dump([faults(document["schema"], value) for value in document["values"]], sys.stdout)


if __name__ == "__main__":
    main()
