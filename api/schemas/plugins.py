"""Plugins and versions as clients write and read them. A plugin's id is its name (docs/adr)."""

from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas.common import Line, Tag
from hotswap.domain.base import Model, PluginName
from hotswap.domain.lifecycle import PluginStatus
from hotswap.domain.manifest import PluginType
from hotswap.domain.registry import Page, Plugin, PluginVersion

Url = Annotated[str, StringConstraints(pattern=r"^(https?://[^\s\x00]+)?$", max_length=2000)]


class PluginIn(Model):
    """Body of POST /plugins. `displayName` is the name when it is left out."""

    name: PluginName
    display_name: Line = Field(default="", max_length=255)
    description: Line = Field(default="", max_length=4000)
    type: PluginType = PluginType.OTHER
    author: Line = Field(default="", max_length=255)
    documentation_url: Url = ""
    tags: tuple[Tag, ...] = Field(default=(), max_length=20)


class PluginChange(Model):
    """Body of PUT /plugins/{pluginId}: what is left out stays. Name and versions never change."""

    display_name: Line | None = Field(default=None, min_length=1, max_length=255)
    description: Line | None = Field(default=None, max_length=4000)
    type: PluginType | None = None
    author: Line | None = Field(default=None, max_length=255)
    documentation_url: Url | None = None
    tags: tuple[Tag, ...] | None = Field(default=None, max_length=20)


class PluginQuery(Page):
    """Query of GET /plugins. `tags` is a comma-separated list; a plugin must carry all of them."""

    type: PluginType | None = None
    status: PluginStatus | None = None
    tags: Line | None = Field(default=None, max_length=1000)
    search: Line | None = Field(default=None, max_length=200)

    def tag_list(self) -> tuple[str, ...]:
        return tuple(tag.strip() for tag in (self.tags or "").split(",") if tag.strip())


class PluginOut(Plugin):
    plugin_id: str

    @classmethod
    def of(cls, plugin: Plugin) -> "PluginOut":
        return cls.model_construct(**dict(plugin), plugin_id=plugin.name)


class VersionLinks(Model):
    self: str
    download: str


class VersionOut(PluginVersion):
    plugin_id: str
    links: VersionLinks

    @classmethod
    def of(cls, version: PluginVersion) -> "VersionOut":
        base = f"/api/v1/plugins/{version.plugin}/versions/{version.version}"
        links = VersionLinks(self=base, download=f"{base}/download")
        return cls.model_construct(**dict(version), plugin_id=version.plugin, links=links)
