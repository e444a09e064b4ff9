"""The codec server of Temporal's Web UI and CLI: POST /api/v1/codec/decode, for Admins (docs/temporal.md, ADR 50)."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.dependencies import ContainerDep
from api.errors import DOCUMENTED
from api.schemas.payloads import PayloadsJson
from api.security import bearer, require
from api.services import payloads
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.deployment import Role

PREFIX = "/api/v1/codec"

router = APIRouter(
    prefix=PREFIX,
    tags=["codec"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

# A page of the Web UI asks once for each event that it shows.
Admin = Annotated[Actor, Depends(require(Role.ADMIN, limit=600))]


@router.post("/decode")
async def decode_payloads(given: PayloadsJson, actor: Admin, services: ContainerDep) -> PayloadsJson:
    """Decrypt what Temporal stores of rollouts. Of nobody else's: keys are HOTSWAP_TEMPORAL__PAYLOAD_KEYS."""
    return PayloadsJson(payloads=await payloads.decode(services.settings.temporal, given.payloads))
