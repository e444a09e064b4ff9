"""Freezes as clients write and list them; what they mean is hotswap.domain.freeze's to say."""

from pydantic import Field, field_validator

from api.schemas.common import Line
from hotswap.domain.base import Model, PluginName
from hotswap.domain.deployment import Environment
from hotswap.domain.freeze import FreezeKind, Window
from hotswap.domain.registry import Page


class FreezeIn(Model):
    """Body of POST /freezes. Without `environment` or `pluginId` it is for all of them."""

    kind: FreezeKind = FreezeKind.DENY
    environment: Environment | None = None
    plugin_id: PluginName | None = None
    window: Window = Field(
        description="once {starts, ends?}, daily {start, end, timeZone} or weekly {days, start, end, endDay?, timeZone}"
    )
    reason: Line = Field(min_length=1, max_length=500)

    @field_validator("kind")
    @classmethod
    def _stop_has_its_own_route(cls, kind: FreezeKind) -> FreezeKind:
        if kind is FreezeKind.STOP:
            raise ValueError("must be deny or allow; POST /freezes/stop stops everything")
        return kind


class StopIn(Model):
    """Body of POST /freezes/stop and /freezes/stop/lift."""

    reason: Line = Field(min_length=1, max_length=500)


class FreezeQuery(Page):
    """Query of GET /freezes: those that concern the environment and the plugin, those for all included."""

    environment: Environment | None = None
    plugin_id: PluginName | None = None
    lifted: bool | None = None


class StandingQuery(Model):
    """Query of GET /freezes/standing."""

    environment: Environment
    plugin_id: PluginName
