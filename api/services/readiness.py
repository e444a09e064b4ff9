"""Whether the servers behind the facade answer: each asked at once, within two seconds, and named with its state."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter

from api.schemas.operations import Dependency, ReadyOut, State
from api.services.rollouts import Rollouts
from hotswap.domain.errors import Unavailable
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.events import EventBus
from hotswap.ports.records import UnitOfWorkFactory

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.0

AWAY = "does not answer; the api's log says why"
"""The route is open to everybody, so addresses and causes go to the log."""


class Readiness:
    """PostgreSQL and Temporal are required; without artifacts or events the api still deploys, reads and commands."""

    def __init__(
        self, unit_of_work: UnitOfWorkFactory, rollouts: Rollouts, artifacts: ArtifactStore, bus: EventBus
    ) -> None:
        self._unit_of_work = unit_of_work
        self._checks: dict[str, tuple[bool, Callable[[], Awaitable[None]]]] = {
            "postgres": (True, self._postgres),
            "temporal": (True, rollouts.ready),
            "artifacts": (False, artifacts.ready),
            "events": (False, bus.ready),
        }

    async def check(self) -> ReadyOut:
        states = await asyncio.gather(
            *(_checked(name, required, ask) for name, (required, ask) in self._checks.items())
        )
        dependencies = dict(zip(self._checks, states, strict=True))
        away = [state for state in states if state.state != State.OK]
        status = State.OK
        if away:
            status = State.AWAY if any(state.required for state in away) else State.DEGRADED
        return ReadyOut(status=status, dependencies=dependencies)

    async def _postgres(self) -> None:
        async with self._unit_of_work() as uow:
            await uow.now()


async def _checked(name: str, required: bool, ask: Callable[[], Awaitable[None]]) -> Dependency:
    began = perf_counter()
    state, detail = State.OK, ""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await ask()
    except Unavailable as fault:
        log.warning("%s is away: %s", name, fault.message)
        state, detail = State.AWAY, AWAY
    except TimeoutError:
        log.warning("%s is away: no answer within %g s", name, CHECK_SECONDS)
        state, detail = State.AWAY, AWAY
    milliseconds = round((perf_counter() - began) * 1000, 1)
    return Dependency(state=state, required=required, detail=detail, milliseconds=milliseconds)
