"""Names and answers of the pipeline workflow: the contract with the facade, the Web UI and its stages' deployments.

Neighbours: workflows.messages for what pipelines share with deployments.
"""

from hotswap.domain.base import BoundedText, Model

PIPELINE_WORKFLOW = "PipelineWorkflow"

STAGE_PROGRESS = "stage-progress"
"""The signal by which a stage's deployment tells how it stands."""

PIPELINE_PREFIX = "pipeline/"
"""How the workflow id of a pipeline begins, whose children tell it of themselves."""


class PipelineCommandResult(Model):
    """What the command did, and the pipeline's status after it. A repeat gives the same answer."""

    pipeline_id: str
    status: str
    message: BoundedText
