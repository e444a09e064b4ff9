"""The node's second port, for the platform and never for tenants: /health, /ready, /metrics; by token /figures, /inventory, /usage, /probe.

Neighbours: hotswap.adapters.node_figures reads the latter, probes of Kubernetes read the rest. Runs as a uvicorn
server in the node's own loop (`AdminServer`).
"""

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from opentelemetry.trace import SpanKind
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from hotswap.domain.base import Instant, PluginName
from hotswap.node import metrics
from hotswap.node.answers import trace_id
from hotswap.node.exposition import CONTENT_TYPE
from hotswap.node.figures import FigureBook
from hotswap.node.supervisor import NodeSupervisor
from hotswap.node.usage import CpuShares, usage
from hotswap.ports.health import NodeProbes
from hotswap.tracing import SpanName, parent_of, span

T = TypeVar("T")

_CODES = {400: "VALIDATION_ERROR", 401: "UNAUTHORIZED", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
_instant: TypeAdapter[datetime] = TypeAdapter(Instant)
_plugin: TypeAdapter[str] = TypeAdapter(PluginName)


def create_admin(
    environment: str,
    admin_token: str,
    supervisor: NodeSupervisor,
    book: FigureBook,
    router: metrics.RouterGauges,
    waiting_for: Callable[[], str],
    refresh: Callable[[], Awaitable[None]],
) -> FastAPI:
    """The app. `waiting_for` says in words what the node still lacks to serve; "" = ready. `admin_token` not empty.

    `refresh` returns when the counts hold all that routers counted until now.
    """
    if not admin_token:
        raise ValueError("/figures needs an admin token")
    app = FastAPI(
        title="HotSwap node",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},  # as in api.app
    )
    shares = CpuShares()
    expected = f"Bearer {admin_token}".encode()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "Healthy", "node": supervisor.node_id}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        missing = waiting_for()
        content = {"ready": not missing, "node": supervisor.node_id, "waitingFor": missing}
        return JSONResponse(content, 503 if missing else 200)

    @app.get("/metrics")
    async def prometheus() -> Response:
        await refresh()
        page = metrics.render(environment, supervisor, book, router, shares)
        return StreamingResponse(page, headers={"content-type": CONTENT_TYPE})

    def authorize(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, expected):
            raise HTTPException(401, "send the admin token as Authorization: Bearer <token>")

    @app.get("/inventory")
    async def inventory(request: Request) -> Response:
        authorize(request)
        return Response(supervisor.inventory().model_dump_json(), media_type="application/json")

    @app.get("/figures")
    async def figures(request: Request, plugin: Annotated[str, Query()], since: Annotated[str, Query()]) -> Response:
        authorize(request)
        asked = (_parsed(_plugin, "plugin", plugin), _parsed(_instant, "since", since))
        await refresh()
        answer = supervisor.figures(*asked)
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post("/probe")
    async def probe(request: Request, plugin: Annotated[str, Query()]) -> Response:
        authorize(request)
        name = _parsed(_plugin, "plugin", plugin)
        facts = {"plugin": name, "node": supervisor.node_id, "environment": environment, "check": "liveness"}
        with span(SpanName.HEALTH_CHECK, facts, kind=SpanKind.SERVER, parent=parent_of(request.headers)):
            answer = NodeProbes(node_id=supervisor.node_id, probes=await supervisor.probe_all(name))
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.get("/usage")
    async def used(request: Request, plugin: Annotated[str, Query()]) -> Response:
        authorize(request)
        answer = await usage(supervisor, _parsed(_plugin, "plugin", plugin))
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, fault: RequestValidationError) -> JSONResponse:
        faults = [{"field": str(item["loc"][-1]), "message": str(item["msg"])} for item in fault.errors()]
        return _error(request, 400, "the query is not valid", faults)

    @app.exception_handler(HTTPException)
    async def _refused(request: Request, fault: HTTPException) -> JSONResponse:
        return _error(request, fault.status_code, str(fault.detail), [])

    return app


def _parsed(kind: TypeAdapter[T], field: str, text: str) -> T:
    try:
        return kind.validate_python(text)
    except ValidationError as fault:
        raise RequestValidationError(
            [{"loc": ("query", field), "msg": item["msg"], "type": item["type"]} for item in fault.errors()]
        ) from None


def _error(request: Request, status: int, message: str, details: list[dict[str, str]]) -> JSONResponse:
    error = {
        "code": _CODES.get(status, "INTERNAL_ERROR"),
        "message": message,
        "details": details,
        "traceId": trace_id(request.headers.get("traceparent", "").encode("latin-1")),
        "timestamp": datetime.now(UTC).isoformat(),
    }
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": error}, status, headers=headers)


class _QuietServer(uvicorn.Server):
    """Leaves signals to the node's entry point, which stops its parts in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AdminServer:
    """Serves an app on one socket in the running loop."""

    def __init__(self, app: FastAPI, host: str, port: int, bound: socket.socket | None = None) -> None:
        """Binds at once, so that the port is known and taken. Raises OSError when it is not free.

        `bound`: the listener of the process that this one replaces, in place of host and port.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = bound or socket.create_server((host, port), family=family, backlog=128)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def listener(self) -> int:
        """Its file descriptor."""
        return self._socket.fileno()

    def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="admin")

    async def close(self) -> None:
        """Answer what is being asked, then end. Repeats are fine."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
