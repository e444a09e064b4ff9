"""`hotswap plugin test`: a plugin on this machine, in the sandbox that nodes use. hotswap.runtime.workbench does the work."""

import json
import logging
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from pydantic import TypeAdapter

from hotswap.cli.durations import iso_duration
from hotswap.cli.faults import OTHER, CliError, UsageFault
from hotswap.cli.output import Output, clean, size
from hotswap.cli.session import Session, command
from hotswap.domain.base import bounded
from hotswap.domain.errors import (
    BundleRejected,
    HostFailed,
    HotSwapError,
    InvalidInput,
    NotFound,
    PluginError,
    SandboxUnavailable,
)

if TYPE_CHECKING:
    from hotswap.runtime.workbench import Workbench

_EXAMPLES = """
hotswap plugin test invoice-export
hotswap plugin test . --method greet --parameters '{"name": "Ada"}'
hotswap plugin test . --config eu.toml --secret api_key=@key.txt --tenant acme
hotswap plugin test dist/invoice-export-0.1.0.zip --json
"""
_SHOWN_CHARS = 4000
_REMEDY = "run it on Linux 5.13 or newer; for code that you trust, --tier none goes without"


def add_commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    command(app, name="test", examples=_EXAMPLES)(run_plugin_here)


async def run_plugin_here(
    session: Session,
    source: Annotated[Path, typer.Argument(help="The plugin's folder, or its zip.")] = Path(),
    method: Annotated[
        str | None,
        typer.Option("--method", "-M", help="Call this instead of running the smoke tests.", show_default=False),
    ] = None,
    parameters: Annotated[str, typer.Option("--parameters", "-p", help="JSON object, or @FILE.")] = "{}",
    tenant: Annotated[str, typer.Option("--tenant", help="Whose call it is.")] = "local",
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The tenant's configuration: a JSON or TOML file.", show_default=False),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="NAME=VALUE", help="A secret, or NAME=@FILE. Repeatable.", show_default=False),
    ] = None,
    tier: Annotated[str, typer.Option("--tier", help="Sandbox tier; 'none' only for code you trust.")] = "standard",
    timeout: Annotated[str, typer.Option("--timeout", help="For each call: 30s, PT1M.")] = "30s",
    allow_private: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-private", metavar="CIDR", help="Let granted hosts be there, e.g. 127.0.0.0/8.", show_default=False
        ),
    ] = None,
) -> int:
    """Run a plugin on this machine, in the sandbox that nodes use: its smoke tests, or one method.

    Exit code 0: everything passed. 1: the plugin failed, or hit a limit. 2: what was typed, the manifest or the
    configuration is wrong. Its output and what the network refused are shown on stderr.
    """
    from hotswap.runtime.egress import EgressPolicy
    from hotswap.runtime.sandbox import Tier
    from hotswap.runtime.workbench import Given, open_workbench

    if tier not in get_args(Tier):
        raise UsageFault(f"--tier '{tier}' is not a sandbox tier", f"use one of {', '.join(get_args(Tier))}")
    limit = TypeAdapter(timedelta).validate_python(iso_duration(timeout, "--timeout"))
    given = Given(
        tier=TypeAdapter(Tier).validate_python(tier),
        config=_config(config),
        secrets=_secrets(secret or ()),
        egress=EgressPolicy(tuple(_network(text) for text in allow_private or ())),
        limit_cpu=True,
    )
    body = _object(parameters, "--parameters")
    run = _Run(tier)
    with _output_shown(session.output), _told(source):
        try:
            async with open_workbench(source, given) as bench:
                await _exercise(run, bench, method, body, tenant, limit)
            if bench.host.output_limited:  # known once all of it was read
                run.limit = run.limit or "OUTPUT_LIMIT"
        except HostFailed as fault:
            run.failed(fault.message, fault.limit)
    _tell(session.output, run)
    return OTHER if run.fault else 0


@dataclass
class _Run:
    """What came of it."""

    tier: str
    name: str = ""
    load_ms: float = 0.0
    peak_memory_bytes: int = 0
    lines: list[tuple[str, bool, float, str]] = field(default_factory=list)
    """Method, passed, milliseconds, detail."""
    result: Any = None
    fault: str = ""
    limit: str = ""

    def failed(self, why: str, limit: str = "") -> None:
        """The first fault is the one that counts."""
        self.fault = self.fault or why
        self.limit = self.limit or limit


async def _exercise(
    run: _Run, bench: "Workbench", method: str | None, parameters: dict[str, Any], tenant: str, limit: timedelta
) -> None:
    host = bench.host
    run.name = f"{bench.manifest.name} {bench.manifest.version}"
    run.tier, run.load_ms = host.sandbox_tier, host.load_ms
    try:
        await host.ping(limit)
        if method is not None:
            run.result = await bench.call(method, parameters, tenant, limit)
        else:
            async for result, hit in bench.smoke(tenant, limit):
                run.lines.append((result.method, result.passed, result.duration_ms, result.detail))
                if not result.passed:
                    run.failed(f"smoke test of '{result.method}': {result.detail}", hit)
    except PluginError as fault:
        run.failed(f"{method or 'its first probe'}: {fault.kind}: {fault.message}")
    except HostFailed as fault:
        run.failed(fault.message, fault.limit)
    except NotFound as fault:
        run.failed(f"{fault.message}; it has {', '.join(each.name for each in bench.manifest.methods)}")
    finally:
        run.peak_memory_bytes = host.peak_memory_bytes()


def _tell(output: Output, run: _Run) -> None:
    if output.as_json:
        tests = [
            {"method": method, "passed": passed, "durationMs": ms, "detail": detail}
            for method, passed, ms, detail in run.lines
        ]
        document = {
            "plugin": run.name,
            "passed": not run.fault,
            "sandboxTier": run.tier,
            "loadMs": run.load_ms,
            "peakMemoryBytes": run.peak_memory_bytes,
            "limit": run.limit,
            "detail": run.fault,
            "smokeTests": tests,
            "result": run.result,
        }
        output.document(document)
        return
    if run.name:
        memory = size(run.peak_memory_bytes)
        output.say(f"{run.name}: loaded in {run.load_ms:.1f} ms, sandbox {run.tier}, peak memory {memory}")
    for method, passed, ms, detail in run.lines:
        output.say(f"{'passed' if passed else 'FAILED'}\t{clean(method)}\t{ms:.1f} ms\t{clean(detail)}".rstrip())
    if run.result is not None:
        output.say(bounded(json.dumps(run.result, indent=2, ensure_ascii=False), _SHOWN_CHARS))
    if run.limit:
        output.say(f"limit hit: {run.limit}")
    if run.fault:
        output.note(f"failed: {clean(run.fault)}")
    elif not run.lines and run.result is None:
        output.note("nothing was called: write smokeTests into the manifest, or name a --method")


@contextmanager
def _told(source: Path) -> Iterator[None]:
    """Faults of the input, of the manifest and of this machine, as what the command line prints."""
    try:
        yield
    except SandboxUnavailable as fault:
        raise CliError(f"this machine cannot shut a plugin in: {fault.message}", _REMEDY) from None
    except HostFailed:
        raise
    except BundleRejected as fault:
        remedy = (
            "correct it and repeat the command" if source.is_dir() else "build it again: hotswap plugin build FOLDER"
        )
        raise UsageFault(f"{source}: {fault.message}", remedy) from None
    except HotSwapError as fault:
        faults = [(item.field, item.message) for item in fault.faults] if isinstance(fault, InvalidInput) else []
        raise UsageFault(fault.message, "correct it and repeat the command", faults=faults) from None


class _Shown(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        source = "plugin" if record.name == "hotswap.plugin" else "network"
        self._output.note(f"{source} {record.levelname.lower()}: {clean(record.getMessage())}")


@contextmanager
def _output_shown(output: Output) -> Iterator[None]:
    """What the plugin writes, and which connections it was refused, on stderr while it runs."""
    handler = _Shown(output)
    loggers = [logging.getLogger(name) for name in ("hotswap.plugin", "hotswap.egress")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def _object(text: str, option: str) -> dict[str, Any]:
    source = _file(Path(text[1:]), option) if text.startswith("@") else text
    try:
        value = json.loads(source)
    except (ValueError, RecursionError) as fault:
        raise UsageFault(f"{option} is not JSON: {fault}", """write it as '{"name": "Ada"}'""") from None
    if not isinstance(value, dict):
        raise UsageFault(f"{option} is not a JSON object", """write it as '{"name": "Ada"}'""")
    return value


def _config(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    if path.suffix != ".toml":
        return _object(f"@{path}", "--config")
    try:
        return tomllib.loads(_file(path, "--config"))
    except tomllib.TOMLDecodeError as fault:
        raise UsageFault(f"--config {path} is not TOML: {fault}", "correct the file") from None


def _secrets(given: list[str] | tuple[str, ...]) -> dict[str, str]:
    secrets = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageFault("--secret needs NAME=VALUE or NAME=@FILE", "write it as api_key=@key.txt")
        secrets[name] = _file(Path(value[1:]), "--secret").strip() if value.startswith("@") else value
    return secrets


def _file(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8 text"
        raise UsageFault(f"{option}: {path} cannot be read: {why}", "name a text file") from None


def _network(text: str) -> Any:
    try:
        return ip_network(text)
    except ValueError as fault:
        raise UsageFault(f"--allow-private: {fault}", "write a network such as 127.0.0.0/8") from None
