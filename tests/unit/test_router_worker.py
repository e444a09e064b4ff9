"""What a router process tells its node of versions that it serves no more. No process is started."""

import socket
from types import SimpleNamespace
from typing import Any, cast

from hotswap.node.figures import Slot
from hotswap.node.journal import Counted, Journal, JournalMemory
from hotswap.node.router import Router
from hotswap.node.router_worker import RouterWorker

GAUGES = {"connections": 0, "in_flight": 0, "waiting": 0, "queued": 0, "unsettled": 0, "metered": 0, "refused": {}}


async def test_what_is_held_back_of_a_version_that_is_switched_away_is_told_when_it_is_settled() -> None:
    here, there = socket.socketpair()
    memory = JournalMemory()
    worker = RouterWorker(there)
    sent: list[dict[str, Any]] = []
    router = SimpleNamespace(**GAUGES | {"unsettled": 40})
    worker._router = cast(Router, router)
    worker._journal = Journal(memory.descriptor)
    channel, worker._control = worker._control, SimpleNamespace(send=sent.append)  # type: ignore[assignment]
    counted = worker._counts["invoice", "1.0.0"] = Counted("invoice", "1.0.0", worker._journal)
    worker._tell(None)  # nothing routes it, nothing is under way
    router.unsettled = 0
    counted.absorb(0.0, Slot(0.0, requests=40))
    worker._tell(None)
    worker._tell(None)
    assert [message["counts"] and message["counts"][0][2]["requests"] for message in sent] == [[], 40, []]
    assert worker._counts == {}, "and then it is forgotten"
    memory.close()
    channel.close()
    here.close()
