"""Builds the facade: the FastAPI application over a container, and the container over real servers (composition root).

The only module of the api that may import adapters. Neighbours: api.__main__ serves it, tests give it twins.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from api import errors
from api.cross_origin import CrossOrigin, origin_of_page
from api.dependencies import Container
from api.methods import Methods
from api.middleware import RequestContext
from api.openapi import describe
from api.origin import CallerAddress
from api.routers import (
    aftercare,
    approvals,
    audit,
    authentication,
    codec,
    console,
    deployments,
    freezes,
    health,
    notifications,
    operations,
    pipelines,
    platform,
    plugins,
    releases,
    sandbox,
    tenant_tokens,
    tenants,
    users,
    versions,
)
from api.services.drift_desk import TemporalDriftDesk
from api.services.promotion_gateway import TemporalPromotions
from api.services.rollout_gateway import RolloutGateway
from api.services.sandbox_gateway import TemporalSandboxes
from api.services.uploads import sweep
from hotswap.adapters.key_providers import key_provider
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.adapters.node_figures import NodeFiguresSource
from hotswap.adapters.oidc_keys import HttpKeySet
from hotswap.adapters.postgres.database import Database
from hotswap.adapters.redis_events import RedisEventBus
from hotswap.adapters.redis_limits import RedisRateLimiter, ResilientRateLimiter
from hotswap.config import Settings

log = logging.getLogger(__name__)

DESCRIPTION = (
    "Ships plugin versions to the tenants of a platform by durable rollouts on Temporal, and takes bad ones back. "
    "Send 'Authorization: Bearer <token>' everywhere but to the login, /health, /ready and /metrics."
)


ROUTERS = [
    module.router
    for module in (
        *(plugins, versions, releases, health, deployments, platform, aftercare, freezes, pipelines, sandbox),
        *(authentication, users, tenant_tokens, tenants, operations, console),
        *(approvals, audit, notifications, codec),
    )
]


def create_app(container: Container) -> FastAPI:
    """The application. Closes the container when it shuts down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if swept := await asyncio.to_thread(sweep, container.settings.work_dir):
            log.info("removed %d directories that a killed process left", swept)
        # FastAPI prepares routes when it is first asked for one: 0.3 s that no caller shall wait for.
        prepared = sum(1 for _ in iter_route_contexts(app.routes))
        log.debug("%d routes are ready", prepared)
        yield
        container.streams.close()
        await container.deployments.close()
        await container.close()

    app = FastAPI(
        title="HotSwap",
        version=operations.package_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page loads its scripts from the internet
        redoc_url=None,
        redirect_slashes=False,
        # Its own spans hold the query and, in its logs, the faults' texts; ours: api.middleware, hotswap.tracing.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.container = container
    app.state.authenticator = container.authenticator
    app.state.limits = container.limits
    app.add_middleware(CallerAddress)
    app.add_middleware(RequestContext, metrics=container.metrics)
    app.add_middleware(CrossOrigin, prefix=codec.PREFIX, origin=origin_of_page(container.settings.temporal.ui_url))
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.state.methods = Methods(ROUTERS)
    describe(app)
    return app


def build_container(settings: Settings) -> Container:
    """The container over PostgreSQL, S3, Redis and Temporal. Connects to none of them: what is away shows in /ready."""
    database = Database(settings.postgres)
    artifacts = MinioArtifactStore(settings.minio)
    events = RedisEventBus(settings.redis)

    token = settings.node.admin_token
    nodes = NodeFiguresSource(token.get_secret_value()) if token is not None else None
    gateway = RolloutGateway(settings.temporal)
    limiter = ResilientRateLimiter(RedisRateLimiter(settings.redis))
    keys = key_provider(settings.keys)
    oidc_keys = HttpKeySet(settings.oidc) if settings.oidc.issuer else None

    async def close() -> None:
        if nodes is not None:
            await nodes.close()
        if keys is not None:
            await keys.close()
        if oidc_keys is not None:
            await oidc_keys.close()
        await limiter.close()
        await events.close()
        await artifacts.close()
        await database.close()

    return Container(
        settings=settings,
        unit_of_work=database.unit_of_work,
        reading=database.reading,
        artifacts=artifacts,
        events=events,
        rollouts=gateway,
        limiter=limiter,
        oidc_keys=oidc_keys,
        inventories=nodes,
        nodes=nodes,
        keys=keys,
        promotions=TemporalPromotions(gateway, settings.temporal),
        sandboxes=TemporalSandboxes(gateway, settings.temporal),
        drift_desk=TemporalDriftDesk(gateway, settings.temporal, settings.drift),
        close=close,
    )
