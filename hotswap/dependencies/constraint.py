"""Reads version constraints as npm writes them, over SemVer 2.0.0 (docs/dependencies.md, ADR 31). Pure.

    1.2.3            exactly this              >=1.2 <2, >1 || 3.x    all of a part, any of the parts
    ^1.2.3  ~1.2.3   compatible / patch only   1.x  1.2.*  *          any version that begins so
    1.2 - 2.3        from, up to and including

A space or a comma means and. A pre-release is allowed only by a part that names a pre-release of the same
major.minor.patch: `^1.2.3-rc.1` allows 1.2.3-rc.2, but not 1.3.0-rc.1; nobody gets an alpha unasked.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import ge, gt, le, lt

import semver

from hotswap.domain.errors import InvalidInput

MAX_LENGTH = 255
MAX_COMPARATORS = 50

_PART = re.compile(
    r"(?P<op>\^|~|>=|<=|>|<|={1,2}|)\s*v?"
    r"(?P<major>[0-9]{1,15}|[xX*])(?:\.(?P<minor>[0-9]{1,15}|[xX*])(?:\.(?P<patch>[0-9]{1,15}|[xX*])"
    r"(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?)?)?"
)
_HYPHEN = re.compile(r"^\s*(?P<low>[^\s,|]+)\s+-\s+(?P<high>[^\s,|]+)\s*$")
_COMPARE: dict[str, Callable[[semver.Version, semver.Version], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt}

Version = semver.Version


@dataclass(frozen=True, slots=True)
class Comparator:
    """One bound. `asked_for_pre`: a person wrote a pre-release here, it is not one we made up for an upper bound."""

    operator: str
    bound: Version
    asked_for_pre: bool = False

    def allows(self, version: Version) -> bool:
        return _COMPARE[self.operator](version, self.bound)


@dataclass(frozen=True, slots=True)
class Constraint:
    """Any of `parts`; of a part, all comparators (none: every release)."""

    text: str
    parts: tuple[tuple[Comparator, ...], ...]

    def allows(self, version: str) -> bool:
        found = _version(version)
        return any(_part_allows(part, found) for part in self.parts)


@lru_cache(maxsize=4096)
def parse_constraint(text: str) -> Constraint:
    """Raises InvalidInput (a repeat cannot help) quoting what cannot be read."""
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"a version constraint is over {MAX_LENGTH} characters")
    parts = tuple(tuple(_comparators(part, text)) for part in text.split("||"))
    if sum(map(len, parts)) > MAX_COMPARATORS:
        raise InvalidInput(f"'{text[:80]}' has over {MAX_COMPARATORS} comparators; write it shorter")
    return Constraint(text, parts)


@lru_cache(maxsize=4096)
def _version(text: str) -> Version:
    return semver.Version.parse(text)


def _part_allows(part: tuple[Comparator, ...], version: Version) -> bool:
    if not all(comparator.allows(version) for comparator in part):
        return False
    if not version.prerelease:
        return True
    core = (version.major, version.minor, version.patch)
    return any(one.asked_for_pre and (one.bound.major, one.bound.minor, one.bound.patch) == core for one in part)


def _comparators(part: str, whole: str) -> Iterator[Comparator]:
    if hyphen := _HYPHEN.match(part):
        low, high = (_PART.fullmatch(hyphen[name]) for name in ("low", "high"))
        if low is None or high is None or low["op"] or high["op"]:
            raise _unreadable(part.strip(), whole)
        yield from _expanded(">=", low, whole)
        yield from _expanded("<=", high, whole)
        return
    if not part.strip() and part != whole:
        raise _unreadable("||", whole)
    if not part.strip():
        raise InvalidInput("a version constraint is empty; write * for every version")
    place = 0
    while place < len(part):
        if part[place] in " \t,":
            place += 1
            continue
        match = _PART.match(part, place)
        if match is None or not (match.end() == len(part) or part[match.end()] in " \t,"):
            raise _unreadable(part[place:].strip(), whole)
        yield from _expanded(match["op"].replace("==", "="), match, whole)
        place = match.end()


def _unreadable(what: str, whole: str) -> InvalidInput:
    return InvalidInput(
        f"'{whole[:80]}' is not a version constraint at '{what[:40]}'; write one such as ^1.4, ~1.4.2, >=1.2 <2 or 1.x"
    )


def _expanded(operator: str, match: re.Match[str], whole: str) -> Iterator[Comparator]:
    """A comparator as people write it, as plain bounds: `^1.2` is >=1.2.0 and <2.0.0-0."""
    numbers = []
    for name in ("major", "minor", "patch"):
        if match[name] is None or match[name] in "xX*":
            break
        numbers.append(int(match[name]))
    given, pre = len(numbers), match["pre"]
    if pre is not None and given < 3:
        raise _unreadable(match[0], whole)
    core = ".".join(match[name] for name in ("major", "minor", "patch")[:given])
    try:  # as text, which refuses leading zeros and empty identifiers
        low = semver.Version.parse(f"{core}{'.0' * (3 - given)}".lstrip(".") + (f"-{pre}" if pre else ""))
    except ValueError:
        raise _unreadable(match[0], whole) from None
    asked = pre is not None
    match operator:
        case "^":
            fixed = next((place for place, number in enumerate(numbers) if number), max(given - 1, 0))
            yield from _between(low, fixed if given else -1, asked)
        case "~":
            yield from _between(low, min(1, given - 1), asked)
        case "" | "=":
            if given < 3:
                yield from _between(low, given - 1, asked)
            else:
                yield Comparator(">=", low, asked)
                yield Comparator("<=", low, asked)
        case ">=":
            yield Comparator(">=", low, asked)
        case "<":
            yield Comparator("<", low if asked or given == 3 else low.replace(prerelease="0"), asked)
        case ">":
            if given == 3:
                yield Comparator(">", low, asked)
            elif given == 0:
                yield Comparator("<", semver.Version(0, 0, 0, "0"))  # nothing is above every version
            else:
                yield Comparator(">=", _next(low, given - 1))
        case _:  # <=
            if given == 3:
                yield Comparator("<=", low, asked)
            elif given:
                yield Comparator("<", _next(low, given - 1))


def _between(low: Version, fixed: int, asked: bool) -> Iterator[Comparator]:
    """From `low` to before the next one at place `fixed` (0 major, 1 minor, 2 patch; -1: without end)."""
    yield Comparator(">=", low, asked)
    if fixed >= 0:
        yield Comparator("<", _next(low, fixed))


def _next(low: Version, place: int) -> Version:
    """The very first version, pre-releases counted, of the next number at `place`."""
    release = semver.Version(low.major, low.minor, low.patch)
    step = (release.bump_major, release.bump_minor, release.bump_patch)[place]()
    return step.replace(prerelease="0")
