"""Routes of sandbox sessions: call a version in isolation before anybody depends on it. /api/v1/sandbox.

Calls a minute a user by spec section 5: create 5, execute 20, the rest 10. Nothing counts them yet; 50 live sandboxes an
environment and 200 executions each bound what they can cost.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from api.dependencies import ContainerDep, IdempotencyKey, once
from api.errors import DOCUMENTED
from api.schemas.common import CommandIn, ListOf
from api.schemas.sandbox import ExecuteIn, ExecutionOut, ResultsQuery, SandboxIn, SandboxOut, SandboxQuery
from api.security import bearer, require
from api.services.actor import Actor
from api.services.sandbox import CREATE, RUN
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from hotswap.domain.sandbox import FINISHED

router = APIRouter(
    prefix="/api/v1/sandbox",
    tags=["sandbox"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Tester = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER))]
Creator = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER, limit=5))]
Caller = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER, limit=20))]
SandboxId = Annotated[str, Path(alias="sandboxId", pattern=r"^sbx_[0-9a-f]{32}$")]
Reason = Annotated[CommandIn | None, Body()]


@router.post("/create", status_code=201)
async def create_sandbox(
    body: SandboxIn, actor: Creator, services: ContainerDep, response: Response, key: IdempotencyKey = None
) -> SandboxOut:
    """Make a sandbox of one version. 409 when the environment has 50 live ones; it names the oldest."""
    sandbox = await services.sandbox.create(body, actor, once(actor, CREATE, key))
    response.headers["Location"] = sandbox.links.self
    return sandbox


@router.get("")
async def list_sandboxes(
    query: Annotated[SandboxQuery, Query()], actor: Tester, services: ContainerDep
) -> ListOf[SandboxOut]:
    """Sandboxes, newest first; ended ones are kept for 7 days."""
    items, total = await services.sandbox.list(query)
    return ListOf[SandboxOut].of(items, total, query)


@router.get("/{sandboxId}")
async def get_sandbox(sandbox_id: SandboxId, actor: Tester, services: ContainerDep) -> SandboxOut:
    """One sandbox, with how many executions it has had."""
    return await services.sandbox.get(sandbox_id)


@router.post(
    "/{sandboxId}/execute",
    status_code=202,
    responses={200: {"model": ExecutionOut, "description": "It has finished within `wait`: the result"}},
)
async def execute(
    sandbox_id: SandboxId,
    body: ExecuteIn,
    actor: Caller,
    services: ContainerDep,
    response: Response,
    key: IdempotencyKey = None,
) -> ExecutionOut:
    """Call a method in a fresh isolated process. 202 while it waits or runs, 200 when it finished within `wait`."""
    execution = await services.sandbox.execute(sandbox_id, body, actor, once(actor, RUN, key))
    response.headers["Location"] = f"/api/v1/sandbox/{sandbox_id}/results?executionId={execution.execution_id}"
    response.status_code = 200 if execution.status in FINISHED else 202
    return execution


@router.get("/{sandboxId}/results")
async def results(
    sandbox_id: SandboxId, query: Annotated[ResultsQuery, Query()], actor: Tester, services: ContainerDep
) -> ListOf[ExecutionOut]:
    """Executions, newest first. With `executionId` that one alone, its output and logs whole."""
    items, total = await services.sandbox.results(sandbox_id, query)
    return ListOf[ExecutionOut].of(items, total, query)


@router.delete("/{sandboxId}", status_code=204)
async def delete_sandbox(sandbox_id: SandboxId, actor: Tester, services: ContainerDep) -> None:
    """End it: what runs is killed, what waits is cancelled. A repeat is fine; results stay for 7 days."""
    await services.sandbox.end(sandbox_id, "", actor)


@router.post("/{sandboxId}/cleanup", status_code=204)
async def clean_up(sandbox_id: SandboxId, actor: Tester, services: ContainerDep, body: Reason = None) -> None:
    """As DELETE, with a reason for the record."""
    await services.sandbox.end(sandbox_id, (body or CommandIn()).reason, actor)
