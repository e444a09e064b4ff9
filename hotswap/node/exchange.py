"""One request on its way through the router. Data only; made for every request, so it is small and has no dict."""

from typing import TYPE_CHECKING

from hotswap.ports.hosts import CallTaker, Reply

if TYPE_CHECKING:
    import asyncio

    from hotswap.node.backlog import Backlog
    from hotswap.node.connection import Connection
    from hotswap.node.quotas import Meter
    from hotswap.node.refusals import Refusal
    from hotswap.node.router import Router
    from hotswap.node.serving import ServedVersion
    from hotswap.node.traced_calls import CallSpan


class Exchange:
    """A request and what is known of it. `started`, `turn_came` and `wait_until` are seconds of the event loop's clock."""

    __slots__ = (
        "abandoned",
        "backlog",
        "body",
        "connection",
        "handle",
        "host",
        "keep_alive",
        "meter",
        "method",
        "old_keep_alive",
        "plugin",
        "queue_of",
        "refusal",
        "router",
        "span",
        "started",
        "tenant",
        "timer",
        "traceparent",
        "turn_came",
        "wait_until",
    )

    def __init__(self, router: "Router", connection: "Connection", target: tuple[str, str, str], body: bytes) -> None:
        self.router = router
        self.connection = connection
        self.tenant, self.plugin, self.method = target
        self.body = body
        self.started = 0.0
        """When it was dispatched."""
        self.keep_alive = True
        self.old_keep_alive = False
        """An HTTP/1.0 client that asked to keep the connection: it must be told that we do."""
        self.traceparent = b""
        self.refusal: Refusal | None = None
        self.host: ServedVersion | None = None
        """Who serves it, once decided: figures count there, also after a switch."""
        self.handle: CallTaker | None = None
        """The process it was last given to. A process that could not take it is not asked again."""
        self.meter: Meter | None = None
        """Where it is counted while it is under way."""
        self.backlog: Backlog | None = None
        """The queue it waits in."""
        self.span: CallSpan | None = None
        """Of a call that is traced."""
        self.turn_came = 0.0
        """When it left the latest queue to be decided for; 0.0 = it was in none."""
        self.queue_of: ServedVersion | None = None
        """The version of that queue."""
        self.wait_until = 0.0
        self.abandoned = False
        self.timer: asyncio.TimerHandle | None = None

    def waited_for(self, now: float, *, begun: bool) -> "ServedVersion | None":
        """Whose business took most of its time, which is over: a queue's, or that of the process, which has not `begun` it.
        None when it ran for most of it.
        """
        if self.turn_came - self.started > now - self.turn_came:
            return self.queue_of
        return None if begun else self.host

    def done(self, reply: Reply) -> None:
        """The host's answer (the callback given to HostHandle.submit)."""
        self.router.finish(self, reply)
