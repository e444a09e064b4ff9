"""A version's own lifecycle, walked pair by pair; where each status may be deployed; who a version serves."""

from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.dependencies.packages import package_faults
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, IllegalTransition
from hotswap.domain.lifecycle import VersionEvent, VersionStatus, advance_version, version_moves
from hotswap.domain.manifest import Dependency
from hotswap.domain.release import check_deployable, check_way_back
from hotswap.domain.routes import ArtifactRef, RouteRecord, RouteState
from hotswap.routing.adoption import Role, adoption_of
from hotswap.routing.decide import choose_version
from tests.contract.factories import make_ref, make_version

S, V, E = VersionStatus, VersionEvent, Environment
NOW = datetime(2026, 1, 1, tzinfo=UTC)

EXPECTED = {
    S.DRAFT: {V.SUBMIT: S.PENDING_APPROVAL, V.ARCHIVE: S.ARCHIVED},
    S.PENDING_APPROVAL: {V.APPROVE: S.APPROVED, V.DEPRECATE: S.DEPRECATED, V.ARCHIVE: S.ARCHIVED},
    S.APPROVED: {V.DEPRECATE: S.DEPRECATED},
    S.DEPRECATED: {V.REINSTATE: S.PENDING_APPROVAL, V.ARCHIVE: S.ARCHIVED},
}


@pytest.mark.parametrize(("status", "event"), list(product(VersionStatus, VersionEvent)))
def test_every_status_of_a_version_and_every_event(status: VersionStatus, event: VersionEvent) -> None:
    after = EXPECTED.get(status, {}).get(event)
    assert version_moves().get((status, event)) is after
    if after is not None:
        assert advance_version(status, event) is after
        return
    with pytest.raises(IllegalTransition, match=r"possible now|nothing leads out") as caught:
        advance_version(status, event)
    assert all(str(possible) in caught.value.message for possible in EXPECTED.get(status, {}))


def test_nobody_reaches_production_without_an_approval() -> None:
    """Whatever way through the table, with every event tried from every status."""
    seen, pending = set(), [(S.DRAFT, False), (S.PENDING_APPROVAL, False)]
    while pending:
        status, approved = pending.pop()
        if (status, approved) in seen:
            continue
        seen.add((status, approved))
        version = make_version("billing", status=status, approved_at=NOW if approved else None)
        if not approved:
            with pytest.raises(Conflict):
                check_deployable(version, E.PRODUCTION, allow_deprecated=True)
        for event, after in EXPECTED.get(status, {}).items():
            pending.append((after, event is V.APPROVE or (approved and event is not V.REINSTATE)))
    assert len(seen) == 7


@pytest.mark.parametrize(
    ("status", "environments", "with_leave"),
    [
        (S.DRAFT, "Development", "Development"),
        (S.PENDING_APPROVAL, "Development QA Staging", "Development QA Staging"),
        (S.APPROVED, "Development QA Staging Production", "Development QA Staging Production"),
        (S.DEPRECATED, "", "Development QA Staging Production"),
        (S.ARCHIVED, "", ""),
    ],
)
def test_where_a_version_may_go(status: VersionStatus, environments: str, with_leave: str) -> None:
    version = make_version("billing", status=status, approved_at=NOW if status is not S.PENDING_APPROVAL else None)
    for allowed, allow_deprecated in ((environments, False), (with_leave, True)):
        for environment in Environment:
            if environment in allowed.split():
                check_deployable(version, environment, allow_deprecated=allow_deprecated)
                continue
            with pytest.raises(
                Conflict, match=rf"billing 1\.0\.0 is {status} and may not be deployed to {environment}"
            ):
                check_deployable(version, environment, allow_deprecated=allow_deprecated)
    if status is S.ARCHIVED:
        with pytest.raises(Conflict, match="cannot be gone back to"):
            check_way_back(version)
    else:
        check_way_back(version)


TENANTS = [f"tenant-{number}" for number in range(40)]
ONE, TWO, OLD = make_ref("billing", "1.0.0"), make_ref("billing", "2.0.0"), make_ref("billing", "0.9.0")


def record(environment: Environment, state: RouteState) -> RouteRecord:
    return RouteRecord(
        environment=environment, plugin="billing", generation=3, state=state, deployment_id="dep", written_at=NOW
    )


@given(
    st.integers(0, 10_000),
    st.dictionaries(st.sampled_from(TENANTS), st.sampled_from([ONE, TWO, OLD]), max_size=10),
    st.sets(st.sampled_from(TENANTS)),
)
def test_adoption_counts_every_tenant_on_record_once_and_as_requests_are_routed(
    weight: int, pins: dict[str, ArtifactRef], tenants: set[str]
) -> None:
    state = RouteState(stable=ONE, candidate=TWO, candidate_weight=weight, seed="s", warm=(OLD,))
    counts = {}
    for ref in (ONE, TWO, OLD):
        found = adoption_of("billing", ref.version, [record(E.QA, state)], pins, tenants, most=1000)
        (place,) = found.environments
        served = [one for one in {*tenants, *pins} if choose_version(one, state, pins) == ref.version]
        assert set(found.tenants) == set(served)
        assert place.known_tenants == found.tenant_count == len(served)
        assert place.pinned_tenants == sum(pinned == ref for pinned in pins.values())
        counts[ref.version] = place.weight_percent
    assert found.tenants_on_record == len({*tenants, *pins})
    assert counts == {"1.0.0": (10_000 - weight) / 100, "2.0.0": weight / 100, "0.9.0": 0}


def test_a_version_has_a_place_only_where_somebody_could_get_it() -> None:
    routes = [
        record(E.QA, RouteState(stable=ONE)),
        record(E.STAGING, RouteState()),
        record(E.PRODUCTION, RouteState(stable=TWO)),
    ]
    found = adoption_of("billing", "1.0.0", routes, {}, ["acme"], most=10)
    assert [(place.environment, place.role) for place in found.environments] == [(E.QA, Role.STABLE)]
    pinned = adoption_of("billing", "1.0.0", routes, {"acme": ONE}, [], most=10)
    assert [(place.environment, place.role) for place in pinned.environments] == [
        (E.QA, Role.STABLE),
        (E.PRODUCTION, Role.PINNED),
    ]
    switched = RouteState(stable=ONE, candidate=TWO, seed="s", switched_nodes=("node-1", "node-2"))
    (place,) = adoption_of("billing", "2.0.0", [record(E.QA, switched)], {}, [], most=10).environments
    assert (place.role, place.weight_percent, place.switched_nodes) == (Role.CANDIDATE, 0, 2)
    assert adoption_of("billing", "9.9.9", routes, {"acme": ONE}, ["acme"], most=10).environments == ()


def test_vendored_packages_are_held_to_what_is_declared() -> None:
    def package(name: str, constraint: str, *conflicts: str) -> Dependency:
        return Dependency(name=name, version_constraint=constraint, type="Package", conflicts=conflicts)

    vendored = {"phone-numbers": "8.13.0", "idna": "3.10"}
    declared = [
        package("Phone_Numbers", ">=8,<9"),
        package("idna", "<3"),
        package("idna", "*", "==3.10"),
        package("requests", ">=2"),  # not vendored: only recorded
        package("idna", "^3"),
        Dependency(name="tax", version_constraint="^3"),
    ]
    faults = {fault.field: fault.message for fault in package_faults(declared, vendored)}
    assert sorted(faults) == [
        "dependencies.1.versionConstraint",
        "dependencies.2.conflicts.0",
        "dependencies.4.versionConstraint",
    ]
    assert "the bundle vendors idna 3.10" in faults["dependencies.1.versionConstraint"]
    assert "PEP 440" in faults["dependencies.4.versionConstraint"]
