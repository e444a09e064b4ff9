"""Which tenants a version serves, environment by environment: by the same decision that routes their requests. Pure.

A tenant is counted exactly when it is pinned, or on record for the plugin; of the tenants that nobody wrote down, only the
share is known: the weight. Neighbour: hotswap.routing.decide.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from pydantic import Field

from hotswap.domain.base import Model
from hotswap.domain.deployment import Environment
from hotswap.domain.routes import FULL_WEIGHT, ArtifactRef, RouteRecord, RouteState
from hotswap.routing.decide import choose_version


class Role(StrEnum):
    STABLE = "Stable"
    CANDIDATE = "Candidate"
    WARM = "Warm"  # loaded without tenants, to go back to
    PINNED = "Pinned"  # only tenants that are pinned to it


class EnvironmentAdoption(Model):
    """One environment in which the version has a place."""

    environment: Environment
    generation: int
    role: Role
    weight_percent: float = Field(description="share of the tenants that are not pinned, by the route")
    switched_nodes: int = Field(default=0, description="nodes on which it serves all of them (a rolling update)")
    pinned_tenants: int
    known_tenants: int = Field(description="tenants on record that it serves, pinned ones included")


class Adoption(Model):
    """Who gets a version now. `tenants`: those on record that it serves anywhere, the first of them by name."""

    plugin_id: str
    version: str
    environments: tuple[EnvironmentAdoption, ...]
    tenants: tuple[str, ...]
    tenant_count: int
    tenants_on_record: int


def adoption_of(
    plugin: str,
    version: str,
    routes: Iterable[RouteRecord],
    pins: Mapping[str, ArtifactRef],
    tenants: Iterable[str],
    most: int,
) -> Adoption:
    """`tenants` are those on record; at most `most` of the served ones are listed."""
    on_record = sorted({*tenants, *pins})
    pinned = sum(ref.version == version for ref in pins.values())
    served: set[str] = set()
    environments: list[EnvironmentAdoption] = []
    for route in routes:
        role = _role(route.state, version, pinned)
        if role is None:
            continue
        here = [tenant for tenant in on_record if choose_version(tenant, route.state, pins) == version]
        served.update(here)
        environments.append(
            EnvironmentAdoption(
                environment=Environment(route.environment),
                generation=route.generation,
                role=role,
                weight_percent=_weight(route.state, version),
                switched_nodes=len(route.state.switched_nodes) if role is Role.CANDIDATE else 0,
                pinned_tenants=pinned,
                known_tenants=len(here),
            )
        )
    return Adoption(
        plugin_id=plugin,
        version=version,
        environments=tuple(environments),
        tenants=tuple(sorted(served)[:most]),
        tenant_count=len(served),
        tenants_on_record=len(on_record),
    )


def _role(state: RouteState, version: str, pinned: int) -> Role | None:
    if state.stable is not None and state.stable.version == version:
        return Role.STABLE
    if state.candidate is not None and state.candidate.version == version:
        return Role.CANDIDATE
    if any(ref.version == version for ref in state.warm):
        return Role.WARM
    return Role.PINNED if pinned and state.versions() else None


def _weight(state: RouteState, version: str) -> float:
    weight = 0
    if state.stable is not None and state.stable.version == version:
        weight += FULL_WEIGHT - state.candidate_weight
    if state.candidate is not None and state.candidate.version == version:
        weight += state.candidate_weight
    return 100 * weight / FULL_WEIGHT
