"""Kills parts of the embedded stack with SIGKILL at random moments, one or two at a time, and awaits their return.

Every choice comes from one seeded generator. Never two nodes at once: with three, a rollout keeps its quorum and every
tenant a node to ask, so that whatever traffic misses is the platform's fault. Neighbour: tests.chaos.run starts it.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field

from hotswap.embedded.parts import Restart
from hotswap.embedded.stack import EmbeddedStack

SERVERS = ("temporal", "postgres", "valkey", "seaweedfs")
KINDS = ("node", "node", "worker", "api", *SERVERS)
"""What is drawn from: nodes twice, being three."""

RETURN_WITHIN = 60.0
"""Seconds for a killed part to serve again; PostgreSQL recovers in 1 to 3, a cold Python process in 2 to 8 here."""

TWO_AT_ONCE = 0.15
"""Share of injections that kill a second part at a random moment while the first is still away."""


@dataclass
class Injection:
    """One kill. Times are Unix seconds; `down` is how long the part did not serve after its process had ended.

    On a busy machine the kernel may need seconds to end a killed process: it closes one connection after the other, and
    each client that hears of it may run first. `ended` is when it was done.
    """

    part: str
    at: float
    down: float | None = None
    pid: int = 0
    ended: float = 0.0

    def came_back(self, restart: Restart) -> None:
        self.down = restart.down.total_seconds()
        self.ended = restart.at.timestamp() - self.down

    def explains(self, part: str, at: float, slack: float) -> bool:
        """Whether something that `part` did at `at` may be this kill's doing."""
        return part == self.part and self.at - 0.5 <= at <= max(self.at, self.ended) + slack


@dataclass
class Injector:
    """`run` until cancelled; `injections` tells what was done, `lost` which parts never came back."""

    stack: EmbeddedStack
    choose: random.Random
    gap: tuple[float, float]
    """Seconds between the return of one part and the next kill: anything between these two."""
    injections: list[Injection] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> list[str]:
        return [str(node["id"]) for node in self.stack.info["nodes"]]

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.choose.uniform(*self.gap))
            parts = self._victims()
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(self._kill(part))
                    if part != parts[-1]:
                        await asyncio.sleep(self.choose.uniform(0.0, 1.0))

    def _victims(self) -> list[str]:
        first = self.choose.choice(KINDS)
        others = [kind for kind in KINDS if kind != first]
        picked = [first, self.choose.choice(others)] if self.choose.random() < TWO_AT_ONCE else [first]
        return [self.choose.choice(self.nodes) if kind == "node" else kind for kind in picked]

    async def _kill(self, part: str) -> None:
        injection = Injection(part, time.time())
        injection.pid = pid = self.stack.kill(part)
        self.injections.append(injection)
        try:
            async with asyncio.timeout(RETURN_WITHIN):
                restart = await self.stack.restarted(part, pid)
        except TimeoutError:
            self.lost.append(f"{part} was killed and did not serve again within {RETURN_WITHIN:.0f} s")
        else:
            injection.came_back(restart)
