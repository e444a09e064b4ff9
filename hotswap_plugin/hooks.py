"""What a plugin's class may have besides its methods. Nothing need be inherited: hosts look for the names. No imports."""

from collections.abc import Awaitable


class Unhealthy(Exception):
    """Raise it from `health` to say why the plugin is not well; the probe's report carries the text."""


class Plugin:
    """Optional base class: it only says which hooks there are. Each may be `async def`.

    The class is constructed without arguments, once for each process, before the process is called ready: a failure
    there fails the rollout and not a request. One object serves many tenants, several calls at a time.
    """

    def health(self) -> Awaitable[bool | None] | bool | None:
        """Asked by probes (every 30 s, and at each step of a rollout). None or True is well; False, Unhealthy or any other
        exception counts against the version. Keep it under a second."""
        return True

    def close(self) -> Awaitable[None] | None:
        """Called when the process is about to end in order. It has one second; a process that is killed has none."""
        return None
