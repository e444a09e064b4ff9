"""How the workflow of a deployment is started, whoever starts it: the facade directly, or the queue as its parent.

Pure: names, attributes and words for the Web UI. Neighbours: api.services.rollout_gateway, workflows.queued.
"""

from datetime import timedelta

from temporalio.common import SearchAttributePair, TypedSearchAttributes

from hotswap import temporal
from hotswap.domain.deployment import DeploymentRequest
from hotswap.domain.lifecycle import DeploymentStatus

MEMO_DEPLOYMENT = "deploymentId"

TASK_TIMEOUT = timedelta(seconds=3)
"""A worker killed while it holds a workflow task stalls the rollout for this long (default 10 s); a task takes
milliseconds, replaying 8,000 events well under a second."""


def search_attributes(request: DeploymentRequest) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [
            SearchAttributePair(temporal.PLUGIN, request.plugin),
            SearchAttributePair(temporal.VERSION, request.version),
            SearchAttributePair(temporal.ENVIRONMENT, str(request.environment)),
            SearchAttributePair(temporal.STRATEGY, str(request.strategy)),
            SearchAttributePair(temporal.STATUS, str(DeploymentStatus.PENDING)),
            SearchAttributePair(temporal.DEPLOYMENT, request.deployment_id),
        ]
    )


def summary(request: DeploymentRequest) -> str:
    return f"{request.plugin} {request.version} -> {request.environment} by {request.strategy}"


def details(request: DeploymentRequest) -> str:
    """Markdown for the Web UI."""
    lines = [
        f"**Deployment** {request.deployment_id}",
        f"**Started by** {request.initiated_by}",
        f"**Reason** {request.reason or '(none given)'}",
    ]
    if request.rollback_of:
        lines.append(f"**Takes back** {request.rollback_of}")
    if request.retry_of:
        lines.append(f"**Tries again** {request.retry_of}")
    if request.hotfix:
        lines.append("**Hotfix**: observations end as soon as enough was seen")
    return "\n\n".join(lines)
