"""docs/reference/api.md: every route with its roles, limit, parameters, body and answers, from the application itself.

Roles and limits come from the gates that the routes declare, the rest from the OpenAPI document.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel

from api.security import OpenGate, RoleGate
from api.strict import gates_of
from hotswap.domain.deployment import ABTestConfig, BlueGreenConfig, CanaryConfig, DirectConfig, Role, RollingConfig
from tests.docs.markdown import MADE, anchor, cell, code, table
from tests.http.site import make_site

CONFIGS: tuple[type[BaseModel], ...] = (DirectConfig, RollingConfig, CanaryConfig, BlueGreenConfig, ABTestConfig)

INTRODUCTION = """# HTTP API

Base address: that of the api. `Authorization: Bearer <token>` everywhere but where "anybody" is said
([authentication](../authentication.md)). Bodies and answers are JSON in UTF-8; instants and durations are ISO 8601; an unknown key
is an error that names it. Lists carry `total`, `limit`, `offset`, `hasMore`, `nextOffset`. Limits are calls a minute, by user and
route (by address where anybody may call); every answer says what is left of them. A fault is an [ErrorEnvelope](#errorenvelope)
with one of its codes. The same as a machine reads it: `/openapi.json` of a running api.
"""

ERRORS = frozenset({"400", "401", "403", "404", "409", "413", "422", "429", "500", "503"})
"""Every route may answer them, so they are told once."""


def page() -> str:
    with tempfile.TemporaryDirectory() as folder:
        app = make_site(Path(folder)).app
    document = app.openapi()
    schemas = document["components"]["schemas"]
    operations: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["other"])[0]
            operations.setdefault(tag, []).extend(_operation(method.upper(), path, operation, _gates(app)))
    lines = [MADE, INTRODUCTION, *(f"- [{tag}](#{anchor(tag)})" for tag in operations)]
    lines += ["- [settings of the strategies](#settings-of-the-strategies)", "- [schemas](#schemas)", ""]
    for tag, told in operations.items():
        lines += [f"## {tag}", "", *told]
    lines += [
        "## settings of the strategies",
        "",
        "`config` of `POST /api/v1/deployments` holds these, by strategy.",
        "",
    ]
    extra: dict[str, Any] = {}
    for model in CONFIGS:
        lines += [f"### {model.__name__.removesuffix('Config')}", "", *_properties(_model(model, extra))]
    lines += ["## schemas", ""]
    for name, schema in sorted({**extra, **schemas}.items()):
        if name not in ("HTTPValidationError", "ValidationError"):  # FastAPI's own; this api answers with its envelope
            lines += [f"### {name}", "", *_schema(schema)]
    return "\n".join(lines).rstrip() + "\n"


def _model(model: type[BaseModel], extra: dict[str, Any]) -> Mapping[str, Any]:
    schema = model.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
    extra |= schema.pop("$defs", {})
    return schema


def _gates(app: FastAPI) -> dict[str, str]:
    """Who may call each route, and how often."""
    told = {}
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute):
            continue
        for method in route.methods or ():
            for gate in gates_of(route.dependant):
                if isinstance(gate, RoleGate):
                    roles = [role.value for role in Role if role in gate.roles]
                    who = ", ".join(roles) or "everybody who is known"
                else:
                    assert isinstance(gate, OpenGate)
                    who = "anybody"
                told[f"{method} {route.path}"] = f"**{who}** · {gate.limit_of(method)} a minute"
    return told


def _operation(method: str, path: str, operation: Mapping[str, Any], gates: Mapping[str, str]) -> Iterator[str]:
    yield f"### {method} {path}"
    yield ""
    yield operation.get("description", operation.get("summary", ""))
    yield ""
    yield gates.get(f"{method} {path}", "**anybody** · no limit")
    yield ""
    rows = [
        (code(one["name"]), one["in"], "required" if one.get("required") else "", *_words(one["schema"], one))
        for one in operation.get("parameters", ())
    ]
    yield from table(("parameter", "in", "", "", ""), rows)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body, `{kind}`: {_kind(content['schema'])}"
        yield ""
        yield from _properties(content["schema"])
    for status, answer in operation["responses"].items():
        if status not in ERRORS:
            yield f"Answers {status}: {_answer(answer)}"
            yield ""


def _answer(answer: Mapping[str, Any]) -> str:
    contents = answer.get("content", {})
    shapes = [_kind(one["schema"]) if one.get("schema") else f"`{kind}`" for kind, one in contents.items()]
    said = "" if answer["description"] == "Successful Response" else answer["description"]
    return cell(". ".join(filter(None, (" or ".join(filter(None, shapes)), said)))) or "no body"


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    if said := schema.get("description"):
        yield said
        yield ""
    if "enum" in schema:
        yield "One of " + ", ".join(f"`{value}`" for value in schema["enum"])
        yield ""
    elif "properties" in schema:
        yield from _properties(schema)
    else:
        yield _kind(schema) or "anything"
        yield ""


def _properties(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required", ())
    return table(
        ("key", "", "", ""),
        [
            (code(name), "required" if name in required else "", *_words(one, one))
            for name, one in schema.get("properties", {}).items()
        ],
    )


def _words(schema: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[str, str]:
    """What it is, and what is said of it."""
    kind = _kind(schema)
    if not isinstance(schema.get("default"), dict | list) and schema.get("default") not in (None, ""):
        default = schema["default"]
        kind += f", default `{str(default).lower() if isinstance(default, bool) else cell(str(default))}`"
    return kind, cell(told.get("description", ""))


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with links to the ones it names."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        return f"[{name}](#{anchor(name)})"
    for joined in ("anyOf", "oneOf", "allOf"):
        if joined in schema:
            return " or ".join(filter(None, (_kind(one) for one in schema[joined] if one.get("type") != "null")))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {})) or 'anything'}"
    words = [schema.get("type", ""), schema.get("format", "")]
    bounds = {
        "minimum": "from", "exclusiveMinimum": "over", "maximum": "to", "maxLength": "of at most",
    }  # fmt: skip
    words += [f"{word} {schema[key]}" for key, word in bounds.items() if key in schema]
    if "maxLength" in schema:
        words.append("characters")
    if "pattern" in schema and len(schema["pattern"]) < 60:
        words.append(code(schema["pattern"]))
    return " ".join(str(word) for word in words if word)
