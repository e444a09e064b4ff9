"""Finds what breaks the callers of a plugin between two versions: by SemVer, by methods, by their JSON Schemas. Pure.

A caller sends parameters that the old schema allows and reads results that the old schema promises. So a change is
compatible when every old parameter object is still allowed, and every new result would have been allowed before. Whether
one schema allows all that another allows cannot be decided in general; `narrowed` is careful: what it cannot follow
counts as breaking, never the other way round.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import semver

from hotswap.domain.manifest import Manifest

Schema = Mapping[str, Any] | bool

MAX_FINDINGS = 50
"""More than a person reads; the flag is what counts."""

MAX_DEPTH = 32
"""Schemas nested deeper are not followed and count as changed."""

MAX_NODES = 20_000
"""Parts of one schema once its references are replaced: definitions that name each other grow without bound."""

_ANNOTATIONS = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "format",
        "$comment",
        "$schema",
        "$id",
    ]
)
"""Keywords that allow and refuse nothing. `format` is one here: hosts do not check it (hotswap.runtime.schema_check)."""

_DATA = frozenset({"enum", "const", "default", "examples"})
"""Keywords whose values are values, not schemas."""

_DEFINITIONS = frozenset({"$defs", "definitions"})
_UNFOLLOWED = frozenset({"$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor"})
_LOOK_AROUND = frozenset({"unevaluatedProperties", "unevaluatedItems"})
"""Their meaning is in the keywords beside them, so being the same says nothing."""

_LENT = {"patternProperties": "additionalProperties", "prefixItems": "items", "minContains": "contains"}

# keyword -> whether a larger value allows more
_LIMITS = {
    "minimum": False,
    "exclusiveMinimum": False,
    "minLength": False,
    "minItems": False,
    "minProperties": False,
    "maximum": True,
    "exclusiveMaximum": True,
    "maxLength": True,
    "maxItems": True,
    "maxProperties": True,
}
_LENGTHS = frozenset({"minLength", "minItems", "minProperties"})
_FOLLOWED = frozenset({"type", "enum", "const", "properties", "required", "additionalProperties", "items", *_LIMITS})
_TYPES = ("null", "boolean", "object", "array", "number", "string", "integer")


def breaking_changes(old: Manifest, new: Manifest) -> tuple[str, ...]:
    """Why callers of `old` may break with `new`, one sentence each; empty when nothing speaks against it."""
    found = [*_by_number(old.version, new.version), *_by_methods(old, new)]
    return tuple(found[:MAX_FINDINGS])


def _by_number(old: str, new: str) -> Iterator[str]:
    before, after = semver.Version.parse(old), semver.Version.parse(new)
    if after.major > before.major:
        yield f"{old} -> {new} is a new major version"
    elif after.major == 0 and after.minor > before.minor:
        yield f"{old} -> {new}: before 1.0.0 a new minor version may change anything"


def _by_methods(old: Manifest, new: Manifest) -> Iterator[str]:
    there = {method.name: method for method in new.methods}
    for method in old.methods:
        now = there.get(method.name)
        if now is None:
            yield f"method {method.name} is gone"
            continue
        for reason in narrowed(method.parameters, now.parameters):
            yield f"method {method.name}: parameters{reason}"
        for reason in narrowed(now.result, method.result):
            yield f"method {method.name}: result may be what callers do not know: result{reason}"
        if method.idempotent and not now.idempotent:
            yield f"method {method.name} is not idempotent any more: callers may not repeat it"


def narrowed(wide: Schema, narrow: Schema) -> list[str]:
    """Why something that `wide` allows might not be allowed by `narrow`; empty when everything is.

    Each reason begins with the path inside the value, e.g. `.items[].price: ...`.
    """
    if _text(wide) == _text(narrow):
        return []
    try:
        return list(_narrowed(_inlined(wide), _inlined(narrow), "", 0))
    except _NotFollowed as why:
        return [f": has changed and {why}"]


class _NotFollowed(Exception):
    """A reference that cannot be replaced by what it names. Never seen outside."""


def _inlined(schema: Schema) -> Schema:
    """The schema with each `$ref` to its own definitions replaced. Raises _NotFollowed."""
    if isinstance(schema, bool):
        return schema
    budget = [MAX_NODES]

    def copy(node: Any, following: tuple[str, ...]) -> Any:
        budget[0] -= 1
        if budget[0] < 0:
            raise _NotFollowed(f"holds over {MAX_NODES} parts")
        if isinstance(node, list):
            return [copy(item, following) for item in node]
        if not isinstance(node, Mapping):
            return node
        if named := sorted(name for name in _UNFOLLOWED if isinstance(node.get(name), str)):
            raise _NotFollowed(f"uses {named[0]}")
        reference = node.get("$ref")
        if isinstance(reference, str):
            if set(node) - _ANNOTATIONS - {"$ref", *_DEFINITIONS}:
                raise _NotFollowed("has keywords beside a $ref")
            if reference in following:
                raise _NotFollowed("refers to itself")
            return copy(_definition(schema, reference), (*following, reference))
        kept = {name: value for name, value in node.items() if name not in _DEFINITIONS}
        return {name: value if name in _DATA else copy(value, following) for name, value in kept.items()}

    found: Schema = copy(schema, ())
    return found


def _definition(root: Mapping[str, Any], reference: str) -> Any:
    start, _, name = reference.rpartition("/")
    group = root.get(start.removeprefix("#/")) if start in ("#/$defs", "#/definitions") else None
    if not isinstance(group, Mapping) or name not in group:
        raise _NotFollowed(f"refers to {reference[:100]}")
    return group[name]


def _text(value: Any) -> str:
    """Equal texts are equal JSON; Python would take 1 and true for one thing."""
    return json.dumps(value, sort_keys=True)


def _narrowed(wide: Schema, narrow: Schema, path: str, depth: int) -> Iterator[str]:
    if narrow is True or narrow == {} or wide is False or _text(wide) == _text(narrow):
        return
    if depth > MAX_DEPTH:
        yield f"{path}: is nested over {MAX_DEPTH} levels deep and has changed"
        return
    if isinstance(narrow, bool):
        yield f"{path}: is not allowed any more"
        return
    before: Mapping[str, Any] = {} if isinstance(wide, bool) else wide
    strange = _strange(before, narrow)
    if strange:
        yield f"{path}: {', '.join(strange)} differs in a way that cannot be shown to be harmless"
        return
    yield from _narrowed_values(before, narrow, path)
    yield from _narrowed_limits(before, narrow, path)
    yield from _narrowed_object(before, narrow, path, depth)
    yield from _narrowed_items(before, narrow, path, depth)


def _strange(wide: Mapping[str, Any], narrow: Mapping[str, Any]) -> list[str]:
    """Keywords of `narrow` that are not understood here and not the same in `wide`: they may refuse anything.

    A keyword that only `wide` has can only have refused more, but for those that lend another keyword its meaning.
    """
    names = set(narrow) - _FOLLOWED - _ANNOTATIONS
    strange = {name for name in names if name not in wide or _text(wide[name]) != _text(narrow[name])}
    strange |= names & _LOOK_AROUND
    for name, lends_to in _LENT.items():
        if name in wide and name not in narrow and lends_to in narrow:
            strange.add(name)
    return sorted(strange)


def _types(schema: Mapping[str, Any]) -> set[str]:
    told = schema.get("type", list(_TYPES))
    types = {told} if isinstance(told, str) else set(told)
    return types | {"integer"} if "number" in types else types


def _listed(schema: Mapping[str, Any]) -> list[Any] | None:
    """The only values allowed, when the schema lists them."""
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return list(values) if values is not None else None


def _narrowed_values(wide: Mapping[str, Any], narrow: Mapping[str, Any], path: str) -> Iterator[str]:
    refused = sorted(_types(wide) - _types(narrow))
    if refused and "type" in narrow:
        yield f"{path}: {' and '.join(refused)} {'is' if len(refused) == 1 else 'are'} not allowed any more"
    for keyword in ("enum", "const"):
        if keyword not in narrow:
            continue
        allowed = {_text(value) for value in _listed({keyword: narrow[keyword]}) or ()}
        before = _listed(wide)
        if before is None:
            yield f"{path}: only listed values are allowed now"
        elif gone := [value for value in before if _text(value) not in allowed]:
            yield f"{path}: {', '.join(repr(value)[:50] for value in gone[:3])} is not allowed any more"


def _narrowed_limits(wide: Mapping[str, Any], narrow: Mapping[str, Any], path: str) -> Iterator[str]:
    for keyword, larger_is_wider in _LIMITS.items():
        if keyword not in narrow:
            continue
        now, before = narrow[keyword], wide.get(keyword, 0 if keyword in _LENGTHS else None)
        if before is None or (now < before if larger_is_wider else now > before):
            yield f"{path}: {keyword} is {now} now (was {'not limited' if before is None else before})"


def _narrowed_object(wide: Mapping[str, Any], narrow: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
    if "object" not in _types(wide) & _types(narrow):
        return
    for name in narrow.get("required", ()):
        if name not in wide.get("required", ()):
            yield f"{path}.{name}: is required now"
    was, now = wide.get("properties", {}), narrow.get("properties", {})
    others_was, others_now = wide.get("additionalProperties", True), narrow.get("additionalProperties", True)
    unnamed_was = True if "patternProperties" in wide else others_was  # a pattern may have allowed more
    for name in sorted({*was, *now}):
        yield from _narrowed(was.get(name, unnamed_was), now.get(name, others_now), f"{path}.{name}", depth + 1)
    yield from _narrowed(others_was, others_now, f"{path}.*", depth + 1)


def _narrowed_items(wide: Mapping[str, Any], narrow: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
    if "array" in _types(wide) & _types(narrow):
        yield from _narrowed(wide.get("items", True), narrow.get("items", True), f"{path}[]", depth + 1)
