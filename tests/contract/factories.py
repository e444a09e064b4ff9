"""Makers of domain objects for tests: valid as they are, every field open to change by keyword."""

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from hotswap.domain.deployment import CanaryConfig, DeploymentProgress, Environment, Role, Strategy, TimelineEvent
from hotswap.domain.manifest import Manifest, Method
from hotswap.domain.registry import Approval, AuditEntry, NodeRecord, Plugin, PluginVersion
from hotswap.domain.routes import ArtifactRef, RouteState
from hotswap.ports.records import DeploymentRow, StoredAnswer

EPOCH = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def unique(prefix: str = "plugin") -> str:
    """A name nobody else uses: the servers of the test stack are shared."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def make_plugin(name: str | None = None, **changes: Any) -> Plugin:
    name = name or unique()
    given = {"display_name": name.title(), "created_at": EPOCH, "updated_at": EPOCH} | changes
    return Plugin(name=name, **given)


def make_manifest(name: str, version: str = "1.0.0", **changes: Any) -> Manifest:
    given = {"entry_point": "sample.plugin:Sample", "methods": (Method(name="run"),)} | changes
    return Manifest(name=name, version=version, **given)


def make_digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def make_version(plugin: str, version: str = "1.0.0", **changes: Any) -> PluginVersion:
    given = {
        "manifest": make_manifest(plugin, version),
        "digest": make_digest(plugin, version),
        "size_bytes": 1234,
        "created_by": "developer",
        "created_at": EPOCH,
    } | changes
    return PluginVersion(plugin=plugin, version=version, **given)


def make_ref(plugin: str, version: str = "1.0.0") -> ArtifactRef:
    return ArtifactRef(plugin=plugin, version=version, digest=make_digest(plugin, version), size_bytes=1234)


def make_route(plugin: str, stable: str | None = "1.0.0", candidate: str | None = None, weight: int = 0) -> RouteState:
    return RouteState(
        stable=make_ref(plugin, stable) if stable else None,
        candidate=make_ref(plugin, candidate) if candidate else None,
        candidate_weight=weight,
        seed=f"{plugin}:{candidate or stable}",
    )


def make_progress(plugin: str, **changes: Any) -> DeploymentProgress:
    given = {
        "deployment_id": unique("dep"),
        "environment": Environment.DEVELOPMENT,
        "strategy": Strategy.CANARY,
        "to_version": "1.0.0",
        "initiated_by": "developer",
        "requested_at": EPOCH,
    } | changes
    return DeploymentProgress(plugin=plugin, **given)


def make_deployment(plugin: str, **changes: Any) -> DeploymentRow:
    progress = make_progress(plugin, **changes)
    return DeploymentRow(
        progress=progress,
        config=CanaryConfig(steps=(10, 100)).model_dump(mode="json"),
        workflow_id=f"deployment/{progress.environment}/{plugin}",
        run_id=uuid.uuid4().hex,
    )


def make_event(sequence: int, **changes: Any) -> TimelineEvent:
    given = {"at": EPOCH, "kind": "step", "message": f"step {sequence}", "data": {"n": sequence}} | changes
    return TimelineEvent(sequence=sequence, **given)


def make_node(node_id: str | None = None, **changes: Any) -> NodeRecord:
    node_id = node_id or unique("node")
    given = {
        "environment": Environment.DEVELOPMENT,
        "boot_id": uuid.uuid4().hex,
        "router_url": "http://127.0.0.1:1",
        "admin_url": "http://127.0.0.1:2",
        "sandbox_tier": "standard",
        "last_seen_at": EPOCH,
    } | changes
    return NodeRecord(node_id=node_id, **given)


def make_approval(deployment_id: str, **changes: Any) -> Approval:
    given = {
        "approver": "approver",
        "roles": (Role.APPROVER,),
        "decision": "Approved",
        "digest": make_digest("artifact"),
        "plan_hash": make_digest("plan"),
        "decided_at": EPOCH,
    } | changes
    return Approval(deployment_id=deployment_id, **given)


def make_audit(**changes: Any) -> AuditEntry:
    given = {
        "event_type": "deployment.requested",
        "entity_type": "deployment",
        "entity_id": unique("dep"),
        "user": "developer",
        "at": EPOCH,
    } | changes
    return AuditEntry(**given)


def make_answer(**changes: Any) -> StoredAnswer:
    given: dict[str, Any] = {"request_hash": make_digest("request"), "status_code": 202, "body": {"id": "x"}} | changes
    return StoredAnswer(**given)
