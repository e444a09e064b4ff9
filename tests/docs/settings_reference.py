"""docs/reference/settings.md: every HOTSWAP_ variable with its type, default and meaning, from the settings classes."""

import types
import typing
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hotswap.config import Settings
from tests.docs.markdown import MADE, cell, code, table

INTRODUCTION = """# Settings

Environment variables, read once when a process starts; a fault lists every wrong one at once and ends it with exit code 2. Durations
are ISO 8601 (`PT30S`), lists JSON. `NAME_FILE` in place of a secret's `NAME` reads it from a file and wins over it. Which processes
need what, and why: [operating HotSwap](../operate.md); a file to start from: `.env.example`.
"""


def page() -> str:
    lines = [MADE, INTRODUCTION]
    top: list[tuple[str, FieldInfo]] = []
    for key, field in Settings.model_fields.items():
        if not _is_group(field.annotation):
            top.append((f"HOTSWAP_{key.upper()}", field))
            continue
        assert isinstance(field.annotation, type)
        lines += [f"## {key}", ""]
        said = field.annotation.__doc__
        lines += [" ".join(said.split()), ""] if said and "__doc__" in vars(field.annotation) else []
        lines += _table(_variables(field.annotation, f"HOTSWAP_{key.upper()}__"))
    lines += ["## the rest", "", *_table(top)]
    return "\n".join(lines).rstrip() + "\n"


def _variables(group: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for key, field in group.model_fields.items():
        if _is_group(field.annotation):
            assert isinstance(field.annotation, type)
            yield from _variables(field.annotation, f"{prefix}{key.upper()}__")
        else:
            yield f"{prefix}{key.upper()}", field


def _table(variables: typing.Iterable[tuple[str, FieldInfo]]) -> list[str]:
    rows = [(code(name), _kind(field.annotation), _default(field), _said(field)) for name, field in variables]
    return table(("variable", "", "default", ""), rows)


def _said(field: FieldInfo) -> str:
    bounds = []
    for limit in field.metadata:
        for key, word in (("ge", "from"), ("gt", "over"), ("le", "to")):
            if (value := getattr(limit, key, None)) is not None:
                bounds.append(f"{word} {_text(value)}")
    return cell("; ".join(filter(None, (field.description or "", " ".join(bounds)))))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    return "" if value in (None, "", (), PydanticUndefined) else code(_text(value))


def _text(value: Any) -> str:
    if isinstance(value, timedelta):
        return str(TypeAdapter(timedelta).dump_python(value, mode="json"))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, Enum) else value)


def _kind(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(code(str(value)) for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(one) for one in inner if one is not types.NoneType))
    if origin is typing.Annotated:
        return _kind(inner[0])
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(code(str(one.value)) for one in annotation)
    if _is_group(annotation):
        return "{" + ", ".join(f"{key}" for key in annotation.model_fields) + "}"
    named = {str: "text", int: "number", float: "number", bool: "`true` or `false`", timedelta: "duration"}
    named |= {SecretStr: "secret", Path: "path"}
    return named.get(annotation, "network" if "Network" in str(annotation) else str(annotation))


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
