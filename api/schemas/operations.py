"""What the operations routes answer: liveness, readiness by dependency."""

from enum import StrEnum

from pydantic import Field

from hotswap.domain.base import Model
from hotswap.domain.deployment import Environment
from hotswap.domain.registry import Page


class State(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    AWAY = "away"


class HealthOut(Model):
    status: State = State.OK
    version: str


class Dependency(Model):
    state: State
    required: bool = Field(description="without a required one the api is not ready")
    detail: str = ""
    milliseconds: float


class ReadyOut(Model):
    """`degraded`: all that is required answers, something else does not."""

    status: State
    dependencies: dict[str, Dependency]


class NodeQuery(Page):
    environment: Environment | None = None
