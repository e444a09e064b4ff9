"""Keeps the schedule of retention: every worker that starts makes it, or makes it what the settings say."""

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.retention import SweepOrder
from hotswap.domain.ids import RETENTION_SCHEDULE
from workflows.retention import RetentionSweep


async def keep_retention(
    client: Client,
    task_queue: str,
    interval: timedelta,
    archived_for: timedelta,
    schedule_id: str = RETENTION_SCHEDULE,
) -> None:
    """Sweep every `interval`; zero takes the schedule away. Raises RPCError when Temporal does not answer."""
    handle = client.get_schedule_handle(schedule_id)
    if not interval:
        try:
            await handle.delete()
        except RPCError as fault:
            if fault.status != RPCStatusCode.NOT_FOUND:
                raise
        return
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            RetentionSweep.run,
            SweepOrder(archived_for=archived_for),
            id=schedule_id,
            task_queue=task_queue,
            static_summary="retention: artifacts that nothing needs",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )
    try:
        await client.create_schedule(schedule_id, schedule)
    except ScheduleAlreadyRunningError:
        await handle.update(lambda _: ScheduleUpdate(schedule=schedule))
