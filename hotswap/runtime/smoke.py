"""Runs the manifest's smoke tests on a live host and checks their results. A plugin's fault is a finding, never an exception.

Neighbours: hotswap.runtime.trial tests a version before any traffic, hotswap.node.smoke the idle colour on a node.
"""

import asyncio
import importlib.util
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hotswap.domain.base import MAX_HISTORY_TEXT, bounded
from hotswap.domain.errors import HostFailed, NotFound, PluginError
from hotswap.domain.manifest import Resources, SmokeTest
from hotswap.ports.hosts import HostHandle, HostSpec, SchemaCheck
from hotswap.runtime.launcher import ZygoteLauncher

_CHECK_CPU_SECONDS = 10
"""A schema check takes milliseconds after 0.2 s of imports; 10 s are a pattern made to hang."""
_CHECK_MEMORY_MB = 256


@dataclass(frozen=True, slots=True)
class Finding:
    """What one smoke test found: `why` it failed ("" = passed) and the limit that was hit, if one was."""

    why: str = ""
    limit: str = ""


async def run_smoke_test(
    host: HostHandle, test: SmokeTest, tenant: str, timeout: timedelta, check_schema: SchemaCheck
) -> Finding:
    """One call of one method, and what its result is worth."""
    try:
        body = await host.invoke(test.method, tenant, json.dumps(test.parameters).encode(), timeout)
        result = json.loads(body)
    except PluginError as fault:
        return Finding(f"raised {fault.kind}: {fault.message}")
    except HostFailed as fault:
        return Finding(fault.message, fault.limit)
    except NotFound as fault:
        return Finding(fault.message)
    except (ValueError, RecursionError):
        return Finding("the result is not JSON", "BAD_REPLY")
    if "expected" in test.model_fields_set and not same_json(result, test.expected):
        return Finding(f"expected {_shown(test.expected)} and got {_shown(result)}")
    if test.expected_schema is not None:
        return Finding(await check_schema(test.expected_schema, result, timeout))
    return Finding()


def schema_check_by(launcher: ZygoteLauncher) -> SchemaCheck:
    """Checks in a sandboxed process of its own: schema and result are the plugin author's, and a pattern may hang."""

    async def check(schema: dict[str, Any], result: Any, timeout: timedelta) -> str:
        return await _check_schema(launcher, schema, result, timeout)

    return check


async def _check_schema(launcher: ZygoteLauncher, schema: dict[str, Any], result: Any, timeout: timedelta) -> str:
    spec = HostSpec(
        plugin="schema-check",
        version="1.0.0",
        bundle_dir=Path(__file__).parent,
        entry_point="schema_check:SchemaCheck",
        resources=Resources(memory_mb=_CHECK_MEMORY_MB, processes=1),
        methods=("check",),
    )
    try:
        checker = await launcher.launch(
            spec, cpu_seconds=_CHECK_CPU_SECONDS, library_paths=_homes("jsonschema", "referencing", "rpds", "attr")
        )
    except HostFailed as fault:
        return f"its expectedSchema could not be checked: {fault.message}"
    try:
        body = json.dumps({"schema": schema, "result": result}).encode()
        verdict = str(json.loads(await checker.invoke("check", "schema-check", body, timeout)))
    except HostFailed as fault:
        return f"its expectedSchema cannot be checked within {_CHECK_CPU_SECONDS} CPU seconds: {fault.message}"
    except PluginError as fault:
        return f"its expectedSchema cannot be applied: {fault.kind}: {fault.message}"
    finally:
        await asyncio.shield(checker.kill())
    return f"the result does not fit expectedSchema {verdict}" if verdict else ""


def same_json(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, but neither equals true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(same_json(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


def _shown(value: Any) -> str:
    return bounded(json.dumps(value, ensure_ascii=False, default=str), MAX_HISTORY_TEXT // 3)


def _homes(*modules: str) -> tuple[Path, ...]:
    """The directories these modules are imported from."""
    found = []
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            found.append(Path(spec.origin).resolve().parent.parent)
    return tuple(dict.fromkeys(found))
