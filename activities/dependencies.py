"""Whether a version fits what an environment serves: fetches the facts that hotswap.dependencies thinks about.

Not an activity itself: activities.planning asks before a plan is made, activities.routing once more before the first
tenant, and the facade for its answers.
"""

import asyncio

from hotswap.dependencies.check import problems_of
from hotswap.dependencies.models import Release, Serving, Verdict
from hotswap.dependencies.resolve import judge, tied
from hotswap.domain.deployment import Environment
from hotswap.domain.registry import PluginVersion
from hotswap.domain.release import ACCEPTED
from hotswap.ports.records import UnitOfWork

MAX_RELATED = 200
"""Plugins that a way out is looked for among; what is further away is left as it serves."""


def release_of(version: PluginVersion) -> Release:
    return Release(plugin=version.plugin, version=version.version, dependencies=version.manifest.dependencies)


async def dependency_verdict(uow: UnitOfWork, release: Release, environment: Environment) -> Verdict:
    """One query when it fits; the registry is asked for a way out only when it does not."""
    serving = await uow.dependencies.serving(environment)
    if not problems_of(release, serving):
        return Verdict()
    known = await _known(uow, release, serving, environment)
    return await asyncio.to_thread(judge, release, serving, known)  # a tangle may take the resolver a second


async def refuse_misfit(uow: UnitOfWork, release: Release, environment: Environment) -> None:
    """Raises DependencyConflict (never retried) with the chain, and with what to deploy first."""
    verdict = await dependency_verdict(uow, release, environment)
    if verdict.problems:
        raise verdict.refusal(release, environment)


async def admit(uow: UnitOfWork, release: Release, environment: Environment) -> None:
    """As `refuse_misfit`, of a unit that goes on to give the release its first tenant: of two releases that are tied to each
    other, the second one waits here until the first one's write is committed, and is judged beside it."""
    await uow.dependencies.lock(environment, release)
    await refuse_misfit(uow, release, environment)


async def _known(
    uow: UnitOfWork, release: Release, serving: Serving, environment: Environment
) -> dict[str, list[Release]]:
    """The releases of every plugin that is tied to this one, that may be deployed there."""
    known: dict[str, list[Release]] = {}
    asked: set[str] = set()
    every = [release, *(one for found in serving.values() for one in found)]
    while True:
        wanted = sorted(tied({release.plugin}, every) - asked)[: MAX_RELATED - len(asked)]
        if not wanted:
            return known
        asked.update(wanted)
        for found in await uow.dependencies.releases(wanted):
            if environment in ACCEPTED[found.status]:
                known.setdefault(found.release.plugin, []).append(found.release)
                every.append(found.release)
