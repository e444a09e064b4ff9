"""Everything done is undone in reverse: a stack of absolute, idempotent entries that runs to its end even while cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """`undo` must be safe to run twice and say absolutely what holds afterwards ('routes are X')."""

    title: str
    undo: Callable[[], Awaitable[None]]


class CompensationStack:
    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def push(self, title: str, undo: Callable[[], Awaitable[None]]) -> None:
        """Promise to undo; a title already promised is not promised twice."""
        if all(entry.title != title for entry in self._entries):
            self._entries.append(Entry(title, undo))

    async def unwind(self) -> None:
        """Run the entries, last first. A cancel from outside waits until they are done and is raised then.

        Raises what the first failing entry raises, after the others have run: one fault must not keep the rest undone.
        """
        task = asyncio.create_task(self._run())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await task
            raise

    async def _run(self) -> None:
        faults: list[Exception] = []
        while self._entries:
            entry = self._entries.pop()
            try:
                await entry.undo()
            except Exception as fault:  # noqa: BLE001 - collected and raised below
                faults.append(fault)
        if faults:
            raise faults[0]
