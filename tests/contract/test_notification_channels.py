"""The channels against real servers: who is called, what is signed, what a repeat may do, what hostile text cannot."""

import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from hotswap.adapters.notification_channels import NotificationChannels
from hotswap.config_trail import NotificationSettings, SlackChannel, WebhookSecret
from hotswap.domain.errors import NotificationFault
from hotswap.domain.notices import NoticeKind, notice
from hotswap.domain.notification_rules import (
    EmailTarget,
    Message,
    NotificationRule,
    SlackTarget,
    Target,
    WebhookTarget,
    message_of,
)
from tests.contract.metrics_server import MetricsServer, Reply
from tests.contract.smtp_sink import CERTIFICATE, SmtpSink, smtp_sink

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = "a-signing-key-of-the-platform"
HOSTILE = 'x\r\nBcc: victim@example.com\r\n\r\n<script>alert("1")</script> <!channel> {whatToDo} {0.__class__}'


def make_message(target: Target | None = None, reason: str = "p99 doubled", **templates: str) -> Message:
    told = notice(
        NoticeKind.DEPLOYMENT_FAILED, "dep_1:7", AT, {"plugin": "greeter", "version": "2.0.0", "reason": reason}
    )
    return message_of(told, NotificationRule(rule_id="r", target=target or EmailTarget(to=("a@b.test",)), **templates))


@pytest.fixture
def receiver() -> Iterator[MetricsServer]:
    with MetricsServer().serving() as server:
        server.answer = lambda request: Reply()
        yield server


@pytest.fixture
async def channels(receiver: MetricsServer) -> AsyncIterator[NotificationChannels]:
    settings = NotificationSettings(
        allowed_hosts=(receiver.host,),
        secrets=(WebhookSecret(name="hooks", host=receiver.host, signing_key=SecretStr(KEY)),),
        slack=(SlackChannel(name="releases", url=SecretStr(f"{receiver.url}/services/T0/slack-secret")),),
        timeout=timedelta(seconds=5),
    )
    made = NotificationChannels(settings, clock=lambda: 1767268800)
    yield made
    await made.close()


def hook(receiver: MetricsServer) -> WebhookTarget:
    return WebhookTarget(url=f"{receiver.url}/in", secret="hooks")


async def test_a_webhook_is_signed_over_its_timestamp_and_body(
    receiver: MetricsServer, channels: NotificationChannels
) -> None:
    message = make_message()
    await channels.send(hook(receiver), message)
    await channels.send(hook(receiver), message)
    first, second = receiver.requests
    assert first.path == "/in"
    expected = hmac.new(KEY.encode(), b"1767268800." + first.body, hashlib.sha256).hexdigest()
    assert first.headers["x-hotswap-signature"] == f"sha256={expected}"
    assert first.headers["x-hotswap-timestamp"] == "1767268800"
    assert first.headers["x-hotswap-event"] == "deployment.failed"
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == message.delivery_id
    document = json.loads(first.body)
    assert document["subject"] == "A person is needed: greeter 2.0.0 in failed"
    assert document["fields"]["reason"] == "p99 doubled"
    assert (document["eventId"], document["deliveryId"]) == (message.event_id, message.delivery_id)


@pytest.mark.parametrize(
    ("status", "transient"),
    [
        (500, True),
        (503, True),
        (429, True),
        (408, True),
        (409, True),
        (400, False),
        (401, False),
        (404, False),
        (410, False),
    ],
)
async def test_what_a_repeat_can_help(
    receiver: MetricsServer, channels: NotificationChannels, status: int, transient: bool
) -> None:
    receiver.answer = lambda request: Reply(status, b"no\r\nway " + b"x" * 10_000, {"Retry-After": "7"})
    with pytest.raises(NotificationFault, match=f"answered {status}: no  way") as caught:
        await channels.send(hook(receiver), make_message())
    assert (caught.value.transient, caught.value.retry_after) == (transient, 7.0)
    assert len(caught.value.message) < 300


async def test_a_redirect_is_not_followed(receiver: MetricsServer, channels: NotificationChannels) -> None:
    receiver.answer = lambda request: Reply(307, b"", {"Location": f"{receiver.url}/elsewhere"})
    with pytest.raises(NotificationFault, match="redirect") as caught:
        await channels.send(hook(receiver), make_message())
    assert not caught.value.transient
    assert [request.path for request in receiver.requests] == ["/in"]


async def test_an_endless_answer_is_cut_off(receiver: MetricsServer, channels: NotificationChannels) -> None:
    receiver.answer = lambda request: Reply(200, b"x" * 5_000_000)
    await channels.send(hook(receiver), make_message())


async def test_nobody_is_called_who_is_not_allowed(receiver: MetricsServer, channels: NotificationChannels) -> None:
    other = receiver.url.replace("127.0.0.1", "localhost")
    for target, words in (
        (WebhookTarget(url=f"{other}/in", secret="hooks"), "allow-list"),
        (WebhookTarget(url=f"{receiver.url}/in", secret="other"), "no secret"),
        (SlackTarget(channel="general"), "no Slack channel"),
        (EmailTarget(to=("a@b.test",)), "no mail server"),
    ):
        with pytest.raises(NotificationFault, match=words) as caught:
            await channels.send(target, make_message())
        assert not caught.value.transient
    assert receiver.requests == []


async def test_slack_gets_text_that_mentions_nobody_and_its_url_is_told_nobody(
    receiver: MetricsServer, channels: NotificationChannels, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await channels.send(SlackTarget(channel="releases"), make_message(reason=HOSTILE))
    (request,) = receiver.requests
    assert request.path == "/services/T0/slack-secret"
    text = json.loads(request.body)["text"]
    assert "&lt;!channel&gt;" in text
    assert "<" not in text
    receiver.answer = lambda request: Reply(500, b"oops")
    with pytest.raises(NotificationFault) as caught:
        await channels.send(SlackTarget(channel="releases"), make_message())
    assert "Slack channel 'releases' answered 500" in caught.value.message
    assert "slack-secret" not in caught.value.message
    assert "slack-secret" not in caplog.text


async def test_a_receiver_that_is_down_is_transient_and_its_secret_url_unsaid() -> None:
    url = SecretStr("http://127.0.0.1:1/slack-secret")
    channels = NotificationChannels(NotificationSettings(slack=(SlackChannel(name="releases", url=url),)))
    with pytest.raises(NotificationFault) as caught:
        await channels.send(SlackTarget(channel="releases"), make_message())
    await channels.close()
    assert caught.value.transient
    assert "secret" not in caught.value.message


def mail_settings(sink: SmtpSink, **more: Any) -> NotificationSettings:
    given = {"smtp_host": "localhost", "smtp_port": sink.port, "smtp_tls": sink.tls, "smtp_ca_file": CERTIFICATE}
    return NotificationSettings(
        **(given | {"email_from": "hotswap@example.com", "timeout": timedelta(seconds=10)} | more)
    )


async def mailed(sink: SmtpSink, *to: str, message: Message | None = None, **more: Any) -> None:
    channels = NotificationChannels(mail_settings(sink, **more))
    try:
        await channels.send(EmailTarget(to=to or ("oncall@example.com",)), message or make_message())
    finally:
        await channels.close()


@pytest.mark.parametrize("tls", ["starttls", "implicit", "none"])
async def test_an_email_arrives_by_the_transport_of_the_settings(tls: Any) -> None:
    with smtp_sink(tls) as sink:
        login = {"smtp_user": "hotswap", "smtp_password": SecretStr("pw")} if tls != "none" else {}
        message = make_message()
        await mailed(sink, "oncall@example.com", "boss@example.com", message=message, **login)
        await mailed(sink, message=message, **login)
    first, second = sink.mails
    assert first.encrypted == (tls != "none")
    assert bool(first.user) == (tls != "none")
    assert first.recipients == ["oncall@example.com", "boss@example.com"]
    mail = first.message
    assert mail["Subject"] == "A person is needed: greeter 2.0.0 in failed"
    assert mail["From"] == "hotswap@example.com"
    assert mail["Message-ID"] == second.message["Message-ID"] == f"<{message.delivery_id}@hotswap>"
    plain = mail.get_body(("plain",))
    assert plain is not None
    assert "Why: p99 doubled" in plain.get_content()


async def test_hostile_text_adds_no_header_and_no_markup() -> None:
    with smtp_sink() as sink:
        message = make_message(reason=HOSTILE, subject="{reason}", body="{reason}\n<b>{plugin}</b>")
        await mailed(sink, message=message)
    (taken,) = sink.mails
    mail = taken.message
    assert taken.recipients == ["oncall@example.com"]
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("x Bcc: victim@example.com <script>")
    assert "{whatToDo} {0.__class__}" in mail["Subject"], "what a value holds is no template"
    page, plain = mail.get_body(("html",)), mail.get_body(("plain",))
    assert page is not None
    assert plain is not None
    assert "<script>" not in page.get_content()
    assert "&lt;script&gt;" in page.get_content()
    assert "&lt;b&gt;greeter" in page.get_content()
    assert plain.get_content().count("\n") == 2


async def test_a_mail_server_without_tls_gets_nothing() -> None:
    with smtp_sink("none") as sink:
        with pytest.raises(NotificationFault, match="STARTTLS") as caught:
            await mailed(sink, smtp_tls="starttls", smtp_user="hotswap", smtp_password=SecretStr("pw"))
        assert not caught.value.transient
    assert sink.mails == []


async def test_a_certificate_that_is_not_trusted_gets_nothing() -> None:
    with smtp_sink("starttls") as sink, pytest.raises(NotificationFault, match="cannot be reached"):
        await mailed(sink, smtp_ca_file=None, smtp_user="hotswap", smtp_password=SecretStr("pw"))
    assert sink.mails == []


@pytest.mark.parametrize(
    ("verb", "answer", "transient"),
    [
        ("CONNECT", "421 too busy", True),
        ("DATA", "451 try later", True),
        ("DATA", "554 no", False),
        ("RCPT", "450 greylisted", True),
        ("RCPT", "550 unknown", False),
    ],
)
async def test_what_the_mail_server_says_decides_whether_a_repeat_helps(
    verb: str, answer: str, transient: bool
) -> None:
    with smtp_sink() as sink:
        sink.replies[verb] = answer
        with pytest.raises(NotificationFault) as caught:
            await mailed(sink)
    assert caught.value.transient == transient


async def test_one_recipient_refused_is_told_and_the_others_are_not_mailed_twice() -> None:
    with smtp_sink() as sink:
        sink.replies["RCPT gone@example.com"] = "550 unknown"
        with pytest.raises(NotificationFault, match=r"refuses gone@example\.com; the others got it") as caught:
            await mailed(sink, "oncall@example.com", "gone@example.com")
        assert not caught.value.transient
    assert [mail.recipients for mail in sink.mails] == [["oncall@example.com"]]


def test_a_password_is_never_sent_in_the_clear() -> None:
    with pytest.raises(ValidationError, match="in the clear"):
        NotificationSettings(smtp_host="m", smtp_tls="none", smtp_user="u", smtp_password=SecretStr("p"))
