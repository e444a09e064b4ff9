"""Which version serves which tenant: the state a route is in, by generation. Pure facts; hotswap.routing decides with them."""

from pydantic import Field, model_validator

from hotswap.domain.base import Digest, Instant, Model, PluginName
from hotswap.domain.manifest import SemVer

FULL_WEIGHT = 10_000
"""Weights on the wire of a route are basis points: 10,000 = 100 % of tenants."""


class ArtifactRef(Model):
    """Enough to fetch a version and prove that it is the one the registry means."""

    plugin: PluginName
    version: SemVer
    digest: Digest
    size_bytes: int = Field(ge=0)


class RouteState(Model):
    """What every node of an environment should serve for one plugin. Absolute: applying it twice is applying it once.

    `candidate_weight` is in basis points of tenants; `seed` fixes the cohort (a retry of a version reuses it);
    `warm` versions stay loaded without traffic (rollback window, blue-green). On `switched_nodes` the candidate serves ALL
    tenants, whatever the weight says (rolling). Left out of the JSON when empty: a node of the release before reads it.
    """

    stable: ArtifactRef | None = None
    candidate: ArtifactRef | None = None
    candidate_weight: int = Field(default=0, ge=0, le=FULL_WEIGHT)
    seed: str = Field(default="", max_length=200)
    warm: tuple[ArtifactRef, ...] = ()
    switched_nodes: tuple[str, ...] = Field(default=(), exclude_if=lambda nodes: not nodes)

    @model_validator(mode="after")
    def _switched_needs_candidate(self) -> "RouteState":
        if self.candidate is None and self.switched_nodes:
            raise ValueError("switchedNodes: must be empty without a candidate")
        return self

    @model_validator(mode="after")
    def _weight_needs_candidate(self) -> "RouteState":
        if self.candidate is None and self.candidate_weight:
            raise ValueError("candidateWeight: must be 0 without a candidate")
        return self

    def versions(self) -> tuple[ArtifactRef, ...]:
        """Every version that must be loaded, each once."""
        named = [ref for ref in (self.stable, self.candidate, *self.warm) if ref is not None]
        return tuple({ref.version: ref for ref in named}.values())


def has_tenants(state: RouteState, version: ArtifactRef) -> bool:
    """Whether this version serves any share of tenants by the route; pins not counted."""
    if state.stable == version:
        return True
    return state.candidate == version and (state.candidate_weight > 0 or bool(state.switched_nodes))


class RouteRecord(Model):
    """One row of the versioned route table: generation N of (environment, plugin)."""

    environment: str
    plugin: PluginName
    generation: int = Field(ge=1)
    state: RouteState
    deployment_id: str
    written_at: Instant


class RouteOrder(Model):
    """What a workflow, or the node's own reconciliation, orders a node to serve. Fenced by `generation`."""

    plugin: PluginName
    generation: int = Field(ge=1)
    state: RouteState


class DesiredRoute(Model):
    """What PostgreSQL says a node should run for one plugin, pins included (tenant -> version)."""

    order: RouteOrder
    pins: dict[str, ArtifactRef] = Field(default_factory=dict)
