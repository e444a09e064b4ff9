"""Notification rules over HTTP: set, read, delete, test; what is refused by name; the log; what announces."""

from typing import Any

import pytest
from pydantic import SecretStr

from api.services.notifications import NotificationService
from hotswap.config_trail import NotificationSettings, SlackChannel, WebhookSecret
from hotswap.domain.notices import NoticeKind
from tests.http.site import API, Site, error_of, fields_of

RULES = f"{API}/notifications/rules"
HOOK = {"kind": "webhook", "url": "http://hooks.test:8443/in", "secret": "hooks"}
SETTINGS = NotificationSettings(
    allowed_hosts=("hooks.test:8443", "other.test"),
    secrets=(WebhookSecret(name="hooks", host="hooks.test:8443", signing_key=SecretStr("s" * 16)),),
    slack=(SlackChannel(name="releases", url=SecretStr("http://slack.test/T0/secret")),),
    smtp_host="mail.test",
)


@pytest.fixture(autouse=True)
def _configured(site: Site) -> None:
    site.container.notifications = NotificationService(site.records.unit_of_work, SETTINGS)


async def put(site: Site, rule_id: str = "hook", **changes: Any) -> Any:
    return await site.admin.put(f"{RULES}/{rule_id}", json={"target": HOOK, **changes})


async def announced(site: Site) -> list[NoticeKind]:
    async with site.records.unit_of_work() as uow:
        return [notice.kind for notice in await uow.notifications.unrouted(100)]


async def test_a_rule_is_made_replaced_read_and_deleted_and_each_is_audited(site: Site) -> None:
    made = await put(site, events=["deployment.failed"], environments=["Production"], subject="{plugin} failed")
    assert made.status_code == 201, made.text
    assert made.json()["rule"]["ruleId"] == "hook"
    replaced = await put(site, enabled=False)
    assert (replaced.status_code, replaced.json()["rule"]["events"]) == (200, [])
    listed = (await site.admin.get(RULES)).json()
    assert listed["items"] == [replaced.json()] == [(await site.admin.get(f"{RULES}/hook")).json()]
    assert listed["items"][0]["updatedBy"] == "admin"
    for _ in range(2):
        assert (await site.admin.delete(f"{RULES}/hook")).status_code == 204
    error_of(await site.admin.get(f"{RULES}/hook"), 404, "NOT_FOUND")
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": "hook"})).json()["items"]
    assert [item["eventType"] for item in log] == [
        "notification-rule.deleted",
        "notification-rule.set",
        "notification-rule.set",
    ]
    assert log[1]["details"]["before"]["subject"] == "{plugin} failed"
    assert log[1]["details"]["after"]["enabled"] is False


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"target": {**HOOK, "url": "http://169.254.169.254/latest/meta-data"}}, "target.url"),
    ({"target": {**HOOK, "url": "http://hooks.test:8443@evil.test/in"}}, "target.webhook.url"),
    ({"target": {**HOOK, "url": "file:///etc/passwd"}}, "target.webhook.url"),
    ({"target": {**HOOK, "secret": "unknown"}}, "target.secret"),
    ({"target": {**HOOK, "url": "http://other.test/in"}}, "target.secret"),
    ({"target": {"kind": "slack", "channel": "general"}}, "target.channel"),
    ({"target": {"kind": "email", "to": ["a@b.test\r\nBcc: c@d.test"]}}, "target.email.to.0"),
    ({"target": {"kind": "email", "to": []}}, "target.email.to"),
    ({"target": {"kind": "pager"}}, "target"),
    ({"subject": "{secret}"}, "subject"),
    ({"body": "{plugin.__class__} {0} {env}"}, "body"),
    ({"subject": "x" * 201}, "subject"),
    ({"events": ["deployment.exploded"]}, "events.0"),
    ({"environments": ["Mars"]}, "environments.0"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG)
async def test_a_wrong_rule_is_refused_by_field_and_leaves_nothing(
    site: Site, changes: dict[str, Any], field: str
) -> None:
    assert field in fields_of(error_of(await put(site, **changes), 400, "VALIDATION_ERROR"))
    assert (await site.admin.get(RULES)).json()["total"] == 0


async def test_no_answer_holds_a_secret(site: Site) -> None:
    await put(site)
    await put(site, "slack", target={"kind": "slack", "channel": "releases"})
    refused = await put(site, "other", target={**HOOK, "secret": "nope"})
    told = (await site.admin.get(RULES)).text + refused.text
    assert "ssss" not in told
    assert "T0/secret" not in told


async def test_a_test_is_announced_to_its_rule_alone(site: Site) -> None:
    await put(site, events=["deployment.failed"], enabled=False)
    told = await site.admin.post(f"{RULES}/hook/test")
    assert told.status_code == 202, told.text
    async with site.records.unit_of_work() as uow:
        (notice,) = await uow.notifications.unrouted(10)
    assert (notice.kind, notice.only_rule, notice.event_id) == (NoticeKind.TEST, "hook", told.json()["eventId"])
    error_of(await site.admin.post(f"{RULES}/ghost/test"), 404, "NOT_FOUND")
    assert (await site.admin.get(f"{API}/notifications/deliveries")).json()["total"] == 0


async def test_freezes_are_announced_once(site: Site) -> None:
    body = {"window": {"kind": "once", "starts": "2026-01-01T00:00:00Z"}, "reason": "quarter close"}
    made = await site.admin.post(f"{API}/freezes", json=body)
    path = f"{API}/freezes/{made.json()['freezeId']}"
    for _ in range(2):
        assert (await site.admin.delete(path)).status_code == 204
    await site.admin.post(f"{API}/freezes/stop", json={"reason": "incident 7"})
    await site.admin.post(f"{API}/freezes/stop", json={"reason": "incident 7"})
    assert await announced(site) == [NoticeKind.FREEZE_MADE, NoticeKind.FREEZE_LIFTED, NoticeKind.FREEZE_MADE]


async def test_a_deprecation_is_announced_with_it(site: Site) -> None:
    await site.ship()
    await site.approve()
    versions = f"{API}/plugins/greeter/versions"
    done = await site.admin.post(f"{versions}/1.0.0/deprecate", json={"reason": "use 2"})
    assert done.status_code == 200, done.text
    async with site.records.unit_of_work() as uow:
        (told,) = await uow.notifications.unrouted(10)
    assert (told.kind, told.plugin) == (NoticeKind.VERSION_DEPRECATED, "greeter")
    assert (told.fields["version"], told.fields["by"], told.fields["reason"]) == ("1.0.0", "admin", "use 2")
