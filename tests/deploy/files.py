"""What the tests of Dockerfile, Compose and Kubernetes share: the files, parsed strictly, and the settings they may name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from hotswap.config import Settings
from hotswap.lifeline import READY_FILE

ROOT = Path(__file__).resolve().parents[2]


class _Strict(yaml.SafeLoader):
    """A key that comes twice is an error, as it is for Compose and for kubectl."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{sorted(twice)} comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(path: Path) -> list[Any]:
    return [each for each in yaml.load_all(path.read_text(encoding="utf-8"), _Strict) if each is not None]


def document(path: Path) -> Any:
    (only,) = documents(path)
    return only


def setting_names() -> set[str]:
    """Every environment variable that hotswap.config reads, without the _FILE forms."""
    return {READY_FILE, *(f"HOTSWAP_{name}" for name in _names(Settings))}


def _names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name.upper()
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel) and not get_args(field.annotation):
                yield from (f"{name.upper()}__{inner}" for inner in _names(kind))


def unknown_settings(names: set[str]) -> set[str]:
    """HOTSWAP_ variables that no setting has: a process would start without what somebody meant to set."""
    known = setting_names()
    return {
        name
        for name in names
        if name.startswith("HOTSWAP_") and name not in known and re.sub("_FILE$", "", name) not in known
    }
