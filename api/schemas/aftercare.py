"""What is asked and answered about the time after a rollout: drift and its repair, held versions."""

from pydantic import Field

from api.schemas.common import Line
from hotswap.domain.base import Model
from hotswap.domain.drift import DriftReport


class RepairIn(Model):
    """Body of a repair; the reason goes into the audit log."""

    reason: Line = Field(default="", max_length=2000)


class DriftOut(DriftReport):
    """A report, and whether anything is wrong that no running deployment explains."""

    drifted: bool

    @classmethod
    def of(cls, report: DriftReport) -> "DriftOut":
        return cls.model_construct(**dict(report), drifted=bool(report.unexplained))
