"""Where a request wants to go, out of its path. Neighbour: hotswap.node.router asks for each request."""

import re

Target = tuple[str, str, str]
"""(tenant, plugin, method)"""

_PATH = re.compile(
    rb"^/invoke/([A-Za-z0-9][A-Za-z0-9._-]{0,127})/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)/([a-z][a-z0-9_]{0,63})(?:\?.*)?$"
)
_MOST = 20_000
"""Parsed paths kept; all are dropped when full. 200 tenants of 100 methods fit; a scan only costs the parse again."""


class Targets(dict[bytes, Target]):
    """What was read lately, by path: `get` is the hot path, `read` for what is not there."""

    def read(self, url: bytes) -> Target | None:
        """Parse and keep; None when it is no path of the data plane."""
        found = _PATH.match(url)
        if found is None:
            return None
        target = (found[1].decode(), found[2].decode(), found[3].decode())
        if len(self) >= _MOST:
            self.clear()
        self[url] = target
        return target
