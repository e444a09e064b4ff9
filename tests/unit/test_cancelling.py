"""A cancel reaches the work even when what it awaits swallows it, once, and timeouts inside go on working."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from workflows.cancelling import obeying


async def swallowing(answer: asyncio.Future[str]) -> str:
    """What an activity handle of the SDK does when the activity completes although it was cancelled."""
    while True:
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            continue


async def cancelled_while_it_answers(work: Coroutine[Any, Any, Any], answer: asyncio.Future[str]) -> asyncio.Task[Any]:
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    answer.set_result("done")
    await asyncio.wait({task}, timeout=5)
    return task


async def test_a_cancel_that_is_swallowed_stops_the_work_all_the_same() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    went_on = []

    async def work() -> None:
        went_on.append(await asyncio.create_task(swallowing(answer)))

    task = await cancelled_while_it_answers(obeying(work()), answer)
    assert task.cancelled()
    assert went_on == []


async def test_without_it_the_cancel_is_lost() -> None:
    """Why the module exists; when this fails, asyncio or the pattern has changed and the module can go."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        return await asyncio.create_task(swallowing(answer))

    task = await cancelled_while_it_answers(work(), answer)
    assert task.result() == "done"


async def test_a_clean_up_may_await_in_peace() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.create_task(swallowing(answer))
        finally:
            for step in range(3):
                await asyncio.sleep(0)
                cleaned.append(step)

    task = await cancelled_while_it_answers(obeying(work()), answer)
    assert task.cancelled()
    assert cleaned == [0, 1, 2]


async def test_a_timeout_inside_neither_stops_the_work_nor_hides_a_later_cancel() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    passed = []

    async def work() -> None:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(60)
            passed.append("timeout")
        await asyncio.create_task(swallowing(answer))
        passed.append("went on")

    task = asyncio.create_task(obeying(work()))
    async with asyncio.timeout(5):
        while len(passed) < 2:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    task.cancel()
    answer.set_result("done")
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert passed == ["timeout", "timeout"]


async def test_results_and_faults_pass_through() -> None:
    async def gives() -> str:
        await asyncio.sleep(0)
        return "result"

    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    assert await obeying(gives()) == "result"
    with pytest.raises(LookupError, match="gone"):
        await obeying(fails())


async def test_work_that_nobody_awaits_any_more_is_closed_quietly() -> None:
    """A worker that shuts down drops its workflows; what was collected first must not matter."""
    cleaned: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("cleaned")

    for work_first in (False, True):
        work = waits()
        driven = obeying(work)
        driven.send(None)
        if work_first:
            work.close()
        driven.close()
    assert cleaned == ["cleaned", "cleaned"]
