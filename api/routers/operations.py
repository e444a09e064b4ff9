"""Routes for operators and machines, open to everybody: /health, /ready, /metrics, /docs."""

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse

from api.dependencies import ContainerDep
from api.docs_page import CONTENT_SECURITY_POLICY, render
from api.errors import RETRY_AFTER_SECONDS
from api.schemas.operations import HealthOut, ReadyOut, State

router = APIRouter(tags=["operations"])


def package_version() -> str:
    """The installed version; "0" when run from a tree that was never installed."""
    try:
        return version("hotswap")
    except PackageNotFoundError:
        return "0"


@router.get("/health")
async def health() -> HealthOut:
    """The process lives. Asks nobody, so that a server behind it that is away does not get it restarted."""
    return HealthOut(version=package_version())


@router.get("/ready", responses={503: {"model": ReadyOut}})
async def ready(services: ContainerDep, response: Response) -> ReadyOut:
    """Whether requests can be served: every dependency by name. 503 while PostgreSQL or Temporal are away."""
    found = await services.readiness.check()
    if found.status == State.AWAY:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return found


@router.get("/metrics", response_class=Response)
async def metrics(services: ContainerDep) -> Response:
    """Prometheus text format."""
    return Response(services.metrics.render(), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The routes as a page that needs no internet; the machine-readable form is /openapi.json."""
    page = render(request.app.openapi())
    return HTMLResponse(page, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})
