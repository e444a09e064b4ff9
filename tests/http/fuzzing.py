"""Schemathesis over the facade's own OpenAPI document: what may be sent, what must be refused, and who may ask at all.

A World is one app over in-memory twins with something of everything in it. `sweep` sends it generated requests, as each
person, and answers what was found wrong; tests/http/test_api_fuzz.py sweeps a little on every run, `make fuzz` a lot.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import FlakyStrategyDefinition, Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from api.services.aftercare import DriftService
from hotswap.adapters.local_keys import LocalKeyProvider
from hotswap.domain.deployment import Role
from tests.http.site import API, PEOPLE, Site, make_site
from tests.http.test_api_aftercare import Bare, Desk
from tests.http.test_api_health import Nodes
from tests.http.test_api_security import ROLES, WITHOUT_TOKEN

REFUSED_BY_RULES_THAT_NO_SCHEMA_TELLS = {
    "GET /api/v1/audit-logs/verify": "expectHash and expectPosition come together",
    "GET /api/v1/plugins/{pluginId}/metrics": "a window of PT1S to PT24H",
    "POST /api/v1/authentication/password": "the current password is wrong",
    "POST /api/v1/codec/decode": "base64",
    "POST /api/v1/deployments": "a strategy's own settings",
    "POST /api/v1/deployments/plan": "a strategy's own settings",
    "POST /api/v1/freezes": "windows that end after they begin, time zones",
    "POST /api/v1/pipelines": "stages in order, each once",
    "POST /api/v1/plugins/{pluginId}/versions": "a zip that is none",
    "POST /api/v1/plugins/{pluginId}/versions/complete": "a zip that is none",
    "POST /api/v1/plugins/{pluginId}/versions/presigned": "the limit of the platform",
    "POST /api/v1/plugins/{pluginId}/versions/{version}/sign": "a signature that fits",
    "POST /api/v1/publisher-keys": "32 bytes that are a point of the curve",
    "POST /api/v1/sandbox/create": "durations and resources within settings",
    "POST /api/v1/sandbox/{sandboxId}/execute": "a method of the manifest, durations",
    "POST /api/v1/service-tokens": "durations",
    "POST /api/v1/tenants/{tenant}/tokens": "durations",
    "POST /api/v1/users": "passwords that are easy to guess, tenants without their role",
    "PUT /api/v1/notifications/rules/{ruleId}": "addresses and templates",
    "PUT /api/v1/plugins/{pluginId}": "addresses",
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/config": "the plugin's own configurationSchema",
    "PUT /api/v1/users/{user}": "tenants without their role",
    "PUT /api/v1/users/{user}/password": "passwords that are easy to guess",
}
"""Where a 400 to what fits the document is right: the check that valid data is accepted is left out there, and only it."""


@dataclass
class World:
    site: Site
    known: dict[str, str]
    """Path parameters that lead to something."""
    tokens: dict[str, str] = field(default_factory=lambda: {person: f"token-of-{person}" for person in PEOPLE})

    @cached_property
    def schema(self) -> Any:
        return schemathesis.openapi.from_asgi("/openapi.json", self.site.app)

    @cached_property
    def operations(self) -> list[Any]:
        return sorted((found.ok() for found in self.schema.get_all_operations()), key=lambda one: one.label)

    def headers(self, person: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[person]}"} if person in self.tokens else {}


def make_world(folder: Path) -> World:
    """Rate limits out of the way, so that no answer is hidden by a 429."""
    site = make_site(
        folder, nodes=Nodes(), keys=LocalKeyProvider(lambda: [b"k" * 32]), api={"rate_limit_factor": 1_000_000}
    )
    site.container.drift = DriftService(site.records.unit_of_work, Bare(), Desk())
    return World(site, asyncio.run(_fill(site)))


async def _fill(site: Site) -> dict[str, str]:
    headers = {"Authorization": "Bearer token-of-admin"}
    transport = httpx.ASGITransport(site.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as admin:
        site.clients["admin"] = admin
        await site.ship("greeter", "1.0.0", "2.0.0")
        await site.approve("1.0.0")
        deployment = (await site.deploy("1.0.0")).json()["deploymentId"]
        await site.complete(deployment)

        async def made(path: str, key: str, **body: Any) -> str:
            answer = await admin.post(f"{API}{path}", json=body)
            assert answer.is_success, answer.text
            document: dict[str, Any] = answer.json()
            return str(document[key] if key in document else next(iter(document.values()))[key])

        user = await made("/users", "name", name="ada", roles=["Viewer"])
        sandbox = await made("/sandbox/create", "sandboxId", pluginId="greeter", version="1.0.0")
        window = {"kind": "once", "starts": "2030-01-01T00:00:00Z"}
        freeze = await made("/freezes", "freezeId", reason="inventory", window=window)
        stages = [{"environment": "QA"}]
        pipeline = await made("/pipelines", "pipelineId", pluginId="greeter", version="2.0.0", stages=stages)
    del site.clients["admin"]
    return {
        "pluginId": "greeter",
        "version": "1.0.0",
        "deploymentId": deployment,
        "environment": "Development",
        "tenant": "acme",
        "user": user,
        "sandboxId": sandbox,
        "freezeId": freeze,
        "pipelineId": pipeline,
        "name": "api-key",
    }


def sweep(
    world: World, operations: Sequence[Any], examples: int, number: int = 0, boundaries: int | None = None
) -> list[str]:
    """What is wrong with the answers to so many generated requests of each kind, and to boundary cases (None: all)."""
    faults: list[str] = []
    for operation in operations:
        faults += _everybody(world, operation)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            faults += _generated(world, operation, mode, examples, number)
        for case in _boundaries(operation, boundaries):
            faults += judge(world, case, "admin")
    return faults


def _everybody(world: World, operation: Any) -> list[str]:
    """One request, as nobody and as each person."""
    faults: list[str] = []

    @_bounded(1, 0)
    @given(operation.as_strategy(path_parameters=_known(world, operation)))
    def run(case: Any) -> None:
        for person in ("nobody", *PEOPLE):
            faults.extend(judge(world, case, person))

    run()
    return faults


def _generated(world: World, operation: Any, mode: GenerationMode, examples: int, number: int) -> list[str]:
    faults: list[str] = []
    known = _known(world, operation)
    places: list[dict[str, str] | None] = [None]
    if known and mode.is_positive:
        places.append(known)
    for place in places:

        @_bounded(max(1, examples // len(places)), number)
        @given(operation.as_strategy(mode, path_parameters=place))
        def run(case: Any) -> None:
            faults.extend(judge(world, case, "admin"))

        with contextlib.suppress(Unsatisfiable):  # nothing can be sent wrong: there is neither parameter nor body
            run()
    return faults


def _bounded(examples: int, number: int) -> Any:
    """The same requests on every run with the same number; none is shrunk, so that a sweep takes as long as it says."""
    return lambda test: seed(number)(_settings(examples)(test))


def _settings(examples: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        **more,
    )


def _boundaries(operation: Any, most: int | None) -> Iterator[Any]:
    """Schemathesis' own list for the operation: shortest and longest, wrong types, what is missing, other methods."""
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    config = operation.schema.config.generation_for(operation=operation)
    cases = operation.schema.iter_coverage_cases(operation, generation_modes=modes, generation_config=config)
    for case in islice(cases, most):
        case._record_starting_state()
        yield case


def _known(world: World, operation: Any) -> dict[str, str]:
    return {one.name: world.known[one.name] for one in operation.path_parameters if one.name in world.known}


def judge(world: World, case: Any, person: str) -> list[str]:
    """What is wrong with the answer to this request of this person."""
    label, headers = case.operation.label, world.headers(person)
    response = case.call(headers=headers)
    faults = []
    if label in ROLES and case.method.upper() == label.split(" ")[0]:
        held = Role(PEOPLE[person]) if person in PEOPLE else None
        if held is None and response.status_code != 401:
            faults.append(f"{label} answers {response.status_code} to nobody")
        if held is not None and held not in ROLES[label] and response.status_code != 403:
            faults.append(f"{label} answers {response.status_code} to the {held}")
        if (
            held is Role.TENANT_OWNER
            and case.path_parameters.get("tenant", "acme") != "acme"
            and response.status_code != 403
        ):
            faults.append(f"{label} answers {response.status_code} to the owner of another tenant")
    try:
        case.validate_response(
            response, headers=headers, excluded_checks=_excluded(case, person), transport_kwargs={"headers": headers}
        )
    except FailureGroup as wrong:
        faults.append(f"{person}: {wrong}")
    return faults


def _excluded(case: Any, person: str) -> list[Any]:
    """Checks that do not fit this request: what rules refuse, and what is open anyway."""
    excluded: list[Any] = []
    if case.operation.label in REFUSED_BY_RULES_THAT_NO_SCHEMA_TELLS:
        excluded.append(openapi_checks.positive_data_acceptance)
    if person == "nobody" or case.operation.label in WITHOUT_TOKEN:
        excluded.append(openapi_checks.ignored_auth)
    return excluded


def wander(world: World, walks: int, steps: int, number: int = 0) -> None:
    """Requests that follow from each other's answers, as an Admin. Raises what is wrong with the first bad answer."""
    # A deployment that runs tells its events without end.
    schema = world.schema.exclude(path_regex=r"/events$")
    headers = world.headers("admin")

    class Walk(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": headers}

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            case.validate_response(
                response, headers=headers, excluded_checks=_excluded(case, "admin"), transport_kwargs=more
            )

    for walk in range(walks):
        # Hypothesis takes it ill that what comes next depends on what was answered before; here it is meant to.
        with contextlib.suppress(FlakyStrategyDefinition):
            # Two: the first of a run is always the simplest one.
            run_state_machine_as_test(
                seed(number + walk)(Walk), settings=_settings(2, stateful_step_count=steps, print_blob=False)
            )


def main() -> int:
    """`make fuzz ARGS="--examples 200 --number 7"`: another number is another run, the same number the same one."""
    asked = argparse.ArgumentParser(prog="make fuzz", description=main.__doc__)
    asked.add_argument("--examples", type=int, default=50, help="generated requests of each kind and operation")
    asked.add_argument("--walks", type=int, default=100, help="walks of 20 requests that follow from each other")
    asked.add_argument("--number", type=int, default=0, help="which requests (seed)")
    asked.add_argument("--only", default="", help="operations whose 'METHOD /path' holds this")
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        faults: list[str] = []
        for operation in world.operations:
            if chosen.only in operation.label:
                found = sweep(world, [operation], chosen.examples, chosen.number)
                print(f"{operation.label:<90} {len(found) or ''}", flush=True)
                faults += found
        try:
            wander(world, chosen.walks, 20, chosen.number)
        except (FailureGroup, ExceptionGroup) as wrong:
            faults.append(str(wrong))
    print(*faults, sep="\n\n")
    print(f"{len(faults)} faults with --examples {chosen.examples} --walks {chosen.walks} --number {chosen.number}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
