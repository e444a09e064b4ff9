"""Whether a version fits what serves, who would break, and the way out; the way out is walked, and nothing breaks on it."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.dependencies.check import declared_faults, problems_of
from hotswap.dependencies.models import ProblemKind, Release
from hotswap.dependencies.resolve import judge
from hotswap.domain.manifest import Dependency

K = ProblemKind


def needs(name: str, constraint: str = "*", **more: Any) -> Dependency:
    return Dependency(name=name, version_constraint=constraint, **more)


def rel(text: str, *dependencies: Dependency) -> Release:
    plugin, version = text.split()
    return Release(plugin=plugin, version=version, dependencies=dependencies)


def env(*releases: Release) -> dict[str, list[Release]]:
    ordered = sorted(releases, key=lambda one: one.plugin)
    return {name: list(found) for name, found in itertools.groupby(ordered, key=lambda one: one.plugin)}


REPORTS = rel("reports 3.0.0", needs("billing", "^2.0"))
BILLING_1, BILLING_2 = rel("billing 1.4.0"), rel("billing 2.1.0", needs("tax", "^3"))
TAX_2, TAX_3 = rel("tax 2.0.0"), rel("tax 3.0.1")


@pytest.mark.parametrize(
    ("target", "serving", "kind", "said"),
    [
        (REPORTS, [], K.MISSING, "reports 3.0.0 needs billing ^2.0, and no billing serves"),
        (REPORTS, [BILLING_1], K.UNSATISFIED, "reports 3.0.0 needs billing ^2.0, but 1.4.0 serves"),
        # two links away: what billing needs is missing too
        (REPORTS, [BILLING_2, TAX_2], K.UNSATISFIED, "billing 2.1.0 needs tax ^3, but 2.0.0 serves"),
        # the other way round: who serves already would break
        (BILLING_1, [BILLING_2, TAX_3, REPORTS], K.DEPENDENT, "reports 3.0.0 serves and needs billing ^2.0"),
        (
            rel("audit 1.0.0", needs("billing", "*", conflicts=("2.1.x",))),
            [BILLING_2, TAX_3],
            K.CONFLICT,
            "audit 1.0.0 does not work with billing 2.1.0 (conflicts: 2.1.x)",
        ),
        (
            rel("audit 1.0.0", needs("billing", "*", optional=True, conflicts=("tax@<3",))),
            [TAX_2],
            K.CONFLICT,
            "audit 1.0.0 does not work with tax 2.0.0",
        ),
        (
            TAX_2,
            [rel("audit 1.0.0", needs("billing", "*", optional=True, conflicts=("tax@<3",)))],
            K.DEPENDENT,
            "audit 1.0.0 serves and does not work with tax <3",
        ),
        (rel("a 1.0.0", needs("tax", "^3", optional=True)), [TAX_2], K.UNSATISFIED, "needs tax ^3, but 2.0.0 serves"),
        (rel("a 1.0.0", needs("tax", "newest")), [TAX_2], K.UNREADABLE, "'newest' is not a version constraint"),
    ],
)
def test_what_does_not_fit_is_named(target: Release, serving: list[Release], kind: ProblemKind, said: str) -> None:
    problem = problems_of(target, env(*serving))[0]
    assert problem.kind is kind
    assert said in problem.message


@pytest.mark.parametrize(
    ("target", "serving"),
    [
        (REPORTS, [BILLING_2, TAX_3]),
        (BILLING_2, [TAX_3, REPORTS, BILLING_1]),
        (rel("a 1.0.0", needs("tax", "^9", optional=True)), []),
        (rel("a 1.0.0", needs("requests", "not-even-semver", type="Package")), []),
        # two that need each other and are served: a ring is no fault in itself
        (rel("a 1.1.0", needs("b", "^1")), [rel("a 1.0.0", needs("b", "^1")), rel("b 1.0.0", needs("a", "^1"))]),
        # a third party's old quarrel is not this version's fault
        (TAX_3, [rel("x 1.0.0", needs("y")), rel("z 1.0.0", needs("tax", "garbage"))]),
    ],
)
def test_what_fits_is_let_through(target: Release, serving: list[Release]) -> None:
    assert problems_of(target, env(*serving)) == ()


def test_both_versions_of_a_running_rollout_must_fit() -> None:
    serving = {"billing": [BILLING_1, rel("billing 2.0.0")]}
    assert "1.4.0 serves" in problems_of(REPORTS, serving)[0].message


def test_the_chain_leads_to_what_is_in_the_way() -> None:
    problem = problems_of(REPORTS, env(BILLING_2, TAX_2))[0]
    assert problem.chain == ("reports 3.0.0", "billing ^2.0 (2.1.0 serves)", "tax ^3 (2.0.0 serves)")
    error = judge(REPORTS, env(BILLING_2, TAX_2), {"tax": [TAX_2, TAX_3]}).refusal(REPORTS, "QA")
    assert error.message == (
        "reports 3.0.0 does not fit QA: billing 2.1.0 needs tax ^3, but 2.0.0 serves. Chain: reports 3.0.0 -> "
        "billing ^2.0 (2.1.0 serves) -> tax ^3 (2.0.0 serves). To do: deploy tax 3.0.1 first"
    )
    assert [fault.field for fault in error.faults] == ["version"]


def suggestion(target: Release, serving: list[Release], *known: Release) -> str:
    return judge(target, env(*serving), env(*known)).way_out.suggestion


def test_the_way_out_says_what_to_deploy_first_and_in_which_order() -> None:
    known = (BILLING_1, BILLING_2, TAX_2, TAX_3, rel("tax 4.0.0"), rel("billing 2.2.0-rc.1"))
    assert suggestion(REPORTS, [BILLING_1, TAX_2], *known) == "deploy tax 3.0.1, then billing 2.1.0 first"
    assert suggestion(REPORTS, [BILLING_1, TAX_3], *known) == "deploy billing 2.1.0 first"
    assert suggestion(REPORTS, [], *known) == "deploy tax 3.0.1, then billing 2.1.0 first"


def test_what_serves_is_kept_where_it_can_be() -> None:
    newest = (rel("tax 3.9.0"), rel("billing 2.9.0", needs("tax", "^3")))
    assert suggestion(REPORTS, [BILLING_1, TAX_3], *newest) == "deploy billing 2.9.0 first"


def test_no_way_out_says_why() -> None:
    assert "reports 3.0.0 needs billing ^2.0" in suggestion(REPORTS, [BILLING_1], BILLING_1)
    # reports 2 needs billing 1 and reports 3 needs billing 2: neither can go first.
    old = rel("reports 2.0.0", needs("billing", "^1"))
    said = suggestion(REPORTS, [BILLING_1, old], BILLING_1, rel("billing 2.0.0"), old, REPORTS)
    assert "nothing to deploy first mends this" in said or "need each other at once" in said
    ring = suggestion(rel("a 1.0.0", needs("b", "^1")), [], rel("b 1.0.0", needs("a", "^1")))
    assert "b 1.0.0, a 1.0.0 need each other at once" in ring


def test_a_dependent_in_the_way_is_moved_first_when_it_can_be() -> None:
    old, both = rel("reports 2.0.0", needs("billing", "^1")), rel("reports 2.5.0", needs("billing", "^1 || ^2"))
    said = suggestion(rel("billing 2.0.0"), [BILLING_1, old], old, both)
    assert said == "deploy reports 2.5.0 first"


def test_wrong_declarations_are_named_by_their_keys() -> None:
    release = rel(
        "billing 1.0.0",
        needs("Tax Office"),
        needs("billing"),
        needs("tax", "latest", conflicts=("2.x", "tax@^3", "two words", "reports@newest")),
        needs("numpy", "anything", type="Package"),
    )
    faults = {fault.field: fault.message for fault in declared_faults(release)}
    assert sorted(faults) == [
        "dependencies.0.name",
        "dependencies.1.name",
        "dependencies.2.conflicts.2",
        "dependencies.2.conflicts.3",
        "dependencies.2.versionConstraint",
    ]
    assert "cannot depend on itself" in faults["dependencies.1.name"]


NAMES = ("a", "b", "c", "d")
RANGES = st.sampled_from(["*", "^1", "^2", ">=1 <3", "1.x || 2.x", "^2.1"])
NUMBERS = st.sampled_from(["1.0.0", "1.1.0", "2.0.0", "2.1.0", "3.0.0"])
DEPENDENCIES = st.lists(
    st.builds(
        Dependency,
        name=st.sampled_from(NAMES),
        versionConstraint=RANGES,
        optional=st.booleans(),
        conflicts=st.lists(st.sampled_from(["2.0.0", "d@1.x", "a@3.x"]), max_size=1).map(tuple),
    ),
    max_size=2,
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Release, dict[str, list[Release]], dict[str, list[Release]]]:
    """A target, an environment reached by deployments that each fitted, and what is registered."""
    known: dict[str, list[Release]] = {}
    for name in NAMES:
        for number in draw(st.lists(NUMBERS, unique=True, max_size=3)):
            wanted = [one for one in draw(DEPENDENCIES) if one.name != name]
            known.setdefault(name, []).append(rel(f"{name} {number}", *wanted))
    serving: dict[str, list[Release]] = {}
    for release in draw(st.permutations([one for found in known.values() for one in found])):
        if not problems_of(release, serving):
            serving[release.plugin] = [release]
    target = rel(f"{draw(st.sampled_from(NAMES))} 2.2.0", *draw(DEPENDENCIES))
    others = tuple(one for one in target.dependencies if one.name != target.plugin)
    return target.model_copy(update={"dependencies": others}), serving, known


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_the_way_out_can_be_walked_and_breaks_nothing(
    world: tuple[Release, dict[str, list[Release]], dict[str, list[Release]]],
) -> None:
    target, serving, known = world
    verdict = judge(target, serving, known)
    if not verdict.problems:
        return
    assert verdict.way_out.suggestion
    walked = dict(serving)
    for step in verdict.way_out.steps:
        assert step in known[step.plugin]
        assert problems_of(step, walked) == ()
        walked[step.plugin] = [step]
    if verdict.way_out.steps:
        assert problems_of(target, walked) == ()
    # What stands after a deployment that fits is in order as a whole: everyone's needs are met.
    for found in walked.values():
        assert problems_of(found[0], walked) == ()
