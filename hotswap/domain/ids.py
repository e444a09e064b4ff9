"""Ids and the names derived from them. Pure: randomness comes in as an argument or from uuid4 at the edge."""

import uuid

_NAMESPACE = uuid.UUID("6f0a7a52-6d38-4a7e-9d0c-5f0a3c1f7b11")


def new_id(prefix: str) -> str:
    """A fresh random id such as `dep_3f2a...` (32 hex digits)."""
    return f"{prefix}_{uuid.uuid4().hex}"


def derived_id(prefix: str, *parts: str) -> str:
    """The same id for the same parts: what makes a repeated request (Idempotency-Key) find its first answer."""
    return f"{prefix}_{uuid.uuid5(_NAMESPACE, chr(31).join(parts)).hex}"


def deployment_workflow_id(environment: str, plugin: str) -> str:
    """The workflow id that makes Temporal allow one running deployment per (environment, plugin)."""
    return f"deployment/{environment}/{plugin}"


def queued_workflow_id(environment: str, plugin: str, deployment_id: str) -> str:
    """The workflow that waits until the place is free. Each deployment has its own, so any number may wait."""
    return f"queued/{environment}/{plugin}/{deployment_id}"


def is_queued(workflow_id: str) -> bool:
    return workflow_id.startswith("queued/")


def monitor_workflow_id(environment: str, plugin: str) -> str:
    """One health monitor for each (environment, plugin): a newer deployment hands it its new subject."""
    return f"monitor/{environment}/{plugin}"


def drift_workflow_id(environment: str) -> str:
    """One drift watch for each environment."""
    return f"drift/{environment}"


def node_queue(node_id: str) -> str:
    """The Temporal task queue of one node."""
    return f"node-{node_id}"


def artifact_key(plugin: str, digest: str) -> str:
    """Content-addressed object key: the same key can only ever hold the same bytes."""
    return f"artifacts/{plugin}/{digest}.zip"


def upload_key(plugin: str, upload_id: str) -> str:
    """Where a presigned upload waits to be judged. Never read by anything but its completion."""
    return f"uploads/{plugin}/{upload_id}.zip"


RETENTION_SCHEDULE = "retention"
"""The Temporal schedule that takes away what nothing needs any more."""
