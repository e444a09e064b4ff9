"""Shapes of /notifications: a rule as it is sent, the log of deliveries."""

from pydantic import Field

from api.schemas.common import Flag
from hotswap.domain.base import Model, PluginName
from hotswap.domain.deployment import Environment
from hotswap.domain.notices import NoticeKind
from hotswap.domain.notification_rules import (
    LONGEST_SUBJECT,
    SLUG,
    DeliveryStatus,
    NotificationRule,
    Target,
)
from hotswap.domain.registry import Page


class RuleIn(Model):
    """Body of PUT /notifications/rules/{ruleId}. Empty lists match everything; empty templates take the event's default."""

    events: tuple[NoticeKind, ...] = Field(default=(), max_length=len(NoticeKind))
    environments: tuple[Environment, ...] = Field(default=(), max_length=len(Environment))
    plugins: tuple[PluginName, ...] = Field(default=(), max_length=100)
    target: Target
    subject: str = Field(default="", max_length=LONGEST_SUBJECT, description="with {fields}; docs/notifications.md")
    body: str = Field(default="", max_length=4_000)
    enabled: Flag = True

    def rule(self, rule_id: str) -> NotificationRule:
        return NotificationRule(rule_id=rule_id, **dict(self))


class DeliveryQuery(Page):
    """Query of GET /notifications/deliveries."""

    rule_id: str | None = Field(default=None, pattern=SLUG)
    event: NoticeKind | None = None
    status: DeliveryStatus | None = None


class TestOut(Model):
    """A test was announced; its delivery shows under this id within a second or two."""

    delivery_id: str
    event_id: str
