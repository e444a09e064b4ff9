"""Version constraints: what npm's own documentation says of each form, and laws that hold for any version."""

import contextlib

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from hotswap.dependencies.constraint import parse_constraint
from hotswap.domain.errors import InvalidInput


@pytest.mark.parametrize(
    ("constraint", "allowed", "refused"),
    [
        ("1.2.3", "1.2.3 1.2.3+build", "1.2.4 1.2.3-rc.1"),
        ("=1.2.3", "1.2.3", "1.2.2"),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 2.0.0-alpha 1.3.0-rc.1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2 1.0.0"),
        ("^0.0.3", "0.0.3", "0.0.4 0.1.0"),
        ("^0", "0.0.0 0.9.9", "1.0.0"),
        ("^0.0", "0.0.7", "0.1.0"),
        ("^1.x", "1.0.0 1.7.2", "2.0.0 0.9.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~1", "1.0.0 1.9.9", "2.0.0"),
        ("~0.2", "0.2.9", "0.3.0"),
        ("1.x", "1.0.0 1.2.3", "2.0.0"),
        ("1.2.*", "1.2.0 1.2.7", "1.3.0"),
        ("*", "0.0.0 9.9.9", "1.0.0-rc.1"),
        ("^*", "0.0.0 9.9.9", "1.0.0-rc.1"),
        (">=1.2 <2", "1.2.0 1.9.9", "1.1.9 2.0.0 2.0.0-rc.1"),
        (">=1.2,<2", "1.2.0", "2.0.0"),
        (">= 1.2 , < 2", "1.2.0", "2.0.0"),
        (">1", "2.0.0", "1.0.0 1.9.9"),
        (">1.2", "1.3.0", "1.2.9"),
        ("<=1.2", "1.2.9", "1.3.0"),
        (">*", "", "0.0.0 9.9.9"),
        ("<=*", "0.0.0 9.9.9", ""),
        ("1.2 - 2.3", "1.2.0 2.3.9", "2.4.0 1.1.9"),
        ("1.2.3 - 2.3.4", "2.3.4", "2.3.5"),
        ("<1 || ^3.1", "0.9.0 3.2.0", "1.0.0 3.0.0"),
        ("^1.2.3-rc.1", "1.2.3-rc.1 1.2.3-rc.2 1.2.3 1.5.0", "1.2.3-beta 1.2.4-rc.1"),
        (">=1.0.0-alpha <1.0.0", "1.0.0-alpha 1.0.0-rc.1", "1.0.0 0.9.0"),
        ("v1.2.3", "1.2.3", "1.2.4"),
    ],
)
def test_a_constraint_means_what_npm_says(constraint: str, allowed: str, refused: str) -> None:
    parsed = parse_constraint(constraint)
    assert [version for version in allowed.split() if not parsed.allows(version)] == []
    assert [version for version in refused.split() if parsed.allows(version)] == []


@pytest.mark.parametrize(
    "text",
    ["", " ", "||", "1 ||", "latest", "^", ">=", "1.2.3.4", "1.2-rc.1", "1.02.3", "1.2.3-", "1.2.3-01", ">=1<2", "=>1",
     "1 - ", "^1 - 2", "1.x.3-rc", "!=1", "a" * 300, "1 " * 60, "1.2.3\n"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"version constraint|comparators"):
        parse_constraint(text)


NUMBER = st.integers(0, 4)
PRE = st.sampled_from(["", "-0", "-alpha", "-alpha.1", "-rc.1", "-rc.2"])
VERSION = st.builds(lambda major, minor, patch, pre: f"{major}.{minor}.{patch}{pre}", NUMBER, NUMBER, NUMBER, PRE)


@given(VERSION, VERSION)
def test_bounds_follow_semver_order(asked: str, version: str) -> None:
    left, right = semver.Version.parse(version), semver.Version.parse(asked)
    visible = not left.prerelease or (left.finalize_version() == right.finalize_version() and bool(right.prerelease))
    for operator, holds in ((">=", left >= right), ("<=", left <= right), (">", left > right), ("<", left < right)):
        assert parse_constraint(f"{operator}{asked}").allows(version) is (holds and visible)
    assert parse_constraint(asked).allows(version) is (left == right)


@given(VERSION, VERSION)
def test_compatible_means_nothing_left_of_the_first_number_changes(asked: str, version: str) -> None:
    left, right = semver.Version.parse(version), semver.Version.parse(asked)
    leading = next((place for place, number in enumerate(right.to_tuple()[:3]) if number), 2)
    same = left.to_tuple()[: leading + 1] == right.to_tuple()[: leading + 1]
    visible = not left.prerelease or left.finalize_version() == right.finalize_version()
    if parse_constraint(f"^{asked}").allows(version):
        assert same
        assert left >= right
        assert visible
    elif not left.prerelease:
        assert not (same and left >= right)


@given(VERSION, VERSION, VERSION)
def test_or_is_any_and_and_is_both(first: str, second: str, version: str) -> None:
    one, other = f"^{first}", f"<={second}"
    allows = [parse_constraint(text).allows(version) for text in (one, other)]
    assert parse_constraint(f"{one} || {other}").allows(version) is any(allows)
    if not semver.Version.parse(version).prerelease:
        assert parse_constraint(f"{one} {other}").allows(version) is all(allows)
        assert parse_constraint(f"{one},{other}").allows(version) is all(allows)


@given(st.text(alphabet="0123456789.xX*^~<>=| ,-+ab", max_size=30), VERSION)
def test_anything_is_read_or_refused(text: str, version: str) -> None:
    with contextlib.suppress(InvalidInput):
        parse_constraint(text).allows(version)
