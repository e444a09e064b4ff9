"""What a router process is told when it begins. Data; the limits' arithmetic is pure.

Neighbours: hotswap.node.agent fills it in, hotswap.node.router_pool sends it, hotswap.node.router_worker builds a Router.
"""

import math
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from hotswap.domain.base import Model
from hotswap.domain.deployment import Environment
from hotswap.domain.quota import Quota
from hotswap.node.limits import RouterLimits


class RouterSetup(Model):
    """The same for every router process of a node. Never in a log: it holds the platform's token."""

    node_id: str
    environment: Environment
    tenant_token: str
    issuer: str
    leeway: timedelta
    invoke_timeout: timedelta
    limits: RouterLimits
    """Of the whole node; `share` says what one of its routers enforces."""
    quota: Quota
    sampling_rate: float | None = None
    """Of calls that bring no trace; None = no call is traced."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def share(limits: RouterLimits, routers: int) -> RouterLimits:
    """What one of several routers enforces, so that together they hold the node's limits.

    The kernel spreads connections by chance, so each gets four standard deviations (of a Poisson count) more than its
    part: a node may take that many more, but none is turned away while the node has room.
    """
    return replace(
        limits,
        connections=_by_chance(limits.connections, routers),
        connections_per_address=_by_chance(limits.connections_per_address, routers),
        waiting=math.ceil(limits.waiting / routers),
        queued=math.ceil(limits.queued / routers),
        in_flight_per_host=math.ceil(limits.in_flight_per_host / routers),
    )


def _by_chance(limit: int, routers: int) -> int:
    mean = limit / routers
    return min(limit, math.ceil(mean + 4 * math.sqrt(mean)))
