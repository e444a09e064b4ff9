"""Shapes that several routes share: the envelope of a list, a bounded list of tags, the body of a command."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BeforeValidator, Field, Strict, StringConstraints

from hotswap.domain.base import Model
from hotswap.domain.registry import Page

T = TypeVar("T")

Tag = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[^,\x00-\x1f]+$")]
"""No comma: the filter `tags=a,b` separates by it."""

Line = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""Text without NUL, which PostgreSQL cannot keep."""


def _iso(value: Any) -> Any:
    if isinstance(value, timedelta) or (isinstance(value, str) and value.startswith("P")):
        return value
    raise ValueError("must be an ISO 8601 duration such as PT1H")


IsoDuration = Annotated[timedelta, BeforeValidator(_iso)]
"""A duration as text; never a bare number, whose unit nobody could tell."""


Flag = Annotated[bool, Strict()]
"""true or false in a body: not 0, not "no"."""


class ListOf(Model, Generic[T]):
    """A slice of a list. `nextOffset` is null at its end."""

    items: tuple[T, ...]
    total: int
    limit: int
    offset: int
    has_more: bool
    next_offset: int | None

    @classmethod
    def of(cls, items: Sequence[T], total: int, page: Page) -> Self:
        end = page.offset + len(items)
        more = bool(items) and end < total
        return cls(
            items=tuple(items),
            total=total,
            limit=page.limit,
            offset=page.offset,
            has_more=more,
            next_offset=end if more else None,
        )


class CommandIn(Model):
    """Body of a command to a deployment; reject, abort and rollback need the reason."""

    reason: Line = Field(default="", max_length=2000)


class ApproveIn(CommandIn):
    """`planHash` binds the approval to the plan that was read: another plan voids it."""

    plan_hash: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
