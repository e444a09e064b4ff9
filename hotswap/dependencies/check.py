"""Whether a version fits an environment: what it needs serves there, and what serves there does not mind it. Pure.

Neighbours: models has the words, constraint reads ranges, resolve proposes what to deploy first.
"""

import re
from collections.abc import Iterator

from hotswap.dependencies.constraint import Constraint, parse_constraint
from hotswap.dependencies.models import Problem, ProblemKind, Release, Serving
from hotswap.domain.base import MAX_HISTORY_TEXT, bounded
from hotswap.domain.errors import FieldFault, InvalidInput
from hotswap.domain.manifest import Dependency

_NAMED = re.compile(r"(?P<plugin>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:@(?P<range>.+))?", re.DOTALL)
_LETTER = re.compile(r"[a-uw-z]")
"""A range has no letter but v and x before its first digit; a plugin that is called so is written with its @*."""

MAX_PROBLEMS = 50

MAX_CHAIN = 64
"""Links that are followed; a longer chain is nobody's design, and Python's stack ends somewhere."""


def problems_of(target: Release, serving: Serving) -> tuple[Problem, ...]:
    """Everything that speaks against `target` taking the place of what serves of its plugin; empty when it fits.

    Its own needs come first, followed along what serves to the end, then who depends on it.
    """
    found: dict[Problem, None] = {}
    for problem in (*_needs(target, target, serving, (target.name,), set()), *_minded(target, serving)):
        found.setdefault(problem)
        if len(found) == MAX_PROBLEMS:
            break
    return tuple(found)


def declared_faults(release: Release) -> list[FieldFault]:
    """What is wrong with the declarations themselves; judged once, at upload, with the key of the manifest."""
    faults: list[FieldFault] = []
    for index, dependency in enumerate(release.dependencies):
        where = f"dependencies.{index}"
        if dependency.type != "Plugin":
            continue
        if not (named := _NAMED.fullmatch(dependency.name)) or named["range"] is not None:
            faults.append(FieldFault(f"{where}.name", "is not a plugin's name: lower-case letters, digits, hyphens"))
        if dependency.name == release.plugin:
            faults.append(FieldFault(f"{where}.name", "is this plugin itself; a plugin cannot depend on itself"))
        try:
            parse_constraint(dependency.version_constraint)
        except InvalidInput as fault:
            faults.append(FieldFault(f"{where}.versionConstraint", fault.message))
        for number, text in enumerate(dependency.conflicts):
            try:
                _ruled_out(dependency, text)
            except InvalidInput as fault:
                faults.append(FieldFault(f"{where}.conflicts.{number}", fault.message))
    return faults


def allows(dependency: Dependency, version: str) -> bool:
    """Whether the dependency takes this version of what it names. Raises InvalidInput for an unreadable declaration."""
    if not parse_constraint(dependency.version_constraint).allows(version):
        return False
    return not any(plugin == dependency.name and range_.allows(version) for plugin, range_ in ruled_out(dependency))


def ruled_out(dependency: Dependency) -> Iterator[tuple[str, Constraint]]:
    """`conflicts` as (plugin, range): a bare range speaks of the dependency itself, `name@range` of anybody else.

    Raises InvalidInput for one that is neither.
    """
    for text in dependency.conflicts:
        yield _ruled_out(dependency, text)


def _ruled_out(dependency: Dependency, text: str) -> tuple[str, Constraint]:
    head = text.partition("@")[0]
    if "@" not in text and not _LETTER.search(head):
        return dependency.name, parse_constraint(text)
    named = _NAMED.fullmatch(text)
    if named is None:
        try:
            return dependency.name, parse_constraint(text)
        except InvalidInput:
            raise InvalidInput(
                f"'{text[:80]}' is neither a range of {dependency.name} such as '2.1.x' nor 'plugin' or 'plugin@range'"
            ) from None
    return named["plugin"], parse_constraint(named["range"] or "*")


def _needs(
    release: Release, target: Release, serving: Serving, chain: tuple[str, ...], seen: set[str]
) -> Iterator[Problem]:
    """What `release` and everything under it needs, where `target` stands in for its plugin."""
    if release.name in seen or len(chain) > MAX_CHAIN:
        return
    seen.add(release.name)
    for dependency in release.plugin_dependencies:
        try:
            yield from _need(release, dependency, target, serving, chain, seen)
        except InvalidInput as fault:
            yield _problem(ProblemKind.UNREADABLE, (*chain, dependency.name), f"{release.name}: {fault.message}")


def _need(
    release: Release,
    dependency: Dependency,
    target: Release,
    serving: Serving,
    chain: tuple[str, ...],
    seen: set[str],
) -> Iterator[Problem]:
    needed = f"{dependency.name} {dependency.version_constraint}"
    found = [target] if dependency.name == target.plugin else serving.get(dependency.name, ())
    if not found and not dependency.optional:
        yield _problem(
            ProblemKind.MISSING, (*chain, needed), f"{release.name} needs {needed}, and no {dependency.name} serves"
        )
    constraint = parse_constraint(dependency.version_constraint)
    for there in found:
        link = (*chain, f"{needed} ({there.version} serves)" if there is not target else f"{needed} ({there.version})")
        if not constraint.allows(there.version):
            yield _problem(
                ProblemKind.UNSATISFIED,
                link,
                f"{release.name} needs {needed}, but {there.version} serves"
                if there is not target
                else f"{release.name} needs {needed}, which {target.version} is not",
            )
        elif there is not target:
            yield from _needs(there, target, serving, link, seen)
    for plugin, range_ in ruled_out(dependency):
        for there in [target] if plugin == target.plugin else serving.get(plugin, ()):
            if range_.allows(there.version):
                message = f"{release.name} does not work with {there.name} (conflicts: {range_.text})"
                yield _problem(ProblemKind.CONFLICT, (*chain, f"not {plugin} {range_.text}", there.name), message)


def _minded(target: Release, serving: Serving) -> Iterator[Problem]:
    """Who serves already and would break with `target`."""
    for plugin, releases in sorted(serving.items()):
        if plugin == target.plugin:
            continue
        for release in releases:
            for dependency in release.plugin_dependencies:
                try:
                    why = _minds(release, dependency, target)
                except InvalidInput:
                    continue  # its own fault: it serves with it, and target cannot be measured by it
                if why:
                    yield _problem(ProblemKind.DEPENDENT, (target.name, release.name), why)


def _minds(release: Release, dependency: Dependency, target: Release) -> str:
    if dependency.name == target.plugin:
        constraint = dependency.version_constraint
        if not parse_constraint(constraint).allows(target.version):
            return f"{release.name} serves and needs {target.plugin} {constraint}"
    for plugin, range_ in ruled_out(dependency):
        if plugin == target.plugin and range_.allows(target.version):
            return f"{release.name} serves and does not work with {target.plugin} {range_.text}"
    return ""


def _problem(kind: ProblemKind, chain: tuple[str, ...], message: str) -> Problem:
    """Bounded: its words enter a workflow's history."""
    return Problem(
        kind=kind, chain=tuple(bounded(link, 120) for link in chain), message=bounded(message, MAX_HISTORY_TEXT)
    )
