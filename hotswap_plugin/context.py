"""What a plugin's method is told besides its parameters. Standard library only; hotswap.runtime.host_server makes one a call."""

import re
import time
from collections.abc import Mapping
from typing import Any

from hotswap_plugin.settings import NOTHING, Secrets, TenantView

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Context:
    """One call's surroundings. Made for every call, so small: what needs work is worked out when it is asked for."""

    __slots__ = ("_traceparent", "_view", "deadline", "plugin", "tenant", "version")

    def __init__(
        self,
        tenant: str,
        plugin: str,
        version: str,
        deadline: float,
        traceparent: bytes = b"",
        view: TenantView = NOTHING,
    ) -> None:
        """`traceparent`: W3C trace context, the node's or as the client sent it; not looked at yet."""
        self.tenant = tenant
        self.plugin = plugin
        self.version = version
        self.deadline = deadline
        """time.monotonic() after which nobody waits for the answer: the caller then has a TIMEOUT already."""
        self._traceparent = traceparent
        self._view = view

    def __repr__(self) -> str:
        return f"<Context of {self.plugin} {self.version} for tenant {self.tenant}>"

    @property
    def seconds_left(self) -> float:
        """Until the deadline, never below 0: a timeout for whatever the method waits for."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def traceparent(self) -> str:
        """W3C trace context to pass on in a header of that name: the node's span of this call when it is traced, else the
        caller's as it came; "" when there is none that is valid."""
        return self._traceparent.decode("ascii") if _TRACEPARENT.fullmatch(self._traceparent) else ""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; "" when there is no valid trace context."""
        found = _TRACEPARENT.fullmatch(self._traceparent)
        return found[1].decode("ascii") if found else ""

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits: the caller's span, or the node's when the call is traced; "" as for `trace_id`."""
        return self._traceparent[36:52].decode("ascii") if self.trace_id else ""

    @property
    def config(self) -> Mapping[str, Any]:
        """The tenant's configuration over the defaults of the manifest's configurationSchema. Read-only.

        It stays as it is until the call ends; a change reaches the next call.
        """
        return self._view.config

    @property
    def secrets(self) -> Secrets:
        """The tenant's secrets by name. Raises PermissionError when the manifest does not ask for them."""
        if self._view.secrets is None:
            raise PermissionError("this plugin may not read secrets; ask for it in requiredPermissions: secrets.read")
        return self._view.secrets

    @property
    def settings_version(self) -> int:
        """Differs whenever the tenant's configuration or secrets do: the key under which to keep what is made of them."""
        return self._view.version
