"""Who waits for a busy version, in what order, and who is turned away at once. One Backlog for each version, when needed.

Neighbours: hotswap.node.router offers and takes, hotswap.ports.hosts tells how many calls a process has not begun yet.
Pure data on one event loop. docs/data-plane.md explains the choice; in short:

- A process gets a few calls more than it has begun (`window`), no matter how many it is working on: a plugin that waits
  for others takes thousands at a time, one that computes takes what it drains in START_DELAY. Everything else waits here,
  where tenants take turns and where an answer is still ours to give.
- A burst may wait: as much as drains in BURST_SECONDS. A queue that stands for STRETCH_SECONDS is no burst but overload;
  until it is empty half of the time, only one more window may wait, so that who is admitted stays fast and the rest can
  go elsewhere at once (as in "Fail at Scale", B. Maurer, ACM Queue 13(8), 2015). A tenant that has little waiting beside
  others finds room a little longer.
- When it is full, the newest request of the tenant that has most waiting is turned away, so that a flood pays for itself.
"""

import math
from collections import OrderedDict, deque

from hotswap.node.exchange import Exchange

START_DELAY = 0.005
"""Seconds of work a process should have before it: a wake-up of the router on a busy machine, so that it is never idle."""

BURST_SECONDS = 0.25
"""How long a burst may wait at worst."""

STRETCH_SECONDS = 1.0
"""The stretches in which a queue is judged: a machine that stalls for some 100 ms must not cost a request."""

STANDS, ENDS = 0.1, 0.5
"""Overload begins when the queue was empty for less of a stretch than the first, and ends when for more than the second."""

FIRST_WINDOW = 128
"""Unbegun calls before anything is known of a version."""
MIN_WINDOW, MAX_WINDOW = 1, 256
MIN_BURST, MAX_BURST = 128, 2000
FIRST_RATE = 2000.0
"""Requests/s assumed of a version of which nothing is known: a burst of 500 may wait for it."""
RATE_FALLS = 0.9
"""A rate that was reached is believed again by this factor less for each measure that is lower: stalls are short."""

MODEST = 4
"""Requests that a tenant may have waiting in overload beside others' when the window is smaller, and how many windows may
wait in all when tenants are that modest: what comes in small bunches must not lose to what floods."""

BATCH_SECONDS = 0.001
"""Calls that end this close together were worked on side by side (threads that began together): half of them should be
there already when that happens, or the process runs dry. Half and not all, so that a process that merely answers in
batches does not keep the batches it is given."""

MEASURE_SECONDS = 0.05
"""Shortest stretch of standing queue from which a drain rate is read."""


class Backlog:
    """Requests that wait for one version. `size` is how many; `window` how many unbegun calls a process of it may have."""

    __slots__ = (
        "_batch",
        "_batch_at",
        "_emptied_at",
        "_empty_for",
        "_largest",
        "_mark_at",
        "_rate",
        "_routers",
        "_stretch_at",
        "_taken",
        "_tenants",
        "_total",
        "overloaded",
        "size",
        "window",
    )

    def __init__(self, routers: int = 1) -> None:
        """`routers`: that call the version. With several, `answered` is told what all of them get, in place of `ended`."""
        self._routers = routers
        self._total = -1
        """Answers to all routers, as of the last look; -1 = the queue has just begun to stand."""
        self.size = 0
        self.window = FIRST_WINDOW
        self.overloaded = False
        self._tenants: OrderedDict[str, deque[Exchange]] = OrderedDict()
        """Who has requests here, next to be served first."""
        self._rate = FIRST_RATE
        """Requests/s that the version last took from a queue that did not run empty."""
        self._stretch_at = -math.inf
        """When the stretch began that is being judged; for how much of it the queue was empty, and since when it is."""
        self._empty_for = 0.0
        self._emptied_at = -math.inf
        self._taken = 0
        self._mark_at = 0.0
        self._batch = self._largest = 0
        self._batch_at = -math.inf

    def room(self, tenant: str) -> int:
        """How many may wait, as the tenant sees it."""
        if self.overloaded:
            own = len(self._tenants.get(tenant, ()))
            beside_others = len(self._tenants) > (own > 0)
            return self.window * MODEST if own < MODEST and beside_others else self.window
        return max(MIN_BURST, min(MAX_BURST, int(self._rate * BURST_SECONDS))) // self._routers

    def offer(self, exchange: Exchange, now: float) -> Exchange | None:
        """Let it wait. Returns who must be turned away for that, perhaps itself; None when there was room."""
        self._judge(now)
        if not self.size:
            self._empty_for += now - self._emptied_at
            self._mark_at = now
            self._taken = 0
            self._total = -1
        turned_away = None
        if self.size >= self.room(exchange.tenant):
            own = len(self._tenants.get(exchange.tenant, ()))
            greedy, most = max(self._tenants.items(), key=lambda item: len(item[1]))
            if own >= len(most) - 1:
                return exchange
            turned_away = most.pop()
            turned_away.backlog = None
            self._shrunk(greedy, most, now)
        self._tenants.setdefault(exchange.tenant, deque()).append(exchange)
        self.size += 1
        exchange.backlog = self
        return turned_away

    def take(self, now: float) -> Exchange:
        """The next in turn: tenants one after the other, each in its own order. The queue must not be empty."""
        tenant, waiting = next(iter(self._tenants.items()))
        exchange = waiting.popleft()
        self._tenants.move_to_end(tenant)
        self._shrunk(tenant, waiting, now)
        exchange.backlog = None
        if self._routers == 1:
            self._taken += 1
            self._measure(now)
        self._judge(now)
        return exchange

    def came_late(self) -> None:
        """The one taken last was not given to the version after all: its time is over."""
        if self._routers == 1:
            self._taken -= 1

    def ended(self, now: float) -> None:
        """A call of the version has ended while others wait."""
        if now - self._batch_at > BATCH_SECONDS:
            self._batch_at = now
            self._batch = 0
        self._batch += 1
        self._largest = max(self._largest, self._batch)

    def answered(self, now: float, total: int) -> None:
        """With several routers, at every look: how many calls the version has answered, of all of them.

        All see the same count, so they come to the same window, and none pushes another aside.
        """
        ended = max(0, total - self._total) if self._total >= 0 else 0  # less: a process was replaced, it counts from 0
        self._total = total
        if now - self._batch_at > BATCH_SECONDS:
            self._batch_at = now
            self._batch = 0
        self._batch += ended
        self._largest = max(self._largest, self._batch)
        self._taken += ended
        self._measure(now)

    def leave(self, exchange: Exchange, now: float) -> None:
        """It waits no more: its client has gone."""
        waiting = self._tenants[exchange.tenant]
        waiting.remove(exchange)
        self._shrunk(exchange.tenant, waiting, now)
        exchange.backlog = None

    def empty(self, now: float) -> list[Exchange]:
        """Everybody, in turn; nobody waits here afterwards."""
        everybody = []
        while self.size:
            tenant, waiting = self._tenants.popitem(last=False)
            self._tenants[tenant] = waiting
            exchange = waiting.popleft()
            self._shrunk(tenant, waiting, now)
            exchange.backlog = None
            everybody.append(exchange)
        return everybody

    def _shrunk(self, tenant: str, waiting: deque[Exchange], now: float) -> None:
        self.size -= 1
        if not waiting:
            del self._tenants[tenant]
        if not self.size:
            self._emptied_at = now

    def _judge(self, now: float) -> None:
        """Tell a burst from overload by how much of the last stretch the queue was empty."""
        stretch = now - self._stretch_at
        if stretch < STRETCH_SECONDS:
            return
        if not self.size:
            self._empty_for += now - self._emptied_at
            self._emptied_at = now
        self.overloaded = self._empty_for < stretch * (ENDS if self.overloaded else STANDS)
        self._stretch_at = now
        self._empty_for = 0.0

    def _measure(self, now: float) -> None:
        """Learn how fast the version takes from a queue that stands, and size the window by it."""
        elapsed = now - self._mark_at
        if elapsed >= MEASURE_SECONDS:
            self._rate = max(self._taken / elapsed, self._rate * RATE_FALLS)
            self.window = max(MIN_WINDOW, min(MAX_WINDOW, max(int(self._rate * START_DELAY), self._largest // 2)))
            self._mark_at = now
            self._taken = self._largest = 0
