"""For workflows that outlive releases (health monitors, drift watches): they stay on their build between two looks only.

Their runs are pinned to a build as rollouts are; at a safe point they continue as new, on the newest build. A definition
that said AUTO_UPGRADE would not do: the server refuses it from workers that are not versioned.
"""

from typing import Any

from temporalio import workflow
from temporalio.workflow import ContinueAsNewVersioningBehavior

HISTORY_LIMIT = 8_000
"""Events after which a run continues as new: of a monitor about 800 looks, 6 to 7 hours at 30 s."""


def continue_as_new_when_due(state: Any, *, also: bool = False) -> None:
    """Leave this run when its history is long, when a newer build is current, or when `also` says so."""
    info = workflow.info()
    if info.is_target_worker_deployment_version_changed():
        workflow.continue_as_new(state, initial_versioning_behavior=ContinueAsNewVersioningBehavior.AUTO_UPGRADE)
    if also or info.get_current_history_length() > HISTORY_LIMIT or info.is_continue_as_new_suggested():
        workflow.continue_as_new(state)
