"""What counts as breaking between two versions; and, against a validator, that nothing breaking is ever overlooked."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import Draft202012Validator
from referencing.exceptions import Unresolvable

from hotswap.domain.compatibility import breaking_changes, narrowed
from hotswap.domain.manifest import Manifest, Method

NUMBER, TEXT = {"type": "number"}, {"type": "string"}


def manifest(version: str = "1.0.0", *methods: Method) -> Manifest:
    return Manifest(name="billing", version=version, entry_point="a:B", methods=methods or (Method(name="run"),))


def takes(schema: dict[str, Any]) -> Manifest:
    return manifest("1.1.0", Method(name="run", parameters=schema))


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        ("1.2.3", "1.2.4", False),
        ("1.2.3", "1.3.0-rc.1", False),
        ("1.9.0", "2.0.0", True),
        ("1.9.0", "2.0.0-alpha", True),
        ("0.1.0", "0.1.9", False),
        ("0.1.0", "0.2.0", True),
        ("2.0.0", "1.0.0", False),
    ],
)
def test_the_number_alone_says_so(old: str, new: str, breaks: bool) -> None:
    assert bool(breaking_changes(manifest(old), manifest(new))) is breaks


def test_a_method_that_is_gone_or_loses_its_promise_breaks_and_a_new_one_does_not() -> None:
    two = manifest("1.0.0", Method(name="run", idempotent=True), Method(name="stop"))
    assert breaking_changes(two, manifest("1.1.0", Method(name="run"))) == (
        "method run is not idempotent any more: callers may not repeat it",
        "method stop is gone",
    )
    assert breaking_changes(manifest(), manifest("1.1.0", Method(name="more"), Method(name="run"))) == ()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"required": []}, {"required": ["amount"]}, "parameters.amount: is required now"),
        ({}, {"additionalProperties": False}, "parameters.*: is not allowed any more"),
        (
            {"properties": {"a": NUMBER}},
            {"properties": {"a": TEXT}},
            "parameters.a: integer and number are not allowed",
        ),
        ({"properties": {"a": {"enum": [1, 2]}}}, {"properties": {"a": {"enum": [True, 2]}}}, "parameters.a: 1 is not"),
        ({"properties": {"a": {"maximum": 9}}}, {"properties": {"a": {"maximum": 8}}}, "maximum is 8 now (was 9)"),
        ({"properties": {"a": {"not": NUMBER}}}, {"properties": {"a": {"not": TEXT}}}, "parameters.a: not differs"),
    ],
)
def test_what_a_method_takes_may_only_grow(old: dict[str, Any], new: dict[str, Any], reason: str) -> None:
    before, after = {"type": "object", **old}, {"type": "object", **new}
    found = breaking_changes(takes(before), takes(after))
    assert any(reason in one for one in found), found
    assert breaking_changes(takes(before), takes(before)) == ()


def test_what_a_method_gives_may_only_shrink() -> None:
    def gives(schema: dict[str, Any]) -> Manifest:
        return manifest("1.0.0", Method(name="run", result=schema))

    wide, narrow = {"type": ["string", "null"]}, {"type": "string"}
    assert breaking_changes(gives(wide), gives(narrow)) == ()
    assert "null is not allowed" in breaking_changes(gives(narrow), gives(wide))[0]


def test_references_are_followed_as_far_as_they_can_be() -> None:
    def doc(line: dict[str, Any]) -> dict[str, Any]:
        return {"properties": {"line": {"$ref": "#/$defs/line"}}, "$defs": {"line": line}}

    assert narrowed(doc({"type": "string"}), doc({"type": ["string", "null"]})) == []
    assert narrowed(doc({"type": ["string", "null"]}), doc({"type": "string"}))
    loop = {"$ref": "#/$defs/line"}
    assert "refers to itself" in narrowed(doc(loop), doc({}))[0]
    # Four definitions that each name the next one thirty times: a million parts.
    names = [f"d{number}" for number in range(5)]
    defs = {name: {"allOf": [{"$ref": f"#/$defs/{after}"}] * 30} for name, after in itertools.pairwise(names)}
    bomb = {"$ref": "#/$defs/d0", "$defs": {**defs, "d4": {}}}
    assert "parts" in narrowed(bomb, {"type": "string"})[0]


@pytest.mark.parametrize(
    ("wide", "narrow", "value"),
    [
        # keywords that lend each other their meaning, which drawing at random seldom brings together
        (
            {"properties": {"a": {}}, "unevaluatedProperties": False},
            {"properties": {"b": {}}, "unevaluatedProperties": False},
            {"a": 1},
        ),
        (
            {"patternProperties": {"^a": {}}, "additionalProperties": False},
            {"patternProperties": {"^a": {}}, "properties": {"ab": TEXT}, "additionalProperties": False},
            {"ab": 1},
        ),
        ({"contains": NUMBER, "minContains": 0}, {"contains": NUMBER}, []),
        ({"prefixItems": [TEXT], "items": NUMBER}, {"items": NUMBER}, ["a"]),
    ],
)
def test_a_keyword_that_is_the_same_may_still_mean_less(wide: Any, narrow: Any, value: Any) -> None:
    assert allows(wide, value)
    assert not allows(narrow, value)
    assert narrowed(wide, narrow)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.5, 1.0, "", "a", "abc"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abx"), inner, max_size=3),
    max_leaves=6,
)


def schemas(depth: int = 2) -> st.SearchStrategy[Any]:
    small = st.integers(0, 3)
    words: dict[str, st.SearchStrategy[Any]] = {
        "type": st.sampled_from(["object", "array", "string", "number", "integer", ["null", "boolean"], "boolean"]),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "minimum": small,
        "exclusiveMaximum": small,
        "minLength": small,
        "maxItems": small,
        "minProperties": small,
        "required": st.lists(st.sampled_from("abx"), unique=True, max_size=2),
        "title": st.just("said"),
        "uniqueItems": st.booleans(),
        "multipleOf": st.sampled_from([0.5, 2]),
    }
    if depth:
        inner = schemas(depth - 1)
        named = st.dictionaries(st.sampled_from("abx"), inner, max_size=2)
        words |= {
            "properties": named,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "x"]), inner, max_size=1),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "contains": inner,
            "minContains": st.integers(0, 2),
            "maxContains": st.integers(0, 2),
            "not": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "unevaluatedProperties": inner,
            "$ref": st.sampled_from(["#", "#/$defs/one", "#/properties/a"]),
            "$defs": st.fixed_dictionaries({"one": inner}),
        }
    # Up to four keywords: more refuse everything, and then nothing is tested.
    chosen = st.lists(st.sampled_from(sorted(words)), unique=True, max_size=4)
    objects = chosen.flatmap(lambda names: st.fixed_dictionaries({name: words[name] for name in names}))
    return objects | st.booleans() if depth < 2 else objects


def allows(schema: Any, value: Any) -> bool:
    try:
        return bool(Draft202012Validator(schema).is_valid(value))
    except (Unresolvable, RecursionError):  # a reference to nothing, or one that never ends: no value can be judged
        return False


@st.composite
def changes(draw: st.DrawFn) -> tuple[Any, Any]:
    """Two schemas that differ in a keyword or two, as two versions of one method do."""
    old = draw(schemas())
    other = draw(schemas())
    mixed = {**old, **{name: other[name] for name in list(other)[:2]}}
    for name in draw(st.lists(st.sampled_from(sorted(mixed)), max_size=2)) if mixed else ():
        mixed.pop(name, None)
    return (old, mixed) if draw(st.booleans()) else (mixed, old)


@settings(max_examples=250, deadline=None)
@given(changes(), st.lists(VALUES, min_size=8, max_size=8))
def test_a_change_called_compatible_never_refuses_what_was_allowed(pair: tuple[Any, Any], values: list[Any]) -> None:
    wide, narrow = pair
    if narrowed(wide, narrow) == []:
        refused = [value for value in values if allows(wide, value) and not allows(narrow, value)]
        assert refused == [], (wide, narrow)
