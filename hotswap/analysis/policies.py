"""What follows from one look, by each own metric's policy and limits. Pure: previous counts and verdicts in, a Ruling out.

The built-in metrics need no counting: their bounds hold at every look, so a Fail is final and Inconclusive is weighed at
the step's end. An own metric may be asked to fail several times in a row before it counts. Failed beats Error beats
Inconclusive, and the gravest consequence wins. Neighbours: activities.analysis records the Ruling, workflows.gates obeys.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hotswap.domain.analysis import InconclusivePolicy, MetricVerdict, Outcome, Verdict
from hotswap.domain.metrics import ErrorPolicy, FailPolicy, MetricCounts, MetricSpec, NoDataPolicy, Ruling

Decision = InconclusivePolicy

_GRAVITY = (Decision.CONTINUE, Decision.EXTEND, Decision.PAUSE, Decision.ROLLBACK)
_WORST_FIRST = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASS)

RATE_NEEDS_LOOKS = 10
"""Before so many looks a share of them says nothing: the first of two looks lost is no error rate of 50 %."""


@dataclass(frozen=True, slots=True)
class _Consequence:
    """Of one metric. `outcome` is what it counts as: a failure under its limit is not one yet."""

    metric: str
    outcome: Outcome
    now: Decision
    at_end: Decision
    reason: str


def rule(
    previous: Sequence[MetricCounts],
    built_in: Verdict,
    on_inconclusive: InconclusivePolicy,
    own: Sequence[MetricVerdict],
    specs: Sequence[MetricSpec],
) -> tuple[tuple[MetricCounts, ...], Ruling]:
    """The counts after this look, and what follows from it. `own` holds one verdict for each of `specs`."""
    before = {counts.metric: counts for counts in previous}
    verdicts = {verdict.metric: verdict for verdict in own}
    counted, consequences = [], [_of_built_in(built_in, on_inconclusive)]
    for spec in specs:
        verdict = verdicts[spec.name]
        counts = _count(before.get(spec.name, MetricCounts(metric=spec.name)), verdict.outcome)
        counted.append(counts)
        consequences.append(_consequence(spec, verdict, counts))
    outcome = next(rank for rank in _WORST_FIRST if any(item.outcome is rank for item in consequences))
    return tuple(counted), Ruling(
        decision=_gravest(item.now for item in consequences),
        at_end=_gravest(item.at_end for item in consequences),
        outcome=outcome,
        reason=_reason(outcome, consequences, len(specs)),
    )


def merged(built_in: Verdict, own: Sequence[MetricVerdict], ruling: Ruling) -> Verdict:
    """The whole look as one Verdict: what people see."""
    return built_in.model_copy(
        update={"outcome": ruling.outcome, "reason": ruling.reason, "metrics": (*built_in.metrics, *own)}
    )


def _count(before: MetricCounts, outcome: Outcome) -> MetricCounts:
    """Errors stand apart: a look without an answer neither continues a row of failures nor breaks it."""
    looks = before.looks + 1
    if outcome is Outcome.ERROR:
        return before.model_copy(
            update={"looks": looks, "errors": before.errors + 1, "errors_in_all": before.errors_in_all + 1}
        )
    told: Mapping[str, int] = {
        Outcome.PASS: {"failures": 0, "inconclusive": 0},
        Outcome.FAIL: {"failures": before.failures + 1, "inconclusive": 0},
        Outcome.INCONCLUSIVE: {"inconclusive": before.inconclusive + 1},
    }[outcome]
    return before.model_copy(update={"looks": looks, "errors": 0, **told})


def _of_built_in(verdict: Verdict, on_inconclusive: InconclusivePolicy) -> _Consequence:
    match verdict.outcome:
        case Outcome.FAIL:
            now, at_end = Decision.ROLLBACK, Decision.ROLLBACK
        case Outcome.PASS:
            now, at_end = Decision.CONTINUE, Decision.CONTINUE
        case _:
            now, at_end = Decision.CONTINUE, on_inconclusive
    return _Consequence("", verdict.outcome, now, at_end, verdict.reason)


def _consequence(spec: MetricSpec, verdict: MetricVerdict, counts: MetricCounts) -> _Consequence:
    def told(outcome: Outcome, now: Decision, at_end: Decision, more: str = "") -> _Consequence:
        return _Consequence(spec.name, outcome, now, at_end, f"{spec.name}: {verdict.explanation}{more}")

    match verdict.outcome:
        case Outcome.PASS:
            return told(Outcome.PASS, Decision.CONTINUE, Decision.CONTINUE)
        case Outcome.FAIL if counts.failures >= spec.consecutive_failure_limit:
            follows = Decision.ROLLBACK if spec.policy.on_fail is FailPolicy.ROLLBACK else Decision.PAUSE
            row = f" (look {counts.failures} in a row)" if spec.consecutive_failure_limit > 1 else ""
            return told(Outcome.FAIL, follows, follows, row)
        case Outcome.FAIL:
            more = f" (failed {counts.failures} of {spec.consecutive_failure_limit} looks in a row that count)"
            return told(Outcome.INCONCLUSIVE, Decision.CONTINUE, _never_passing(spec), more)
        case Outcome.ERROR:
            return _of_error(spec, verdict, counts)
        case Outcome.INCONCLUSIVE:
            return _of_nothing(spec, verdict, counts)


def _of_error(spec: MetricSpec, verdict: MetricVerdict, counts: MetricCounts) -> _Consequence:
    too_many = counts.looks >= RATE_NEEDS_LOOKS and counts.errors_in_all / counts.looks > spec.error_rate_limit
    reached = counts.errors >= spec.error_limit or too_many
    row = f"{counts.errors} looks in a row without an answer, {counts.errors_in_all} of {counts.looks} in all"
    limit = f"; the limit is {spec.error_limit} in a row or {100 * spec.error_rate_limit:g} %" if reached else ""
    reason = f"{spec.name}: {spec.provider} said nothing ({row}{limit}): {verdict.explanation}"
    if spec.policy.on_error is ErrorPolicy.CONTINUE:
        return _Consequence(
            spec.name, Outcome.ERROR, Decision.CONTINUE, Decision.CONTINUE, f"{reason}; left out by policy"
        )
    if reached:
        follows = Decision.PAUSE if spec.policy.on_error is ErrorPolicy.PAUSE else Decision.ROLLBACK
        return _Consequence(spec.name, Outcome.ERROR, follows, follows, reason)
    return _Consequence(spec.name, Outcome.ERROR, Decision.CONTINUE, _never_passing(spec), reason)


def _of_nothing(spec: MetricSpec, verdict: MetricVerdict, counts: MetricCounts) -> _Consequence:
    follows = spec.policy.on_inconclusive
    if verdict.no_data and spec.policy.on_no_data is not NoDataPolicy.INCONCLUSIVE:
        follows = Decision(spec.policy.on_no_data.value)
    reached = spec.inconclusive_limit is not None and counts.inconclusive >= spec.inconclusive_limit
    now = follows if reached and follows in (Decision.PAUSE, Decision.ROLLBACK) else Decision.CONTINUE
    row = f" (look {counts.inconclusive} in a row that tells nothing)" if reached else ""
    return _Consequence(spec.name, Outcome.INCONCLUSIVE, now, follows, f"{spec.name}: {verdict.explanation}{row}")


def _never_passing(spec: MetricSpec) -> Decision:
    """A step may end with something open, but not pass on it: where the policy would go on, it is watched longer."""
    policy = spec.policy.on_inconclusive
    return Decision.EXTEND if policy is Decision.CONTINUE else policy


def _gravest(decisions: Iterable[Decision]) -> Decision:
    return max(decisions, key=_GRAVITY.index)


def _reason(outcome: Outcome, consequences: Sequence[_Consequence], own: int) -> str:
    decisive = [item for item in consequences if item.outcome is outcome]
    if outcome is Outcome.PASS:
        return f"{decisive[0].reason}; {own} own metric{'s' if own > 1 else ''} within {'their' if own > 1 else 'its'} limits"
    # The gravest first: what happens next must be explained, whatever is cut off behind it.
    decisive.sort(key=lambda item: (-_GRAVITY.index(item.now), -_GRAVITY.index(item.at_end)))
    return "; ".join(item.reason for item in decisive)
