"""The manifest a plugin brings at its zip's root (spec section 3). Turns outside bytes into a Manifest or names every fault.

Neighbours: hotswap.runtime.bundle reads the file out of the zip, hotswap.runtime.host obeys `entry_point`.
"""

import json
import math
import re
import tomllib
from enum import StrEnum
from typing import Annotated, Any, Literal

import semver
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, WithJsonSchema, model_validator

from hotswap.domain.base import METHOD_NAME_PATTERN, Model, PluginName
from hotswap.domain.errors import FieldFault, ManifestInvalid
from hotswap.domain.permissions import check_permission
from hotswap.domain.wording import plain_words

MAX_MANIFEST_BYTES = 256 * 1024

MAX_NESTING = 64
"""Objects and lists within each other. Parsers stop at about 200, which differs: what one writes another must read."""

_ENTRY_POINT = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")


def _semver(value: str) -> str:
    try:
        semver.Version.parse(value)
    except ValueError:
        raise ValueError(f"'{value}' is not SemVer 2.0.0; write MAJOR.MINOR.PATCH such as 1.4.0") from None
    if len(value) > 50:
        raise ValueError("is longer than 50 characters")
    return value


def _entry_point(value: str) -> str:
    if not _ENTRY_POINT.fullmatch(value):
        raise ValueError(f"'{value}' must read 'module:Class', e.g. 'invoice_export.plugin:InvoiceExport'")
    return value


def _requires_python(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        raise ValueError(f"'{value}' is not a version range; write one such as '>=3.11'") from None
    return value


def _json_schema(value: dict[str, Any]) -> dict[str, Any]:
    try:
        Draft202012Validator.check_schema(value)
    except SchemaError as fault:
        where = "/".join(str(part) for part in fault.absolute_path) or "its root"
        raise ValueError(f"is not a valid JSON Schema at {where}: {fault.message[:200]}") from None
    return value


_NUMBER = "(?:0|[1-9][0-9]*)"
_IDENTIFIER = "(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = (
    rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$"
)
"""semver.org's own, for who reads our schemas; `_semver` decides."""

SemVer = Annotated[
    str,
    AfterValidator(_semver),
    WithJsonSchema({"type": "string", "pattern": _SEMVER, "maxLength": 50, "description": "SemVer 2.0.0"}),
]
Permission = Annotated[str, AfterValidator(check_permission)]
JsonSchema = Annotated[dict[str, Any], AfterValidator(_json_schema)]


class PluginType(StrEnum):
    PAYMENT_GATEWAY = "PaymentGateway"
    AUTH_PROVIDER = "AuthProvider"
    NOTIFICATION_CHANNEL = "NotificationChannel"
    DATA_PROCESSOR = "DataProcessor"
    REPORTING_ENGINE = "ReportingEngine"
    WORKFLOW_AUTOMATION = "WorkflowAutomation"
    API_INTEGRATION = "ApiIntegration"
    BUSINESS_LOGIC = "BusinessLogic"
    OTHER = "Other"


class Method(Model):
    """One callable method. Parameters arrive as one JSON object."""

    name: Annotated[str, StringConstraints(pattern=METHOD_NAME_PATTERN)]
    parameters: JsonSchema = Field(default_factory=lambda: {"type": "object"})
    result: JsonSchema = Field(default_factory=dict)
    idempotent: bool = False


class Dependency(Model):
    name: str = Field(min_length=1, max_length=255)
    version_constraint: str = Field(min_length=1, max_length=255)
    type: Literal["Plugin", "Package"] = "Plugin"
    optional: bool = False
    conflicts: tuple[str, ...] = ()


class Resources(Model):
    """What one host process may use. Hard limits; the platform's settings cap what may be asked for."""

    memory_mb: int = Field(default=512, ge=64, le=8192)
    cpu_seconds: int = Field(default=60, ge=1, le=3600, description="CPU seconds one trial may burn")
    processes: int = Field(default=32, ge=1, le=256, description="threads included")
    open_files: int = Field(default=64, ge=16, le=1024)
    scratch_mb: int = Field(
        default=0, ge=0, le=4096, description="private writable directory; sandbox tier strong alone"
    )


class SmokeTest(Model):
    """A call whose result is checked in the sandbox before any traffic: equal to `expected`, or valid by `schema`."""

    method: Annotated[str, StringConstraints(pattern=METHOD_NAME_PATTERN)]
    parameters: dict[str, Any] = Field(default_factory=dict)
    expected: Any = None
    expected_schema: JsonSchema | None = None


class Manifest(Model):
    """plugin.json / plugin.toml. Unknown keys are an error that names the key."""

    name: PluginName
    version: SemVer
    entry_point: Annotated[str, AfterValidator(_entry_point)]
    runtime: Literal["python"] = "python"
    requires_python: Annotated[str, AfterValidator(_requires_python)] = Field(default=">=3.11", alias="requires-python")
    author: str = Field(default="", max_length=255)
    description: str = Field(default="", max_length=4000)
    type: PluginType = PluginType.OTHER
    methods: tuple[Method, ...] = Field(min_length=1, max_length=200)
    dependencies: tuple[Dependency, ...] = Field(default=(), max_length=200)
    required_permissions: tuple[Permission, ...] = Field(default=(), max_length=100)
    capabilities: tuple[str, ...] = Field(default=(), max_length=100)
    configuration_schema: JsonSchema = Field(default_factory=dict)
    resources: Resources = Field(default_factory=Resources)
    concurrency: int = Field(
        default=1,
        ge=1,
        le=64,
        description="processes that serve side by side on a node, each pinned to a core: for work that fills a core",
    )
    smoke_tests: tuple[SmokeTest, ...] = Field(default=(), max_length=100)
    min_platform_version: SemVer | None = None

    def config_defaults(self) -> dict[str, Any]:
        """The `default` of each top-level property of configurationSchema that has one."""
        properties = self.configuration_schema.get("properties", {})
        return {
            name: schema["default"]
            for name, schema in properties.items()
            if isinstance(schema, dict) and "default" in schema
        }

    @model_validator(mode="after")
    def _names_agree(self) -> "Manifest":
        names = [method.name for method in self.methods]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"methods: {', '.join(twice)} is declared twice")
        for index, test in enumerate(self.smoke_tests):
            if test.method not in names:
                raise ValueError(
                    f"smokeTests.{index}.method: '{test.method}' is not one of methods: {', '.join(names)}"
                )
        return self


def parse_manifest(content: bytes, file_name: str) -> Manifest:
    """Read `content` of plugin.json or plugin.toml. Raises ManifestInvalid naming every wrong key."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"{file_name} is over {MAX_MANIFEST_BYTES} bytes")
    try:
        text = content.decode("utf-8")
        document = tomllib.loads(text) if file_name.endswith(".toml") else json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as fault:
        raise ManifestInvalid(
            f"{file_name} cannot be read: {str(fault)[:200]}", [FieldFault(file_name, "must be UTF-8 JSON or TOML")]
        ) from None
    faults = _unkeepable(document)
    if not faults:
        try:
            return Manifest.model_validate(document)
        except ValidationError as fault:
            faults = field_faults(fault)
    named = "; ".join(f"{item.field}: {item.message}" for item in faults[:5])
    raise ManifestInvalid(f"{file_name} is not a valid manifest: {named}", faults)


def _unkeepable(document: Any) -> list[FieldFault]:
    """What a parser took and no store can keep as it is: first of each kind, so that the list stays short."""
    faults: dict[str, FieldFault] = {}
    pending: list[tuple[str, Any, int]] = [("", document, 1)]  # not recursion: the nesting is the sender's
    while pending:
        path, value, depth = pending.pop()
        message = _unkeepable_value(value, depth)
        if message:
            faults.setdefault(message, FieldFault(path or "(document)", message))
        elif isinstance(value, dict):
            pending += [(f"{path}.{key}" if path else str(key), inner, depth + 1) for key, inner in value.items()]
            if any("\0" in key for key in value):
                faults.setdefault("key", FieldFault(path or "(document)", "has a key that holds a NUL character"))
        elif isinstance(value, list):
            pending += [(f"{path}.{index}", inner, depth + 1) for index, inner in enumerate(value)]
    return [FieldFault(fault.field.replace("\0", "\ufffd")[:200], fault.message) for fault in faults.values()]


def _unkeepable_value(value: Any, depth: int) -> str:
    """Why not, and what to do; "" when the value is fine."""
    if isinstance(value, dict | list):
        return f"is nested over {MAX_NESTING} levels deep; flatten it" if depth > MAX_NESTING else ""
    if isinstance(value, str):
        return "holds a NUL character (U+0000); remove it" if "\0" in value else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else "is not a finite number, which JSON cannot carry; leave it out"
    if value is None or isinstance(value, int):
        return ""
    return "is a date or a time; write it as text"  # TOML has them, JSON has not


def field_faults(fault: ValidationError) -> list[FieldFault]:
    """Pydantic's faults as ours: the path as the sender wrote it, the fault, the remedy."""
    faults = []
    items = fault.errors(include_url=False, include_input=False)
    for item in items:
        if item["type"] == "too_short" and any(_is_within(other["loc"], item["loc"]) for other in items):
            continue  # the list is short only because what it holds is wrong, which is named by itself
        path = ".".join(str(part) for part in item["loc"])
        message = plain_words(item)
        if item["type"] == "extra_forbidden":
            message = "is not a known key; remove it or correct its spelling"
        elif item["type"] == "missing":
            message = "is required"
        elif not path and ": " in message:
            path, message = message.split(": ", 1)
        faults.append(FieldFault(path or "(document)", message))
    return faults


def _is_within(path: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(path) > len(outer) and path[: len(outer)] == outer


def version_order(version: str) -> semver.Version:
    """Sort key of a SemVer string."""
    return semver.Version.parse(version)
