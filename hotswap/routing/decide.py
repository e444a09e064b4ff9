"""Decides which version serves a tenant. Pure: a hash and a table, under 1 us.

Neighbours: hotswap.node.router asks for every request; hotswap.domain.routes has the facts. Pin first; else the cohort:
xxh3_64("{seed}\\0{tenant}") % 10,000 below the candidate's weight in basis points. So both arms are sticky, raising the
weight only adds tenants, and the same seed (plugin and target version) gives a retry the same cohort.
"""

from collections.abc import Mapping

from xxhash import xxh3_64_intdigest

from hotswap.domain.routes import FULL_WEIGHT, ArtifactRef, RouteState


def in_cohort(seed: str, tenant: str, weight: int) -> bool:
    """Whether the tenant is among the first `weight` basis points (0 to 10,000) of tenants under this seed."""
    return xxh3_64_intdigest(f"{seed}\0{tenant}".encode()) % FULL_WEIGHT < weight


def state_on_node(state: RouteState, node_id: str) -> RouteState:
    """The state as this node must see it: full weight where the candidate serves all tenants (rolling).

    Made once when a route is published, so that deciding for a request costs nothing more.
    """
    if node_id not in state.switched_nodes:
        return state
    return state.model_copy(update={"candidate_weight": FULL_WEIGHT})


def choose_version(tenant: str, state: RouteState, pins: Mapping[str, ArtifactRef]) -> str | None:
    """The version that serves the tenant, or None when none does: not pinned, not in the cohort, and no stable version."""
    pinned = pins.get(tenant)
    if pinned is not None:
        return pinned.version
    if state.candidate is not None and in_cohort(state.seed, tenant, state.candidate_weight):
        return state.candidate.version
    return state.stable.version if state.stable is not None else None
