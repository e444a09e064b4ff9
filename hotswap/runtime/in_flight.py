"""The calls a host owes answers to: ids, deadlines, and what was given up. Used by hotswap.runtime.handle alone.

One coarse timer for all calls: it is set anew only when a call is due before every other, so that a steady load with one
timeout touches it once a timeout and not once a call.
"""

import asyncio
import heapq
import math
from collections.abc import Callable

from hotswap.ports.hosts import Reply
from hotswap.runtime.protocol import REQUEST_ID_MASK

TIMER_GRAIN = 0.005
"""Seconds a TIMEOUT may come late."""

Done = Callable[[Reply], None]


class InFlight:
    """Belongs to one event loop. `give_up(id)` is called for each call that timed out, before its `done`.

    `unbegun`: how many frames owed are for calls that the host has not begun.
    """

    def __init__(self, name: str, give_up: Callable[[int], None], unbegun: Callable[[], int]) -> None:
        self.calls: dict[int, tuple[float, Done]] = {}
        """id -> (deadline in loop time, done). The hot path pops from here directly."""
        self.abandoned: set[int] = set()
        """Ids nobody waits for any more; the host still owes a frame for each, which is dropped."""
        self._name = name
        self._give_up = give_up
        self._unbegun = unbegun
        self._loop = asyncio.get_running_loop()
        self._last_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._idle: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        """Every frame owed, the abandoned included."""
        return len(self.calls) + len(self.abandoned)

    def new_id(self) -> int:
        """1 to 2^32-1, then 1 again; never one that is still owed."""
        while True:
            self._last_id = self._last_id % REQUEST_ID_MASK + 1
            if self._last_id not in self.calls and self._last_id not in self.abandoned:
                return self._last_id

    def add(self, request_id: int, timeout: float, done: Done) -> None:
        deadline = self._loop.time() + timeout
        self.calls[request_id] = (deadline, done)
        if deadline < self._timer_at:
            self._set_timer(deadline)

    def answer(self, done: Done, reply: Reply) -> None:
        """Call `done`; its fault must not cost the other callers their channel."""
        try:
            done(reply)
        except Exception as fault:  # noqa: BLE001 - it goes to the loop's handler, like any callback's
            self._loop.call_exception_handler(
                {"message": f"{self._name}: a reply's callback raised", "exception": fault}
            )

    def answer_all(self, watermark: int, message: bytes, limit: str, *, only_unseen: bool = False) -> None:
        """Answer every call with a failure; `watermark` is the last id the host began. only_unseen: leave begun calls."""
        for request_id, (_, done) in list(self.calls.items()):
            seen = began(request_id, watermark)
            if not (seen and only_unseen):
                del self.calls[request_id]
                self.abandoned.add(request_id)
                self.answer(done, Reply(False, message, limit=limit, started=seen))
        self.wake_idle()

    async def drained(self) -> None:
        """Until no call is in flight."""
        if self.calls:
            idle: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(idle)
            await idle

    def wake_idle(self) -> None:
        """Tell those who wait in `drained`, if it is so. Cheap when nobody waits."""
        if self._idle and not self.calls:
            for idle in self._idle:
                if not idle.done():
                    idle.set_result(None)
            self._idle.clear()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline + TIMER_GRAIN, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = self._loop.time()
        message = b"the host did not answer in time"
        waiting = self._youngest(self._unbegun())
        for request_id in [request_id for request_id, (deadline, _) in self.calls.items() if deadline <= now]:
            call = self.calls.pop(request_id, None)
            if call is not None:  # a `done` before it may have closed the host and answered everything
                self.abandoned.add(request_id)
                self._give_up(request_id)
                self.answer(call[1], Reply(False, message, limit="TIMEOUT", begun=request_id not in waiting))
        if self.calls:
            earliest = min(deadline for deadline, _ in self.calls.values())
            if earliest < self._timer_at:
                self._set_timer(earliest)
        self.wake_idle()

    def _youngest(self, count: int) -> set[int]:
        """So many that were sent last: a host begins calls in the order in which they come."""
        owed = (*self.calls, *self.abandoned)
        return set(heapq.nsmallest(count, owed, key=lambda request_id: (self._last_id - request_id) & REQUEST_ID_MASK))


def began(request_id: int, watermark: int) -> bool:
    """Whether a host whose watermark this is may have begun the request. Ids wrap; a fresh host's watermark is 0."""
    return (watermark - request_id) & REQUEST_ID_MASK < 2**31
