"""What one client of a router, and all of them together, may cost. Data only; docs/data-plane.md tells operators."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RouterLimits:
    """What one client, and all of them together, may cost."""

    head_bytes: int = 16 * 1024
    body_bytes: int = 1024 * 1024
    reply_bytes: int = 4 * 1024 * 1024
    """What a reply may have: counted for each call under way in its tenant's memory quota."""
    connections: int = 4096
    connections_per_address: int = 1024
    """A quarter of all: one client that leaks connections, or one balancer of at least four, cannot take them all."""
    read_seconds: float = 30.0
    """From a request's first byte to its last."""
    write_seconds: float = 30.0
    """How long a client may not read its answer."""
    idle_seconds: float = 75.0
    """Longer than the 60 s of common load balancers, so that they close first and never race us."""
    linger_seconds: float = 2.0
    wait_seconds: float = 2.0
    """How long a request waits for a host that is restarting: forty cold starts."""
    in_flight_per_host: int = 1000
    """Calls that one process may work on at once, begun or not: for plugins that let calls queue inside, unseen."""
    waiting: int = 1000
    queued: int = 4000
    """Requests that wait for busy hosts, all versions together; a version's own share is hotswap.node.backlog's."""
    sweep_seconds: float = 1.0
