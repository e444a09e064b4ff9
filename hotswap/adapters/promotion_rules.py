"""What both adapters of freezes and pipelines share: limits of what is stored, and how a refusal reads. Pure.

Neighbours: hotswap.adapters.record_rules for the rest of the record.
"""

from hotswap.adapters.record_rules import NAME
from hotswap.domain.errors import Conflict, NotFound
from hotswap.domain.freeze import Freeze, FreezeKind

FREEZE_LIMITS = {"createdBy": NAME, "liftedBy": NAME}
PIPELINE_LIMITS = {"initiatedBy": NAME}
HANDLE_LIMITS = {"workflowId": 400, "runId": NAME}


def freeze_missing(freeze_id: str) -> NotFound:
    return NotFound(f"freeze '{freeze_id}' is not known")


def freeze_taken(freeze: Freeze) -> Conflict:
    if freeze.kind is FreezeKind.STOP:
        return Conflict("everything is stopped already; there is one stop switch")
    return Conflict(f"freeze '{freeze.freeze_id}' is there already")


def freeze_names_unknown(freeze: Freeze) -> NotFound:
    names = [f"plugin '{freeze.plugin}'"] if freeze.plugin else []
    names += [f"environment {freeze.environment}"] if freeze.environment else []
    return NotFound(f"a freeze needs a registered scope, but {' or '.join(names)} does not exist")


def pipeline_missing(pipeline_id: str) -> NotFound:
    return NotFound(f"pipeline '{pipeline_id}' is not known")
