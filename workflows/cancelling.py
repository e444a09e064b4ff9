"""Makes a cancel certain. Neighbours: workflows.deployment runs a rollout's way forward under it.

Cancelling a task that awaits an activity only asks: the SDK catches the cancel, asks the server in its turn, and when the
activity completes all the same (its answer came in the same workflow task, or it waits for its own end) hands out the
result as if nobody had cancelled. Measured: 11 of 20 aborts within half a second of a start were lost that way.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

from temporalio import workflow

R = TypeVar("R")


async def obeying(work: Coroutine[Any, Any, R]) -> R:
    """Await `work`; once the task that awaits is cancelled, `work` gets a CancelledError at its present await, at the
    latest when that await ends in any other way. It gets one for each cancel, so that it can clean up in peace."""
    return await _driven(work)


async def to_its_end(task: asyncio.Task[None]) -> bool:
    """Wait until the task is over, also when a cancel comes meanwhile; whether one came. Raises what the task raised."""
    cancelled = False
    while not task.done():
        try:
            await workflow.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    return cancelled


@types.coroutine
def _driven(work: Coroutine[Any, Any, R]) -> Generator[Any, Any, R]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a cancel can only be obeyed inside a task")
    told = False
    resume = partial(work.send, None)
    try:
        while True:
            try:
                awaited = resume()
            except StopIteration as done:
                result: R = done.value
                return result
            if not task.cancelling():  # also when a timeout's own cancel is over (asyncio.timeout, wait_for)
                told = False
            try:
                answer = yield awaited
            except GeneratorExit:
                raise  # nobody will ever await this again (a worker that shuts down): the work is closed below
            except BaseException as fault:  # noqa: BLE001 - whatever it is, it is the work's
                told = told or isinstance(fault, asyncio.CancelledError)
                resume = partial(work.throw, fault)
            else:
                swallowed = task.cancelling() > 0 and not told
                told = told or swallowed
                resume = partial(work.throw, asyncio.CancelledError()) if swallowed else partial(work.send, answer)
    finally:
        work.close()
