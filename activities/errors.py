"""The one place that decides what Temporal may retry: turns the domain's error tree into ApplicationErrors.

Neighbours: every activity wears `@translated`; workflows read the type back with `failure_of`.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from typing import ParamSpec, TypeVar

from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, TimeoutType

from hotswap.domain.base import Model, bounded
from hotswap.domain.errors import HostFailed, HotSwapError, NotificationFault, Unavailable

P = ParamSpec("P")
R = TypeVar("R")

RETRYABLE: tuple[type[HotSwapError], ...] = (Unavailable,)
"""A repeat can help only when a server was away (a NotificationFault says so itself). Every other domain error is a fact that
a repeat finds again."""


def as_application_error(error: HotSwapError) -> ApplicationError:
    """The error as Temporal keeps it: type = class name, bounded message, the limit that was hit as a detail."""
    details = (error.limit,) if isinstance(error, HostFailed) else ()
    retry = error.transient if isinstance(error, NotificationFault) else isinstance(error, RETRYABLE)
    pause = timedelta(seconds=error.retry_after) if isinstance(error, NotificationFault) and error.retry_after else None
    return ApplicationError(
        bounded(error.message),
        *details,
        type=type(error).__name__,
        non_retryable=not retry,
        next_retry_delay=pause,
    )


def translated(activity: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Wear under @activity.defn: domain errors leave as ApplicationErrors, anything else (a bug) as it is, retried."""

    @wraps(activity)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await activity(*args, **kwargs)
        except HotSwapError as error:
            raise as_application_error(error) from error

    return wrapper


class ActivityFailure(Model):
    """What a failed activity means to a workflow."""

    type: str
    message: str
    never_started: bool = False


def failure_of(error: ActivityError) -> ActivityFailure:
    """Read the cause of a failed activity. `never_started`: nobody polled its queue in time (a dead node)."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return ActivityFailure(type=cause.type or "Error", message=bounded(cause.message))
    if isinstance(cause, TimeoutError):
        never = cause.type == TimeoutType.SCHEDULE_TO_START
        return ActivityFailure(type="Timeout", message=f"timed out ({_timeout_name(cause)})", never_started=never)
    return ActivityFailure(type=type(cause).__name__, message=bounded(str(cause)))


def _timeout_name(cause: TimeoutError) -> str:
    return cause.type.name.lower().replace("_", " ") if cause.type is not None else "unknown"
