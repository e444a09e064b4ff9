"""Who is served by which version: pins, cohorts, stickiness."""

from hypothesis import given
from hypothesis import strategies as st

from hotswap.domain.routes import FULL_WEIGHT, RouteState
from hotswap.routing.decide import choose_version, in_cohort
from tests.unit.node_fakes import order, ref

tenants = st.from_regex(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
weights = st.integers(0, FULL_WEIGHT)
seeds = st.text(max_size=40)


@given(seeds, tenants, weights, weights)
def test_raising_the_weight_only_adds_tenants(seed: str, tenant: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert in_cohort(seed, tenant, high) or not in_cohort(seed, tenant, low)


@given(seeds, tenants)
def test_nobody_at_zero_and_everybody_at_full_weight(seed: str, tenant: str) -> None:
    assert not in_cohort(seed, tenant, 0)
    assert in_cohort(seed, tenant, FULL_WEIGHT)


@given(tenants, weights)
def test_a_tenant_stays_with_its_version_across_orders_of_one_seed(tenant: str, weight: int) -> None:
    first, retry = order(1, "1.0.0", "2.0.0", weight), order(9, "1.0.0", "2.0.0", weight)
    assert choose_version(tenant, first.state, {}) == choose_version(tenant, retry.state, {})


@given(tenants, weights)
def test_a_pin_wins_over_any_weight(tenant: str, weight: int) -> None:
    state = order(1, "1.0.0", "2.0.0", weight).state
    assert choose_version(tenant, state, {tenant: ref("0.9.0")}) == "0.9.0"
    assert choose_version(tenant, RouteState(), {tenant: ref("0.9.0")}) == "0.9.0"


def test_the_share_of_tenants_is_the_weight() -> None:
    for weight in (100, 1_000, 3_000, 5_000, 9_000):
        inside = sum(in_cohort("invoice:2.0.0", f"tenant-{n}", weight) for n in range(20_000))
        expected = 20_000 * weight / FULL_WEIGHT
        # Five standard deviations of a binomial: fails once in two million seeds, and the seed is fixed.
        assert abs(inside - expected) < 5 * (expected * (1 - weight / FULL_WEIGHT)) ** 0.5


def test_another_version_gets_another_cohort() -> None:
    names = [f"tenant-{n}" for n in range(2_000)]
    one = {name for name in names if in_cohort("invoice:2.0.0", name, 1_000)}
    other = {name for name in names if in_cohort("invoice:2.0.1", name, 1_000)}
    assert len(one & other) < 60  # 20 expected: the same tenants are not always the first to suffer


def test_the_hash_is_the_agreed_one() -> None:
    # Every node and every release must decide alike; these were computed once with xxh3_64 and must never change.
    assert [n for n in range(40) if in_cohort("p:1.1.0", f"t{n}", 3_000)] == [
        11,
        12,
        16,
        18,
        19,
        26,
        29,
        30,
        32,
        37,
        39,
    ]


def test_without_any_version_there_is_none() -> None:
    assert choose_version("acme", RouteState(), {}) is None
    first_rollout = order(1, None, "1.0.0", 0).state
    assert choose_version("acme", first_rollout, {}) is None
