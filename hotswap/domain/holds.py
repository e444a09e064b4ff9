"""Versions that were taken back by the health monitor and may not come again unasked. Facts and their words; pure.

Neighbours: workflows.monitor holds, activities.planning and api.services refuse, hotswap.ports.records keeps.
"""

from pydantic import Field

from hotswap.domain.base import BoundedText, Instant, Model, PluginName
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict
from hotswap.domain.manifest import SemVer


class HeldVersion(Model):
    """A version that was taken back from an environment and is not promoted there again by itself."""

    environment: Environment
    plugin: PluginName
    version: SemVer
    deployment_id: str = Field(description="the deployment that was taken back")
    reason: BoundedText
    held_by: str = Field(min_length=1, max_length=255)
    held_at: Instant


def refusal_of(held: HeldVersion) -> Conflict:
    """What to say to who wants to deploy it all the same."""
    return Conflict(
        f"{held.plugin} {held.version} is held in {held.environment}: {held.held_by} took {held.deployment_id} back "
        f"({held.reason}). Deploy a mended version, or say why this one may come again (overrideHold, --override-hold)"
    )
