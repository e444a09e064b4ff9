"""Answers about dependencies: what a plugin needs and has in each environment, and whether a version would be let in.

Neighbours: activities.dependencies fetches and judges for a deployment in the same way, hotswap.dependencies thinks.
"""

from activities.dependencies import dependency_verdict, release_of
from api.schemas.versions import (
    DependenciesOut,
    DeployStep,
    EnvironmentDependencies,
    ValidateIn,
    ValidateOut,
)
from hotswap.dependencies.check import allows, problems_of
from hotswap.dependencies.models import Release, Serving
from hotswap.dependencies.tree import dependents_of, needs_of
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import InvalidInput
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory


class DependencyDesk:
    def __init__(self, unit_of_work: UnitOfWorkFactory) -> None:
        self._unit_of_work = unit_of_work

    async def dependencies(self, plugin: str, version: str | None, environment: Environment | None) -> DependenciesOut:
        """Raises NotFound. Without `version`, of what serves in each environment, else of the newest version."""
        async with self._unit_of_work() as uow:
            found = await uow.plugins.get(plugin)
            asked = release_of(await uow.versions.get(plugin, version)) if version else None
            newest = asked
            if asked is None and found.current_version is not None:
                newest = release_of(await uow.versions.get(plugin, found.current_version))
            places = []
            for place in [environment] if environment else Environment:
                serving = await uow.dependencies.serving(place)
                places.append(_place(plugin, place, serving, asked, newest))
        return DependenciesOut(plugin_id=plugin, environments=tuple(places))

    async def validate(self, plugin: str, body: ValidateIn) -> ValidateOut:
        """What a deployment would be told. Raises NotFound."""
        async with self._unit_of_work() as uow:
            release = release_of(await uow.versions.get(plugin, body.version))
            verdict = await dependency_verdict(uow, release, body.environment)
            warnings = await _pinned_outside(uow, release)
        return ValidateOut(
            plugin_id=plugin,
            version=body.version,
            environment=body.environment,
            valid=not verdict.problems,
            problems=verdict.problems,
            first=tuple(DeployStep.of(step) for step in verdict.way_out.steps),
            suggestion=verdict.way_out.suggestion,
            warnings=warnings,
        )


def _place(
    plugin: str, environment: Environment, serving: Serving, asked: Release | None, newest: Release | None
) -> EnvironmentDependencies:
    here = serving.get(plugin, ())
    release = asked or (here[0] if here else newest)
    problems = problems_of(release, serving) if release else ()
    return EnvironmentDependencies(
        environment=environment,
        serves=here[0].version if here else None,
        version=release.version if release else None,
        satisfied=not problems,
        dependencies=needs_of(release, serving) if release else (),
        problems=problems,
        dependents=tuple(one.name for one in dependents_of(plugin, serving)),
    )


async def _pinned_outside(uow: UnitOfWork, release: Release) -> tuple[str, ...]:
    """Pins of tenants to a version of a dependency that this release does not take: nothing refuses for them.

    No tenant is named: the answer is for tenant owners too.
    """
    warnings: list[str] = []
    for dependency in release.plugin_dependencies:
        try:
            outside = sorted(
                ref.version
                for ref in (await uow.pins.pins(dependency.name)).values()
                if not allows(dependency, ref.version)
            )
        except InvalidInput:
            continue  # among the problems already
        if outside:
            warnings.append(
                f"{len(outside)} tenants are pinned to {dependency.name} {', '.join(dict.fromkeys(outside))}, which "
                f"{release.name} does not take ({dependency.version_constraint})"
            )
    return tuple(warnings)
