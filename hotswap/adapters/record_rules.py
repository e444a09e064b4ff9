"""What both adapters of hotswap.ports.records share: what may be stored, and how a refusal reads. Pure.

Neighbours: hotswap.adapters.postgres keeps rows, hotswap.adapters.memory is its twin; one contract suite runs on both.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import semver

from hotswap.domain.base import Model
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput, NotFound, StaleGeneration
from hotswap.domain.manifest import version_order
from hotswap.domain.registry import Plugin
from hotswap.domain.routes import RouteRecord

IDEMPOTENCY_KEPT = timedelta(hours=24)
"""How long an answer to an Idempotency-Key is kept at least (port contract)."""

NAME = 255
"""Longest identifier (characters): the width of the columns, and what keeps every index entry under PostgreSQL's 2,704 bytes."""

HASH = 64
"""A SHA-256 in hex."""

PROGRESS_LIMITS = {"deploymentId": NAME, "initiatedBy": NAME, "digest": HASH, "planHash": HASH}
EVENT_LIMITS = {"kind": 100}
NODE_LIMITS = {"nodeId": NAME, "bootId": NAME, "sandboxTier": 50}
APPROVAL_LIMITS = {"deploymentId": NAME, "approver": NAME, "digest": HASH, "planHash": HASH}
HELD_LIMITS = {"deploymentId": NAME, "heldBy": NAME}
KEY_LIMITS = {"publisher": NAME, "registeredBy": NAME, "revokedBy": NAME}
UPLOAD_LIMITS = {"createdBy": NAME}
VERSION_LIMITS = {"createdBy": NAME, "approvedBy": NAME}
AUDIT_LIMITS = {"eventType": 100, "entityType": 100, "entityId": NAME, "user": NAME, "traceId": NAME, "address": NAME}

_LISTED_FAULTS = 20


def storable(document: Model, longest: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The model as JSON-able data (NaN and infinity as null). `longest` maps a top-level wire name to its limit in characters.

    Raises InvalidInput (never retried) naming every field that no row can hold: NUL, half a surrogate pair, or text
    over its limit.
    """
    data = document.model_dump(mode="json")
    check_storable(data, longest)
    return data


def check_storable(data: Mapping[str, Any], longest: Mapping[str, int] | None = None) -> None:
    """`storable` for loose values: the keys of `data` are the names that a fault shows. Raises InvalidInput."""
    faults: list[FieldFault] = []
    for name, limit in (longest or {}).items():
        text = data.get(name)
        if isinstance(text, str) and len(text) > limit:
            faults.append(FieldFault(name, f"is {len(text)} characters long; at most {limit} can be stored"))
    # A stack, not recursion: the nesting of outside data is not ours to trust.
    pending: list[tuple[str, Any]] = list(data.items())
    while pending and len(faults) < _LISTED_FAULTS:
        path, value = pending.pop()
        if isinstance(value, str):
            fault = _text_fault(value)
            if fault:
                faults.append(FieldFault(path, fault))
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if isinstance(key, str) and (fault := _text_fault(key)):
                    faults.append(FieldFault(path, f"has a key that {fault}"))
                pending.append((f"{path}.{key!s}", inner))
        elif isinstance(value, list | tuple):
            pending.extend((f"{path}.{index}", inner) for index, inner in enumerate(value))
    if faults:
        named = "; ".join(f"{_printable(fault.field)} {fault.message}" for fault in faults[:5])
        raise InvalidInput(f"cannot be stored: {named}", faults)


def check_idempotency_key(user: str, operation: str, key: str) -> None:
    """Raises InvalidInput naming what is too long or holds what cannot be stored."""
    check_storable(
        {"user": user, "operation": operation, "Idempotency-Key": key},
        {"user": NAME, "operation": 100, "Idempotency-Key": NAME},
    )


def check_decision(decision: str) -> None:
    if decision not in ("Approved", "Rejected"):
        fault = FieldFault("decision", "must be Approved or Rejected")
        raise InvalidInput(f"decision {fault.message}", [fault])


def _text_fault(text: str) -> str:
    if "\0" in text:
        return "holds a NUL character (U+0000); remove it"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is not Unicode text; send valid UTF-8"
    return ""


def _printable(path: str) -> str:
    return path.encode("utf-8", "replace").decode("utf-8").replace("\0", "\\0")[:200]


def search_text(plugin: Plugin) -> str:
    """What `search` looks through. Case-folded here, because what a server folds depends on its locale."""
    return "\n".join((plugin.name, plugin.display_name, plugin.description)).casefold()


def release_order(version: str) -> tuple[semver.Version, str]:
    """A total order: SemVer precedence, then the text, for versions that differ in build metadata alone."""
    return version_order(version), version


def plugin_taken(name: str) -> Conflict:
    return Conflict(f"plugin '{name}' is registered already; choose another name, or change it with PUT")


def plugin_missing(name: str) -> NotFound:
    return NotFound(
        f"plugin '{name}' is not registered",
        [FieldFault("pluginId", "choose one of GET /plugins (`hotswap plugin list`), or register it first")],
    )


def plugin_in_use(name: str) -> Conflict:
    return Conflict(f"plugin '{name}' is named by a route or a deployment; deprecate it instead of deleting it")


def version_taken(plugin: str, version: str) -> Conflict:
    return Conflict(f"{plugin} {version} is there already and versions are immutable; raise the version number")


def version_missing(plugin: str, version: str) -> NotFound:
    listed = f"GET /plugins/{plugin}/versions (`hotswap plugin versions {plugin}`)"
    return NotFound(
        f"version {version} of plugin '{plugin}' is not registered",
        [FieldFault("version", f"choose one of {listed}, or upload it first")],
    )


def version_moved(plugin: str, version: str, found: str) -> Conflict:
    return Conflict(f"{plugin} {version} is {found} by now: somebody else was first; look again")


def key_taken(key_id: str) -> Conflict:
    return Conflict(f"publisher key {key_id} is registered already; a revoked key does not come back: make a new one")


def key_missing(key_id: str) -> NotFound:
    return NotFound(f"publisher key '{key_id}' is not registered")


def upload_taken(upload_id: str) -> Conflict:
    return Conflict(f"upload '{upload_id}' is there already")


def upload_missing(upload_id: str) -> NotFound:
    return NotFound(f"upload '{upload_id}' is not known: it was never begun, or it expired and was swept")


def release_before(version: str, others: Iterable[str]) -> str | None:
    """The highest release below `version` by SemVer, else the highest pre-release below it."""
    here = version_order(version)
    below = [other for other in others if version_order(other) < here]
    return max(below, key=lambda one: (version_order(one).prerelease is None, release_order(one)), default=None)


def deployment_missing(deployment_id: str) -> NotFound:
    return NotFound(f"deployment '{deployment_id}' is not known")


def deployment_names_unknown(plugin: str, environment: str) -> NotFound:
    return NotFound(
        f"a deployment needs a registered plugin and environment, but '{plugin}' in {environment} is not one"
    )


def environment_missing(name: str) -> NotFound:
    return NotFound(f"environment '{name}' does not exist")


def route_names_unknown(environment: str, plugin: str) -> NotFound:
    return NotFound(
        f"the route of '{plugin}' in {environment} names an environment, plugin or version that is not registered"
    )


def stale_route(environment: str, plugin: str, expected: int, latest: RouteRecord | None) -> StaleGeneration:
    held = (
        f"generation {latest.generation} of deployment {latest.deployment_id} holds" if latest else "there is none yet"
    )
    return StaleGeneration(f"the route of {plugin} in {environment} was expected at generation {expected}, but {held}")
