"""Logs the absence of a server that the node can do without, and how long one look at PostgreSQL may take.

Neighbours: hotswap.node.reconcile, tenant_auth and tenant_watch, each with its own.
"""

import logging

log = logging.getLogger(__name__)

READ_TIMEOUT = 10.0
"""Seconds for one look at PostgreSQL. A server that hangs must count as away."""


class Outage:
    """Logs the beginning and the end of a server's absence, once each."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._away = False

    def failed(self, fault: BaseException) -> None:
        if not self._away:
            self._away = True
            log.warning("%s is away (%s: %s); serving on, trying again", self._what, type(fault).__name__, fault)

    def passed(self) -> None:
        if self._away:
            self._away = False
            log.info("%s is back", self._what)
