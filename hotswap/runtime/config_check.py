"""Judges a tenant's configuration by a version's configurationSchema, in a process of its own (schema_faults).

Neighbours: api.services.tenants asks before it stores anything, activities.configurations before a stricter version comes.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hotswap.domain.errors import FieldFault, InvalidInput, Unavailable
from hotswap.runtime import schema_faults

PROGRAM = Path(schema_faults.__file__)

WALL_SECONDS = 30.0
"""Six times the CPU seconds it may burn: a busy machine gives it a core now and then."""

AT_ONCE = 2
"""Checks at once in one process of the api: each is a Python interpreter (0.2 s, 40 MB)."""


class ConfigCheck:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def faults(self, schema: dict[str, Any], value: dict[str, Any], version: str) -> Sequence[FieldFault]:
        """What is wrong, by field from `configuration` on. Raises InvalidInput when the schema cannot be applied at all."""
        if not schema:
            return ()
        (found,) = await self._asked(schema, [value], version)
        return [
            FieldFault(f"configuration.{path}" if path else "configuration", f"{message} (schema of {version})")
            for path, message in found
        ]

    async def fields(
        self, schema: dict[str, Any], values: Sequence[dict[str, Any]], version: str
    ) -> Sequence[Sequence[str]]:
        """For each value the fields that are wrong, from `configuration` on; not why, since that would tell the value."""
        if not schema or not values:
            return [()] * len(values)
        found = await self._asked(schema, values, version)
        return [
            tuple(dict.fromkeys(f"configuration.{path}" if path else "configuration" for path, _ in faults))
            for faults in found
        ]

    async def _asked(self, schema: dict[str, Any], values: Sequence[dict[str, Any]], version: str) -> Any:
        async with self._slots:
            code, answer = await _judged(json.dumps({"schema": schema, "values": values}).encode())
        if code != 0:
            why = (
                f"cannot be checked: configurationSchema of {version} needs over {schema_faults.CPU_SECONDS} CPU seconds, "
                "too much memory, or a $ref to elsewhere"
            )
            raise InvalidInput(f"configuration {why}", [FieldFault("configuration", why)])
        return json.loads(answer)


async def _judged(question: bytes) -> tuple[int, bytes]:
    """Exit code and output. Nothing of the environment reaches the program: it holds our credentials."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(WALL_SECONDS):
            answer, _ = await process.communicate(question)
    except TimeoutError:
        raise Unavailable(f"the configuration could not be checked within {WALL_SECONDS:g} s; try again") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, answer
