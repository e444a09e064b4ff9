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
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def check(self) -> ReadyOut:
        states = await asyncio.gather(*(self._state_of(name) for name in self._checks))
        dependencies = dict(zip(self._checks, states, strict=True))
        away = [state for state in states if state.state != State.OK]
        status = State.OK
        if away:
            status = State.AWAY if any(state.required for state in away) else State.DEGRADED
        return ReadyOut(status=status, dependencies=dependencies)

    async def _state_of(self, name: str) -> Dependency:
        required, ask = self._checks[name]
        began = perf_counter()
        fault = await self._fault_of(name, ask)
        if fault:
            log.warning("%s is away: %s", name, fault)
        return Dependency(
            state=State.AWAY if fault else State.OK,
            required=required,
            detail=AWAY if fault else "",
            milliseconds=round((perf_counter() - began) * 1000, 1),
        )

    async def _fault_of(self, name: str, ask: Callable[[], Awaitable[None]]) -> str:
        """Why it counts as away, "" when it answers.

        One that hangs is left to end by itself, one question at a time: psycopg asks a server that hangs to cancel, and waits
        ten seconds for that.
        """
        asking = self._asking.get(name)
        if asking is None or asking.done():
            asking = self._asking[name] = asyncio.create_task(_asked(ask), name=f"is {name} there")
        await asyncio.wait({asking}, timeout=CHECK_SECONDS)
        if not asking.done() or asking.cancelled():
            if not asking.cancelling():
                asking.cancel()
            return f"no answer within {CHECK_SECONDS:g} s"
        try:
            asking.result()
        except Unavailable as fault:
            return fault.message
        return ""

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


async def _asked(ask: Callable[[], Awaitable[None]]) -> None:
    await ask()
