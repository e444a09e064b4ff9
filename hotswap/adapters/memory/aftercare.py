"""Held versions and drift reports in memory: the twin of hotswap.adapters.postgres.aftercare."""

from collections.abc import Sequence

from hotswap.adapters import record_rules as rules
from hotswap.adapters.memory.record_stores import Transaction
from hotswap.domain.drift import DriftReport
from hotswap.domain.holds import HeldVersion
from hotswap.domain.registry import Page


class MemoryHeldVersionStore:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def hold(self, held: HeldVersion) -> None:
        rules.storable(held, rules.HELD_LIMITS)
        state = await self._transaction.writing()
        if held.environment not in state.environments or (held.plugin, held.version) not in state.versions:
            raise rules.version_missing(held.plugin, held.version)
        state.held[(held.environment, held.plugin, held.version)] = held

    async def find(self, environment: str, plugin: str, version: str) -> HeldVersion | None:
        rules.check_storable({"environment": environment, "plugin": plugin, "version": version})
        return (await self._transaction.reading()).held.get((environment, plugin, version))

    async def lift(self, environment: str, plugin: str, version: str) -> bool:
        rules.check_storable({"environment": environment, "plugin": plugin, "version": version})
        return (await self._transaction.writing()).held.pop((environment, plugin, version), None) is not None

    async def list(self, environment: str | None, page: Page) -> tuple[Sequence[HeldVersion], int]:
        rules.check_storable({"environment": environment})
        held = (await self._transaction.reading()).held
        found = [held[key] for key in sorted(held) if environment in (None, key[0])]
        found.sort(key=lambda one: one.held_at, reverse=True)
        return found[page.offset : page.offset + page.limit], len(found)


class MemoryDriftStore:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def save(self, report: DriftReport) -> None:
        rules.storable(report)
        state = await self._transaction.writing()
        if report.environment not in state.environments:
            raise rules.environment_missing(report.environment)
        kept = state.drift.get(report.environment)
        if kept is None or kept.taken_at <= report.taken_at:
            state.drift[report.environment] = report

    async def last(self, environment: str) -> DriftReport | None:
        rules.check_storable({"environment": environment})
        return (await self._transaction.reading()).drift.get(environment)
