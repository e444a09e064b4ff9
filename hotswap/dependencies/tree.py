"""Draws what a release needs, and what of it serves in an environment, as a tree. Pure. Neighbour: check judges."""

from hotswap.dependencies.check import allows
from hotswap.dependencies.models import Release, Serving
from hotswap.domain.base import Model
from hotswap.domain.errors import InvalidInput
from hotswap.domain.manifest import Dependency, SemVer

MAX_DEPTH = 20


class Need(Model):
    """One declared dependency with what serves of it. `cut`: what it needs is shown elsewhere in the tree, or too deep."""

    name: str
    version_constraint: str
    type: str
    optional: bool
    conflicts: tuple[str, ...]
    serves: tuple[SemVer, ...] = ()
    satisfied: bool | None = None  # null: a package, which no environment serves
    cut: bool = False
    dependencies: tuple["Need", ...] = ()


def needs_of(release: Release, serving: Serving) -> tuple[Need, ...]:
    """The dependencies of `release`, each release's own needs drawn once."""
    return _needs(release, serving, {release.name}, 0)


def dependents_of(plugin: str, serving: Serving) -> tuple[Release, ...]:
    """What serves and names `plugin` as a dependency, by name."""
    return tuple(
        release
        for name in sorted(serving)
        for release in serving[name]
        if any(dependency.name == plugin for dependency in release.plugin_dependencies)
    )


def _needs(release: Release, serving: Serving, drawn: set[str], depth: int) -> tuple[Need, ...]:
    return tuple(_need(dependency, serving, drawn, depth) for dependency in release.dependencies)


def _need(dependency: Dependency, serving: Serving, drawn: set[str], depth: int) -> Need:
    found = list(serving.get(dependency.name, ())) if dependency.type == "Plugin" else []
    under: list[Need] = []
    cut = False
    for release in found:
        if not release.dependencies:
            continue
        if release.name in drawn or depth >= MAX_DEPTH:
            cut = True
            continue
        drawn.add(release.name)
        under += _needs(release, serving, drawn, depth + 1)
    return Need(
        name=dependency.name,
        version_constraint=dependency.version_constraint,
        type=dependency.type,
        optional=dependency.optional,
        conflicts=dependency.conflicts,
        serves=tuple(release.version for release in found),
        satisfied=_satisfied(dependency, found),
        cut=cut,
        dependencies=tuple(under),
    )


def _satisfied(dependency: Dependency, found: list[Release]) -> bool | None:
    if dependency.type != "Plugin":
        return None
    try:
        return dependency.optional if not found else all(allows(dependency, release.version) for release in found)
    except InvalidInput:
        return False
