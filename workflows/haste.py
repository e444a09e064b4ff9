"""When a wait may end before its time: a person's promote or promote-full, and a hotfix. Pure: the state says it all.

Haste shortens waits, never guards: every wait asks here right AFTER a look at the new version, and a Fail never counts as
an end (it undoes, or holds for a person). Approvals, the trial and freezes do not ask here.
Neighbours: workflows.commands sets what is wanted, workflows.gates and every other waiting step ask `ends_early`.
"""

from hotswap.domain.analysis import InconclusivePolicy, Outcome, Thresholds, Verdict
from workflows.state import DeploymentState


def wanted(state: DeploymentState) -> bool:
    """Somebody wants the present wait ended: look at once instead of after the interval."""
    return state.promote_wanted or state.promote_full


def ends_early(state: DeploymentState, thresholds: Thresholds) -> bool:
    """Whether the wait that has just looked is over. Takes the wish of one `promote`, which is for one wait."""
    if state.promote_wanted:
        state.promote_wanted = False
        return True
    verdict = state.verdict
    if verdict is None or verdict.outcome is Outcome.FAIL:
        return False
    if state.promote_full:
        return True
    calm = state.ruling is None or state.ruling.decision is InconclusivePolicy.CONTINUE
    return state.request.hotfix and calm and _seen_enough(verdict, thresholds)


def _seen_enough(verdict: Verdict, thresholds: Thresholds) -> bool:
    """The minimum sample, or the nodes were heard and say that nobody asked. Silent nodes say nothing: wait on."""
    if verdict.candidate_requests >= thresholds.min_sample:
        return True
    return verdict.candidate_requests == 0 and bool(verdict.nodes_heard) and not verdict.nodes_silent
