"""Who hears of which notice, by which channel, and in which words: rules, targets, templates. Pure.

A template is text with {fields} and nothing else: no expressions, no attributes, and what a value holds is never read as a
template. Neighbours: hotswap.domain.notices makes notices, hotswap.adapters.notification_channels sends messages.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from hotswap.domain.base import BoundedText, Instant, Model, PluginName, bounded
from hotswap.domain.deployment import Environment
from hotswap.domain.ids import derived_id
from hotswap.domain.metrics import origin_of
from hotswap.domain.notices import Notice, NoticeKind

SLUG = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"

LONGEST_SUBJECT, LONGEST_BODY = 200, 8_000
"""Characters of a rendered message. Fields are at most 500 each, so only a long template is ever cut."""

FIELDS = (
    "event",
    "at",
    "plugin",
    "version",
    "fromVersion",
    "environment",
    "strategy",
    "deployment",
    "pipeline",
    "initiator",
    "by",
    "reason",
    "whatToDo",
    "expiresAt",
    "digest",
    "planHash",
    "tenants",
    "freeze",
    "freezeKind",
)
"""What a template may name; a notice that has no such field renders it as nothing."""

_FIELD = re.compile(r"\{([A-Za-z]+)\}")

Address = Annotated[
    str,
    StringConstraints(
        max_length=254,
        pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*$",
    ),
]
Slug = Annotated[str, StringConstraints(pattern=SLUG)]


class WebhookTarget(Model):
    """POSTs JSON, signed with the secret of that name (settings)."""

    kind: Literal["webhook"] = "webhook"
    url: str = Field(max_length=500)
    secret: Slug

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        if origin_of(url) is None:
            raise ValueError("must be http(s)://host[:port][/path] in lower case, without user, query or fragment")
        return url

    def shown(self) -> str:
        return self.url


class EmailTarget(Model):
    kind: Literal["email"] = "email"
    to: tuple[Address, ...] = Field(min_length=1, max_length=20)

    def shown(self) -> str:
        return ", ".join(self.to)


class SlackTarget(Model):
    """The incoming webhook that the settings know under this name; its URL is a secret."""

    kind: Literal["slack"] = "slack"
    channel: Slug

    def shown(self) -> str:
        return self.channel


Target = Annotated[WebhookTarget | EmailTarget | SlackTarget, Field(discriminator="kind")]


class NotificationRule(Model):
    """Empty `events`, `environments` or `plugins` match all. `subject` and `body` replace the event's default words."""

    rule_id: Slug
    events: tuple[NoticeKind, ...] = ()
    environments: tuple[Environment, ...] = ()
    plugins: tuple[PluginName, ...] = Field(default=(), max_length=100)
    target: Target
    subject: str = Field(default="", max_length=LONGEST_SUBJECT)
    body: str = Field(default="", max_length=4_000)
    enabled: bool = True

    @field_validator("subject", "body")
    @classmethod
    def _names_known_fields(cls, template: str) -> str:
        if "\0" in template:
            raise ValueError("holds a NUL character; remove it")
        unknown = sorted(set(_FIELD.findall(template)) - set(FIELDS))
        if unknown:
            raise ValueError(f"{{{unknown[0]}}} is not a field; known: {', '.join(FIELDS)}")
        return template

    def matches(self, notice: Notice) -> bool:
        """A notice about every environment (or plugin) concerns each of them. A test goes to its rule alone."""
        if notice.only_rule is not None:
            return notice.only_rule == self.rule_id
        return (
            self.enabled
            and (not self.events or notice.kind in self.events)
            and (not self.environments or notice.environment is None or notice.environment in self.environments)
            and (not self.plugins or notice.plugin is None or notice.plugin in self.plugins)
        )


class StoredRule(Model):
    rule: NotificationRule
    updated_by: str
    updated_at: Instant


class DeliveryStatus(StrEnum):
    PENDING = "Pending"
    DELIVERED = "Delivered"
    FAILED = "Failed"


class Delivery(Model):
    """One notice on its way to one rule's target. `target` never holds a secret."""

    delivery_id: str
    event_id: str
    rule_id: str
    kind: NoticeKind
    channel: str
    target: str
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0
    last_error: BoundedText = ""
    created_at: Instant
    last_attempt_at: Instant | None = None
    finished_at: Instant | None = None


class Message(Model):
    """What a channel sends. `delivery_id` is the same for every attempt: who has seen it has the message already."""

    delivery_id: str
    event_id: str
    kind: NoticeKind
    happened_at: Instant
    subject: str
    body: str
    fields: dict[str, str]


def delivery_id(event_id: str, rule_id: str) -> str:
    return derived_id("ndl", event_id, rule_id)


def message_of(notice: Notice, rule: NotificationRule) -> Message:
    subject, body = DEFAULTS[notice.kind]
    values = {
        **{name: one_line(value) for name, value in notice.fields.items()},
        "event": notice.kind,
        "at": f"{notice.happened_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    return Message(
        delivery_id=delivery_id(notice.event_id, rule.rule_id),
        event_id=notice.event_id,
        kind=notice.kind,
        happened_at=notice.happened_at,
        subject=bounded(one_line(rendered(rule.subject or subject, values)), LONGEST_SUBJECT),
        body=bounded(rendered(rule.body or body, values).strip(), LONGEST_BODY),
        fields=values,
    )


def rendered(template: str, values: Mapping[str, str]) -> str:
    """Each field replaced once; one that is not there becomes nothing."""
    return _FIELD.sub(lambda match: values.get(match.group(1), ""), template)


def one_line(text: str) -> str:
    """Without line breaks and control characters: nothing outside can end a header or begin a line of its own."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


_DEPLOYED = "{plugin} {version} to {environment} by {strategy}, begun by {initiator} ({deployment})."

DEFAULTS: Mapping[NoticeKind, tuple[str, str]] = {
    NoticeKind.APPROVAL_NEEDED: (
        "Approval needed: {plugin} {version} to {environment}",
        f"{_DEPLOYED}\nIt waits for {{reason}}.\nArtifact {{digest}}, plan {{planHash}}. It expires {{expiresAt}}.\n"
        "Approve: hotswap approvals approve {deployment}",
    ),
    NoticeKind.APPROVAL_EXPIRED: (
        "Approval expired: {plugin} {version} to {environment}",
        f"{_DEPLOYED}\n{{reason}}. Nothing was changed.\nWhat to do: {{whatToDo}}",
    ),
    NoticeKind.DEPLOYMENT_STARTED: (
        "Started: {plugin} {version} to {environment}",
        f"{_DEPLOYED}\nReason: {{reason}}",
    ),
    NoticeKind.DEPLOYMENT_COMPLETED: (
        "Completed: {plugin} {version} serves {environment}",
        f"{_DEPLOYED}\nBefore it served {{fromVersion}}.",
    ),
    NoticeKind.DEPLOYMENT_ROLLED_BACK: (
        "Rolled back: {plugin} {version} in {environment}",
        f"{_DEPLOYED}\nWhy: {{reason}}\n{{fromVersion}} serves.\nWhat to do: {{whatToDo}}",
    ),
    NoticeKind.DEPLOYMENT_ABORTED: (
        "Aborted: {plugin} {version} to {environment}",
        f"{_DEPLOYED}\n{{reason}}",
    ),
    NoticeKind.DEPLOYMENT_REJECTED: (
        "Rejected: {plugin} {version} to {environment}",
        f"{_DEPLOYED}\n{{reason}}",
    ),
    NoticeKind.DEPLOYMENT_FAILED: (
        "A person is needed: {plugin} {version} in {environment} failed",
        f"{_DEPLOYED}\nWhy: {{reason}}\nWhat to do: {{whatToDo}}",
    ),
    NoticeKind.DEPLOYMENT_PAUSED: (
        "Paused for a person: {plugin} {version} in {environment}",
        f"{_DEPLOYED}\nIt waits for {{reason}}.\nThen: hotswap resume, promote or abort {{deployment}}",
    ),
    NoticeKind.VERSION_DEPRECATED: (
        "Deprecated: {plugin} {version}",
        "{by} deprecated {plugin} {version}: {reason}\nIt serves in {environment}. Tenants on it: {tenants}",
    ),
    NoticeKind.FREEZE_MADE: (
        "Freeze ({freezeKind}): {environment}, {plugin}",
        "{by} froze {environment} for {plugin}: {reason} ({freeze})",
    ),
    NoticeKind.FREEZE_LIFTED: (
        "Freeze lifted: {environment}, {plugin}",
        "{by} lifted the freeze {freeze} of {environment} for {plugin}. {reason}",
    ),
    NoticeKind.MONITOR_WENT_BACK: (
        "Went back by itself: {plugin} {version} in {environment}",
        "The health monitor takes {plugin} {version} out of {environment}; {fromVersion} serves again ({deployment}).\n"
        "Why: {reason}\n{version} is held there until somebody overrides it.",
    ),
    NoticeKind.TEST: ("HotSwap test", "{by} tests this rule at {at}. Nothing happened."),
}
"""Subject and body of each event."""
