"""`python -m api`: serves the facade, configured by HOTSWAP_ variables. SIGTERM ends it in order, event streams included.

Neighbours: api.app builds what is served, hotswap.lifeline ties the process to its supervisor.
"""

from hotswap import quick_start  # isort: split

import asyncio
import logging
import os
import socket
import sys
from types import FrameType

import uvicorn
import uvloop
from temporalio.runtime import Runtime

from api.app import build_container, create_app
from api.dependencies import Container
from hotswap import temporal
from hotswap.config import Settings, SettingsInvalid, load_settings
from hotswap.lifeline import announce_ready, die_with_parent
from hotswap.telemetry import configure_logging, configure_tracing

quick_start.imports_are_done()

log = logging.getLogger("hotswap.api")

BACKLOG = 2048
GRACE_SECONDS = 10
"""How long requests that run may go on after SIGTERM: the longest, a command to a workflow, waits 10 s."""


class _Server(uvicorn.Server):
    """uvicorn that says when it serves, and on a signal ends event streams, which would never end by themselves."""

    def __init__(self, config: uvicorn.Config, container: Container, address: str) -> None:
        super().__init__(config)
        self._container = container
        self._address = address
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            log.info("the api serves http://%s, its routes are at /docs", self._address)
            announce_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not uvicorn's own, which raises the signal again at the end: an ordered stop is a success."""
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._container.streams.close)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the address cannot be had."""
    container = build_container(settings)
    with _listening(settings) as listener:
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(
            create_app(container),
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        await _Server(config, container, f"{host}:{port}").serve(sockets=[listener])


def _listening(settings: Settings) -> socket.socket:
    """Bound before anything else starts, so that a port in use is told at once. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in settings.api.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.api.host, settings.api.port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def main() -> int:
    """0 after an orderly end, 1 when it could not serve, 2 when the settings are wrong."""
    die_with_parent()
    try:
        settings = load_settings()
    except SettingsInvalid as fault:
        sys.stderr.write(f"{fault.message}\n")
        return 2
    configure_logging(settings.telemetry, service="api")
    tracing = configure_tracing(settings.telemetry, service="api")
    Runtime.set_default(temporal.make_runtime())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except OSError as fault:
        place = f"{settings.api.host}:{settings.api.port}"
        log.critical("cannot serve on %s: %s; set HOTSWAP_API__HOST and HOTSWAP_API__PORT", place, fault)
        return 1
    finally:
        tracing.shutdown()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # An interpreter that ends soon after a Temporal client was used may abort (sdk-python #300).
    os._exit(code)
