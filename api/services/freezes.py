"""Freezes: make, list, lift, and the one switch that stops everything; each change audited, and told to what is held.

Neighbours: hotswap.domain.freeze says what stands, workflows.freezes holds by it, api.services.promotions wakes.
"""

from collections.abc import Sequence

from api.schemas.freezes import FreezeIn, FreezeQuery, StandingQuery
from api.services.actor import Actor
from api.services.idempotency import Once, fingerprint
from api.services.plugins import entry
from api.services.promotions import Promotions
from hotswap.domain import freeze as rules
from hotswap.domain.errors import Conflict
from hotswap.domain.freeze import Freeze, FreezeKind, FreezeVerdict, standing
from hotswap.domain.ids import derived_id, new_id
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.notices import of_freeze
from hotswap.domain.registry import Page
from hotswap.ports.freezes import FreezeFilter
from hotswap.ports.records import DeploymentFilter, UnitOfWork, UnitOfWorkFactory

MOST_WOKEN = 1_000
"""Held rollouts told at once. More than these ask by themselves within minutes (workflows.freezes)."""


class FreezeService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, promotions: Promotions | None) -> None:
        self._unit_of_work = unit_of_work
        self._promotions = promotions

    async def make(self, wanted: FreezeIn, actor: Actor, once: Once) -> Freeze:
        """Raises NotFound for an unknown plugin."""
        request_hash = fingerprint(wanted)
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, Freeze):
                return known
            freeze = Freeze(
                freeze_id=derived_id("frz", actor.user, once.key) if once.key else new_id("frz"),
                kind=wanted.kind,
                environment=wanted.environment,
                plugin=wanted.plugin_id,
                window=wanted.window,
                reason=wanted.reason,
                created_by=actor.user,
                created_at=await uow.now(),
            )
            await self._add(uow, freeze, actor)
            await once.keep(uow, request_hash, 201, freeze)
            await uow.commit()
        await self._wake(freeze)
        return freeze

    async def list(self, query: FreezeQuery) -> tuple[Sequence[Freeze], int]:
        """Newest first."""
        where = FreezeFilter(environment=query.environment, plugin=query.plugin_id, lifted=query.lifted)
        async with self._unit_of_work() as uow:
            return await uow.freezes.list(where, query)

    async def get(self, freeze_id: str) -> Freeze:
        """Raises NotFound."""
        async with self._unit_of_work() as uow:
            return await uow.freezes.get(freeze_id)

    async def verdict(self, query: StandingQuery) -> FreezeVerdict:
        """Whether a deployment of the plugin could move in the environment now."""
        async with self._unit_of_work() as uow:
            freezes = await uow.freezes.in_force(query.environment, query.plugin_id)
            return standing(freezes, query.environment, query.plugin_id, await uow.now())

    async def lift(self, freeze_id: str, reason: str, actor: Actor) -> Freeze:
        """A repeat changes nothing. Raises NotFound."""
        async with self._unit_of_work() as uow:
            before = await uow.freezes.get(freeze_id)
            lifted = await uow.freezes.lift(freeze_id, actor.user, reason)
            if before.lifted_at is None:
                await self._audit(uow, "freeze.lifted", lifted, actor, reason)
                await uow.notifications.announce(of_freeze(lifted, actor.user, reason, await uow.now()))
            await uow.commit()
        await self._wake(lifted)
        return lifted

    async def stop(self, reason: str, actor: Actor) -> tuple[Freeze, bool]:
        """The standing stop, and whether it is new: pressing the switch twice is pressing it once."""
        async with self._unit_of_work() as uow:
            if (stands := await _stop(uow)) is not None:
                return stands, False
            now = await uow.now()
            freeze = Freeze(
                freeze_id=new_id("frz"),
                kind=FreezeKind.STOP,
                window=rules.Once(starts=now),
                reason=reason,
                created_by=actor.user,
                created_at=now,
            )
            try:
                await self._add(uow, freeze, actor)
            except Conflict:  # somebody pressed it in this moment
                if (stands := await _stop(uow)) is None:
                    raise
                return stands, False
            await uow.commit()
        await self._wake(freeze)
        return freeze, True

    async def release(self, reason: str, actor: Actor) -> Freeze:
        """Lift the stop. Raises Conflict when nothing is stopped."""
        async with self._unit_of_work() as uow:
            stands = await _stop(uow)
        if stands is None:
            raise Conflict("nothing is stopped; GET /freezes shows what holds")
        return await self.lift(stands.freeze_id, reason, actor)

    async def _add(self, uow: UnitOfWork, freeze: Freeze, actor: Actor) -> None:
        await uow.freezes.add(freeze)
        await self._audit(uow, "freeze.made", freeze, actor, freeze.reason)
        await uow.notifications.announce(of_freeze(freeze, actor.user, freeze.reason, freeze.created_at))

    async def _audit(self, uow: UnitOfWork, event: str, freeze: Freeze, actor: Actor, reason: str) -> None:
        details = {
            "kind": freeze.kind,
            "environment": freeze.environment,
            "plugin": freeze.plugin,
            "window": freeze.window.model_dump(mode="json"),
            "reason": reason,
        }
        await uow.audit.append(entry(event, "freeze", freeze.freeze_id, actor, await uow.now(), details))

    async def _wake(self, freeze: Freeze) -> None:
        """Tell what is held that it should ask again: a lift releases at once, a longer freeze corrects what it waits for."""
        if self._promotions is None:
            return
        held: list[str] = []
        async with self._unit_of_work() as uow:
            where = DeploymentFilter(
                plugin=freeze.plugin, environment=freeze.environment, status=DeploymentStatus.IN_PROGRESS
            )
            for offset in range(0, MOST_WOKEN, 100):
                rows, _ = await uow.deployments.list(where, Page(limit=100, offset=offset))
                held += [row.workflow_id for row in rows if row.progress.held_by]
                if len(rows) < 100:
                    break
        await self._promotions.wake(held)


async def _stop(uow: UnitOfWork) -> Freeze | None:
    return next((one for one in await uow.freezes.in_force(None, None) if one.kind is FreezeKind.STOP), None)
