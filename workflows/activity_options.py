"""Every timeout and retry of the control plane, each with its reason. Times: design section 10 (measured), SDK defaults else."""

from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType


class Options(TypedDict, total=False):
    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: ActivityCancellationType


def _retry(maximum_interval: float, attempts: int = 0) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=maximum_interval),
        maximum_attempts=attempts,
    )


# PostgreSQL away for minutes must not end a rollout: keep trying, at most 5 s late when it is back.
# 5 s a try, the pool's connect timeout: also how long a worker killed in the middle of one can stall the next step.
DATABASE = Options(start_to_close_timeout=timedelta(seconds=5), retry_policy=_retry(5))

# As DATABASE, and what thousands of tenants configured may have to be judged by a stricter schema (0.3 s for each 500).
PLAN = Options(
    start_to_close_timeout=timedelta(minutes=2), heartbeat_timeout=timedelta(seconds=5), retry_policy=_retry(5)
)

# 100 MB from a slow store takes a while: beats say that the worker lives meanwhile.
VERIFY = Options(
    start_to_close_timeout=timedelta(minutes=2), heartbeat_timeout=timedelta(seconds=5), retry_policy=_retry(10)
)

# Judging is worth less with every second: a try is short, and after 20 s the tick counts as inconclusive instead.
JUDGE = Options(
    start_to_close_timeout=timedelta(seconds=5),
    schedule_to_close_timeout=timedelta(seconds=20),
    retry_policy=_retry(2),
)

# Own metrics ask somebody else's server, which gets its own timeout (settings: at most 10 s) beside the figures' 2 s.
JUDGE_OWN_METRICS = Options(
    start_to_close_timeout=timedelta(seconds=15),
    schedule_to_close_timeout=timedelta(seconds=40),
    retry_policy=_retry(2),
)

# The end of a rollback window holds the place of a deployment: PostgreSQL away for longer, it gives the place back.
CLOSE_WINDOW = Options(
    start_to_close_timeout=timedelta(seconds=5),
    schedule_to_close_timeout=timedelta(minutes=1),
    retry_policy=_retry(5),
)

# An attempt may take two timeouts of the settings (20 s each at most). Nobody waits: pauses grow from 1 s to half an hour, so
# that a receiver which is down for a night is told in the morning; after a day the news is old.
DELIVER = Options(
    start_to_close_timeout=timedelta(minutes=1),
    schedule_to_close_timeout=timedelta(days=1),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1), backoff_coefficient=2.0, maximum_interval=timedelta(minutes=30)
    ),
)

# A comparison of 1,000 plugins takes seconds; one that cannot be had in 2 minutes is left out, the next comes anyway.
DRIFT = Options(
    start_to_close_timeout=timedelta(seconds=30),
    schedule_to_close_timeout=timedelta(minutes=2),
    retry_policy=_retry(5),
)

# A hundred removals at a store's pace; an outage of hours is waited for, then the next day's sweep comes anyway.
RETENTION = Options(
    start_to_close_timeout=timedelta(minutes=10),
    schedule_to_close_timeout=timedelta(hours=6),
    heartbeat_timeout=timedelta(seconds=5),
    retry_policy=_retry(60),
)

# For one node to make itself right: it may have to fetch and load versions, as when staging.
NODE_REPAIR = timedelta(minutes=2)

# A dead worker must not cost the whole trial timeout: its heart is heard every second, 5 s of silence is death
# (three missed beats on a busy machine are not). Cancelling waits, so that no sandbox outlives the deployment's end.
TRIAL_HEARTBEAT = timedelta(seconds=5)
TRIAL_MARGIN = timedelta(seconds=30)  # fetching and unpacking, beside the trial itself

# A hung node is noticed in 3 s; WAIT_CANCELLATION_COMPLETED: never undo while a node is still doing.
NODE_START = timedelta(seconds=2)  # nobody took the order: the node is dead, or Temporal was away (its beat decides)
NODE_HEARTBEAT = timedelta(seconds=3)
NODE_SWITCH = timedelta(seconds=15)  # swap one reference; may have to load a host that died
NODE_ATTEMPTS = 4  # transient trouble on a node (its store away); then the node counts as failed

# A node that has told of itself this recently is alive, whatever a queue says: its beat is 1 s.
NODE_FRESH = timedelta(seconds=4)
NODE_REGISTERED = timedelta(seconds=15)  # told within: belongs to the wave. Longer gone = not part of the environment
REDISPATCH_LIMIT = 10  # times a live node's missed order is sent again (Temporal itself was away)

# As a trial, but the first call on a worker may have to fetch and unpack 100 MB, and a result waits for PostgreSQL a while.
SANDBOX_MARGIN = timedelta(minutes=3)


def trial(timeout: timedelta) -> Options:
    return Options(
        start_to_close_timeout=timeout + TRIAL_MARGIN,
        heartbeat_timeout=TRIAL_HEARTBEAT,
        retry_policy=_retry(5),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def node_order(timeout: timedelta) -> Options:
    return Options(
        start_to_close_timeout=timeout,
        heartbeat_timeout=NODE_HEARTBEAT,
        retry_policy=_retry(2, NODE_ATTEMPTS),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def sandbox_execution(timeout: timedelta) -> Options:
    """Tried again for ever: the execution's record decides whether it may run again (hotswap.domain.sandbox)."""
    return Options(
        start_to_close_timeout=timeout + SANDBOX_MARGIN,
        heartbeat_timeout=TRIAL_HEARTBEAT,
        retry_policy=_retry(5),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )
