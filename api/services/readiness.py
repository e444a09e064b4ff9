"""Whether the servers behind the facade answer: each asked at once, within two seconds, and named with its state."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic, perf_counter

from api.schemas.operations import Dependency, ReadyOut, State
from api.services.rollouts import Rollouts
from hotswap.domain.errors import Unavailable
from hotswap.keys.sealing import new_data_key
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.events import EventBus
from hotswap.ports.keys import KeyProvider
from hotswap.ports.records import UnitOfWorkFactory

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.0

KEYS_SECONDS = 10.0
"""How old what is told of the key provider may be."""

PROBED = "readiness"
"""Whose key is wrapped to see whether the provider answers: no tenant has this context (hotswap.keys.ring)."""

AWAY = "does not answer; the api's log says why"
"""The route is open to everybody, so addresses and causes go to the log."""


class Readiness:
    """PostgreSQL and Temporal are required; without artifacts, events or the tenants' key provider the api still deploys,
    reads and commands."""

    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        rollouts: Rollouts,
        artifacts: ArtifactStore,
        bus: EventBus,
        keys: KeyProvider | None = None,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._checks: dict[str, tuple[bool, Callable[[], Awaitable[None]]]] = {
            "postgres": (True, self._postgres),
            "temporal": (True, rollouts.ready),
            "artifacts": (False, artifacts.ready),
            "events": (False, bus.ready),
        }
        if keys is not None:
            self._checks["keys"] = (False, KeyCheck(keys).ready)

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


class KeyCheck:
    """Wraps a key of nobody's and unwraps it again: the provider answers, and its own key is one. Asked at most every
    KEYS_SECONDS, since the route is open to everybody and a provider counts its calls."""

    def __init__(self, provider: KeyProvider) -> None:
        self._provider = provider
        self._asking = asyncio.Lock()
        self._asked_at = -KEYS_SECONDS
        self._fault: str | None = None

    async def ready(self) -> None:
        """Raises Unavailable as the provider did when it was asked last."""
        async with self._asking:
            if monotonic() - self._asked_at >= KEYS_SECONDS:
                self._fault = await self._ask()
                self._asked_at = monotonic()
        if self._fault is not None:
            raise Unavailable(self._fault)

    async def _ask(self) -> str | None:
        probe = new_data_key()
        try:
            async with asyncio.timeout(CHECK_SECONDS * 0.9):  # before the check's own end, so that it is remembered
                (again,) = await self._provider.unwrap([await self._provider.wrap(probe, PROBED)])
        except Unavailable as fault:
            return fault.message
        except TimeoutError:
            return f"the key provider gave no answer within {CHECK_SECONDS:g} s"
        return None if again == probe else "the key provider does not unwrap what it wrapped"


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
