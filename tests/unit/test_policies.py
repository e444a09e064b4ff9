"""What follows from a look: limits in a row, policies, and which of them wins."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.analysis.policies import merged, rule
from hotswap.domain.analysis import InconclusivePolicy, MetricVerdict, Outcome, Verdict
from hotswap.domain.metrics import MetricCounts, MetricSpec, Ruling

P, F, U, E = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR
EXTEND = InconclusivePolicy.EXTEND


def spec(name: str = "m", policy: dict[str, str] | None = None, **more: Any) -> MetricSpec:
    base = {"name": name, "provider": "prometheus", "query": "up", "operator": "<=", "threshold": 1}
    return MetricSpec.model_validate({**base, "policy": policy or {}, **more})


def built_in(outcome: Outcome = P) -> Verdict:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Verdict(outcome=outcome, reason=f"the nodes say {outcome}", taken_at=at, window=timedelta(seconds=1))


def looks(made: MetricSpec, *outcomes: Outcome, no_data: bool = False) -> list[Ruling]:
    """The rulings of several looks in a row, counts carried along."""
    counts: tuple[MetricCounts, ...] = ()
    rulings = []
    for outcome in outcomes:
        verdict = MetricVerdict(metric=made.name, outcome=outcome, explanation="told", no_data=no_data)
        counts, ruling = rule(counts, built_in(), EXTEND, (verdict,), (made,))
        rulings.append(ruling)
    return rulings


def last(made: MetricSpec, *outcomes: Outcome, no_data: bool = False) -> tuple[str, str, str]:
    ruling = looks(made, *outcomes, no_data=no_data)[-1]
    return ruling.outcome, ruling.decision, ruling.at_end


FAILS_AT_3 = spec(consecutiveFailureLimit=3)


@pytest.mark.parametrize(
    ("made", "outcomes", "said"),
    [
        (spec(), [P], (P, "continue", "continue")),
        # failures in a row
        (spec(), [F], (F, "rollback", "rollback")),
        (spec(policy={"onFail": "pause"}), [F], (F, "pause", "pause")),
        (FAILS_AT_3, [F, F], (U, "continue", "extend")),
        (FAILS_AT_3, [F, F, F], (F, "rollback", "rollback")),
        (FAILS_AT_3, [F, F, P, F, F], (U, "continue", "extend")),
        (FAILS_AT_3, [F, F, P], (P, "continue", "continue")),
        # a look that tells nothing neither breaks the row nor lengthens it
        (FAILS_AT_3, [F, E, F, U, F], (F, "rollback", "rollback")),
        (FAILS_AT_3, [F, E, E, U], (U, "continue", "extend")),
        # something open never passes a step, whatever onInconclusive says
        (spec(policy={"onInconclusive": "continue"}, consecutiveFailureLimit=3), [F], (U, "continue", "extend")),
        (spec(policy={"onInconclusive": "rollback"}, consecutiveFailureLimit=3), [F], (U, "continue", "rollback")),
        # errors, counted apart
        (spec(), [E], (E, "continue", "extend")),
        (spec(), [E, E, E], (E, "continue", "extend")),
        (spec(), [E, E, E, E], (E, "pause", "pause")),
        (spec(), [E, E, E, P, E], (E, "continue", "extend")),
        (spec(errorLimit=1), [E], (E, "pause", "pause")),
        (spec(errorLimit=2, policy={"onError": "rollback"}), [E, E], (E, "rollback", "rollback")),
        (spec(errorLimit=1, policy={"onError": "continue"}), [E, E], (E, "continue", "continue")),
        (spec(policy={"onInconclusive": "continue"}), [E], (E, "continue", "extend")),
        # every third look answers: never four in a row, but more than half in all
        (spec(), [E, E, P] * 3, (P, "continue", "continue")),
        (spec(), [E, E, P] * 3 + [E], (E, "pause", "pause")),
        (spec(errorRateLimit=0.8), [E, E, P] * 3 + [E], (E, "continue", "extend")),
        # inconclusive
        (spec(), [U] * 50, (U, "continue", "extend")),
        (spec(policy={"onInconclusive": "pause"}), [U] * 50, (U, "continue", "pause")),
        (spec(policy={"onInconclusive": "continue"}), [U], (U, "continue", "continue")),
        (spec(policy={"onInconclusive": "pause"}, inconclusiveLimit=3), [U, U], (U, "continue", "pause")),
        (spec(policy={"onInconclusive": "pause"}, inconclusiveLimit=3), [U, U, U], (U, "pause", "pause")),
        (spec(policy={"onInconclusive": "rollback"}, inconclusiveLimit=1), [U], (U, "rollback", "rollback")),
        (spec(policy={"onInconclusive": "pause"}, inconclusiveLimit=3), [U, U, P, U], (U, "continue", "pause")),
    ],
)
def test_limits_and_policies(made: MetricSpec, outcomes: list[Outcome], said: tuple[str, str, str]) -> None:
    assert last(made, *outcomes) == said


@pytest.mark.parametrize(
    ("policy", "at_end"),
    [("inconclusive", "extend"), ("continue", "continue"), ("pause", "pause"), ("rollback", "rollback")],
)
def test_no_data_has_a_policy_of_its_own_and_is_never_a_pass(policy: str, at_end: str) -> None:
    made = spec(policy={"onNoData": policy})
    assert last(made, U, no_data=True) == (U, "continue", at_end)
    assert last(made, U, no_data=False) == (U, "continue", "extend")
    limited = spec(policy={"onNoData": policy}, inconclusiveLimit=2)
    now = at_end if policy in ("pause", "rollback") else "continue"
    assert last(limited, U, U, no_data=True)[1] == now


def test_failed_beats_error_beats_inconclusive_and_the_gravest_consequence_wins() -> None:
    fails, errs = spec("fails", {"onFail": "pause"}), spec("errs", {"onError": "rollback"}, errorLimit=1)
    open_ = spec("open")
    verdicts = {
        name: MetricVerdict(metric=name, outcome=outcome, explanation="told")
        for name, outcome in (("fails", F), ("errs", E), ("open", U))
    }

    def ruled(*specs: MetricSpec) -> Ruling:
        return rule((), built_in(), EXTEND, [verdicts[made.name] for made in specs], specs)[1]

    assert (ruled(open_, errs, fails).outcome, ruled(open_, errs, fails).decision) == (F, "rollback")
    assert (ruled(open_, errs).outcome, ruled(open_, errs).decision) == (E, "rollback")
    assert (ruled(open_, fails).outcome, ruled(open_, fails).decision) == (F, "pause")
    assert ruled(open_, fails).reason == "fails: told"


@pytest.mark.parametrize(
    ("outcome", "policy", "said"),
    [
        (F, "continue", (F, "rollback", "rollback")),
        (U, "continue", (U, "continue", "continue")),
        (U, "pause", (U, "continue", "pause")),
        (P, "pause", (P, "continue", "continue")),
    ],
)
def test_the_nodes_own_figures_keep_their_say(outcome: Outcome, policy: str, said: tuple[str, str, str]) -> None:
    passing = MetricVerdict(metric="m", outcome=P, explanation="fine")
    _, ruling = rule((), built_in(outcome), InconclusivePolicy(policy), (passing,), (spec(),))
    assert (ruling.outcome, ruling.decision, ruling.at_end) == said
    whole = merged(built_in(outcome), (passing,), ruling)
    assert whole.outcome is outcome
    assert whole.metrics == (passing,)
    assert f"the nodes say {outcome}" in whole.reason


outcomes = st.sampled_from([P, F, U, E])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(outcomes, min_size=1, max_size=30),
    st.sampled_from([P, U]),
    st.builds(
        dict,
        onFail=st.sampled_from(["rollback", "pause"]),
        onError=st.sampled_from(["continue", "pause", "rollback"]),
        onNoData=st.sampled_from(["inconclusive", "continue", "pause", "rollback"]),
        onInconclusive=st.sampled_from(["continue", "extend", "pause", "rollback"]),
    ),
    st.integers(1, 4),
    st.booleans(),
)
def test_nothing_but_a_pass_or_a_policy_that_says_so_lets_a_step_end(
    row: list[Outcome], nodes: Outcome, policy: dict[str, str], limit: int, no_data: bool
) -> None:
    made = spec(policy=policy, consecutiveFailureLimit=limit, errorLimit=limit)
    counts: tuple[MetricCounts, ...] = ()
    for outcome in row:
        verdict = MetricVerdict(metric="m", outcome=outcome, no_data=no_data and outcome is U)
        counts, ruling = rule(counts, built_in(nodes), InconclusivePolicy.PAUSE, (verdict,), (made,))
        if ruling.at_end == "continue":
            assert nodes is P
            assert (
                outcome is P
                or (outcome is E and policy["onError"] == "continue")
                or (outcome is U and "continue" in (policy["onInconclusive"], policy["onNoData"]))
            )
        assert (ruling.outcome is P) == (outcome is P and nodes is P)
        assert ruling.decision in ("continue", "pause", "rollback")
        assert counts[0].looks >= counts[0].errors_in_all >= counts[0].errors
