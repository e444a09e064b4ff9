"""Proposes which releases to deploy first, and in which order, so that a wanted version fits an environment. Pure.

resolvelib (pip's resolver) chooses versions; then each is tried in turn by hotswap.dependencies.check, since a set that fits
together need not be reachable one deployment at a time. What serves is kept wherever it can be.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, Resolver
from resolvelib.resolvers import ResolutionTooDeep

from hotswap.dependencies.check import problems_of, ruled_out
from hotswap.dependencies.constraint import Constraint, parse_constraint
from hotswap.dependencies.models import Release, Serving, Verdict, WayOut
from hotswap.domain.errors import InvalidInput
from hotswap.domain.manifest import version_order

MAX_ROUNDS = 2_000
"""Of the resolver: enough for hundreds of plugins; more is an answer nobody could follow."""


@dataclass(frozen=True, slots=True)
class _Requirement:
    """`plugin` must be allowed by `wanted` (None: any version will do); with `ruled_out`, must not be."""

    plugin: str
    wanted: Constraint | None
    by: str
    ruled_out: bool = False

    def takes(self, release: Release) -> bool:
        return self.wanted is None or self.wanted.allows(release.version) is not self.ruled_out

    @property
    def words(self) -> str:
        which = self.wanted.text if self.wanted else "in some version"
        return f"{self.by} {'rules out' if self.ruled_out else 'needs'} {self.plugin} {which}"


def judge(target: Release, serving: Serving, known: Mapping[str, Sequence[Release]]) -> Verdict:
    """Whether `target` fits, and if not what to deploy first. `known`: by plugin the releases that may be deployed there."""
    problems = problems_of(target, serving)
    return Verdict(problems=problems, way_out=way_out(target, serving, known) if problems else WayOut())


def way_out(target: Release, serving: Serving, known: Mapping[str, Sequence[Release]]) -> WayOut:
    """The steps before `target`, none of which breaks anything when its turn comes; or why there are none."""
    try:
        chosen = _resolved(target, serving, known)
    except ResolutionImpossible as fault:
        causes = sorted({cause.requirement.words for cause in fault.causes})
        return WayOut(why_not=f"no registered versions fit together: {'; '.join(causes[:5])}")
    except ResolutionTooDeep:
        return WayOut(why_not=f"no versions that fit together were found in {MAX_ROUNDS} rounds")
    changes = [
        release
        for name, release in sorted(chosen.items())
        if name != target.plugin and release.version not in {one.version for one in serving.get(name, ())}
    ]
    return _ordered(target, changes, serving)


def _ordered(target: Release, changes: list[Release], serving: Serving) -> WayOut:
    now: dict[str, Sequence[Release]] = dict(serving)
    steps: list[Release] = []
    while changes:
        possible = next((release for release in changes if not problems_of(release, now)), None)
        if possible is None:
            stuck = ", ".join(release.name for release in [*changes, target])
            return WayOut(
                why_not=f"{stuck} need each other at once: make one dependency optional, or upload a version that works "
                "with the old and the new one"
            )
        changes.remove(possible)
        now[possible.plugin] = [possible]
        steps.append(possible)
    if problems := problems_of(target, now):
        return WayOut(why_not=f"nothing to deploy first mends this: {problems[0].message}")
    return WayOut(steps=tuple(steps))


def tied(names: set[str], releases: Iterable[Release]) -> set[str]:
    """The plugins that these releases tie to `names`, by needing or by ruling out, in either direction, any way off."""
    groups = [{release.plugin, *named_by(release)} for release in releases]
    found = set(names)
    while touching := [group for group in groups if group & found and not group <= found]:
        found |= set().union(*touching)
    return found


def named_by(release: Release) -> Iterator[str]:
    """The plugins that a release needs or rules out."""
    for dependency in release.plugin_dependencies:
        yield dependency.name
        try:
            yield from (plugin for plugin, _ in ruled_out(dependency))
        except InvalidInput:
            continue  # told by the check


def _resolved(target: Release, serving: Serving, known: Mapping[str, Sequence[Release]]) -> Mapping[str, Release]:
    every = [target, *(one for found in (*serving.values(), *known.values()) for one in found)]
    group = tied({target.plugin}, every)
    roots = [_Requirement(name, None, "what serves") for name in sorted(group & serving.keys() - {target.plugin})]
    provider = _Provider(target, serving, known)
    resolver: Resolver[_Requirement, Release, str] = Resolver(provider, BaseReporter())
    found = resolver.resolve([_Requirement(target.plugin, None, "this deployment"), *roots], max_rounds=MAX_ROUNDS)
    return found.mapping


class _Provider(AbstractProvider[_Requirement, Release, str]):
    """Tells resolvelib what there is: the version in place first, then the newest release; pre-releases last."""

    def __init__(self, target: Release, serving: Serving, known: Mapping[str, Sequence[Release]]) -> None:
        self._target = target
        self._serving = serving
        self._known = known

    def identify(self, requirement_or_candidate: _Requirement | Release) -> str:
        return requirement_or_candidate.plugin

    def get_preference(
        self,
        identifier: str,
        resolutions: Mapping[str, Release],
        candidates: Mapping[str, Iterator[Release]],
        information: Mapping[str, Iterator[Any]],
        backtrack_causes: Sequence[Any],
    ) -> tuple[bool, bool, str]:
        """The target first, since it is given; then what is in conflict, as pip does it; then by name: always the same."""
        causing = any(cause.requirement.plugin == identifier for cause in backtrack_causes)
        return (identifier != self._target.plugin, not causing, identifier)

    def find_matches(
        self,
        identifier: str,
        requirements: Mapping[str, Iterator[_Requirement]],
        incompatibilities: Mapping[str, Iterator[Release]],
    ) -> list[Release]:
        wanted = list(requirements[identifier])
        unfit = {release.version for release in incompatibilities[identifier]}
        return [
            release
            for release in self._releases(identifier)
            if release.version not in unfit and all(requirement.takes(release) for requirement in wanted)
        ]

    def is_satisfied_by(self, requirement: _Requirement, candidate: Release) -> bool:
        return requirement.takes(candidate)

    def get_dependencies(self, candidate: Release) -> list[_Requirement]:
        found: list[_Requirement] = []
        for dependency in candidate.plugin_dependencies:
            try:
                wanted = parse_constraint(dependency.version_constraint)
                conflicts = list(ruled_out(dependency))
            except InvalidInput:
                continue  # the check tells it
            if not dependency.optional or self._there(dependency.name):
                found.append(_Requirement(dependency.name, wanted, candidate.name))
            found += [
                _Requirement(plugin, range_, candidate.name, ruled_out=True)
                for plugin, range_ in conflicts
                if self._there(plugin) or (plugin == dependency.name and not dependency.optional)
            ]
        return found

    def _there(self, plugin: str) -> bool:
        return plugin in self._serving or plugin == self._target.plugin

    def _releases(self, plugin: str) -> list[Release]:
        if plugin == self._target.plugin:
            return [self._target]
        in_place = list(self._serving.get(plugin, ()))
        there = {release.version for release in in_place}
        others = [release for release in self._known.get(plugin, ()) if release.version not in there]
        return in_place + sorted(others, key=_from_newest, reverse=True)


def _from_newest(release: Release) -> tuple[bool, Any, str]:
    order = version_order(release.version)
    return (order.prerelease is None, order, release.version)
