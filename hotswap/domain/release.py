"""Which version may be deployed where, by its status. One table; pure.

Neighbours: hotswap.domain.lifecycle moves the status, api.services.deployments and activities.planning ask.
"""

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict
from hotswap.domain.lifecycle import VersionStatus
from hotswap.domain.registry import PluginVersion

_E, _V = Environment, VersionStatus
ACCEPTED: dict[VersionStatus, frozenset[Environment]] = {
    _V.DRAFT: frozenset({_E.DEVELOPMENT}),
    _V.PENDING_APPROVAL: frozenset({_E.DEVELOPMENT, _E.QA, _E.STAGING}),
    _V.APPROVED: frozenset(_E),
    _V.DEPRECATED: frozenset(),  # `allow_deprecated` opens what it was open to before
    _V.ARCHIVED: frozenset(),
}

_REMEDY = {
    _V.DRAFT: "submit it first (hotswap plugin submit)",
    _V.PENDING_APPROVAL: "an Admin who did not upload it must approve it first (hotswap plugin approve)",
    _V.DEPRECATED: "deploy another version, or say that you mean it (allowDeprecated, --allow-deprecated)",
    _V.ARCHIVED: "its artifact may be gone; upload it anew under a higher version",
}


def check_deployable(version: PluginVersion, environment: Environment, *, allow_deprecated: bool = False) -> None:
    """Raises Conflict (never retried), naming what to do, when this version may not go forward to `environment`."""
    status, accepted = version.status, ACCEPTED[version.status]
    name = f"{version.plugin} {version.version}"
    if status is _V.DEPRECATED and allow_deprecated:
        before = _V.APPROVED if version.approved_at is not None else _V.PENDING_APPROVAL
        if environment in ACCEPTED[before]:
            return
        raise Conflict(f"{name} is Deprecated and was never approved, which {environment} asks for")
    if environment not in accepted:
        raise Conflict(f"{name} is {status} and may not be deployed to {environment}: {_REMEDY[status]}")


def check_way_back(version: PluginVersion) -> None:
    """Going back asks for no status but an artifact that is there. Raises Conflict."""
    if version.status is _V.ARCHIVED:
        name = f"{version.plugin} {version.version}"
        raise Conflict(f"{name} is Archived and cannot be gone back to: {_REMEDY[_V.ARCHIVED]}")
