"""Sends notifications: signed webhooks, Slack's incoming webhooks, email. Implements hotswap.ports.notifications.Channels.

Only hosts of the settings are ever called, redirects are not followed, answers are bounded. No fault and no log line tells a
Slack URL, a signing key or a password. Neighbour: hotswap.adapters.smtp_mail speaks SMTP.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Mapping

import httpx
from pydantic_core import to_json

from hotswap.adapters.smtp_mail import mail_of, send_mail
from hotswap.config_trail import NotificationSettings
from hotswap.domain.base import bounded
from hotswap.domain.errors import NotificationFault
from hotswap.domain.metrics import origin_of
from hotswap.domain.notification_rules import EmailTarget, Message, SlackTarget, Target, WebhookTarget

SIGNATURE, TIMESTAMP = "X-HotSwap-Signature", "X-HotSwap-Timestamp"

MOST_ANSWER_BYTES = 16_384
"""Read of an answer; a receiver that says more is cut off, its status counts."""

ANSWER_KEPT = 200
"""Characters of a refusal kept in the log of deliveries."""

LONGEST_SLACK = 3_000
"""Characters: Slack's own limit of one text block."""

LONGEST_RETRY_AFTER = 3600.0

_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""409: a receiver that still works on the first attempt with this Idempotency-Key."""


class NotificationChannels:
    """`close` when done. `clock` in seconds since 1970."""

    def __init__(self, settings: NotificationSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._timeout = settings.timeout.total_seconds()
        self._slack = {one.name: one.url.get_secret_value() for one in settings.slack}
        self._filter = _NoSecretUrls(self._slack.values())
        logging.getLogger("httpx").addFilter(self._filter)  # its INFO lines tell the whole URL
        self._http = httpx.AsyncClient(
            timeout=self._timeout,
            trust_env=False,  # no proxy from the environment: it could lead anywhere
            follow_redirects=False,
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=5),
        )

    async def close(self) -> None:
        logging.getLogger("httpx").removeFilter(self._filter)
        await self._http.aclose()

    async def send(self, target: Target, message: Message) -> None:
        if fault := self._settings.fault_of(target):
            raise NotificationFault(f"{fault.field}: {fault.message}", transient=False)
        match target:
            case WebhookTarget():
                await self._webhook(target, message)
            case SlackTarget():
                content = to_json({"text": slack_text(message)})
                where = f"Slack channel '{target.channel}'"
                await self._post(self._slack[target.channel], content, {}, where)
            case EmailTarget():
                mail = mail_of(message, self._settings.email_from, target.to)
                await asyncio.to_thread(send_mail, self._settings, mail)

    async def _webhook(self, target: WebhookTarget, message: Message) -> None:
        key = self._settings.signing_key(target)
        assert key is not None  # send has asked fault_of
        body = to_json(
            {
                "deliveryId": message.delivery_id,
                "eventId": message.event_id,
                "event": message.kind,
                "happenedAt": message.happened_at,
                "subject": message.subject,
                "text": message.body,
                "fields": message.fields,
            }
        )
        headers = {
            "Idempotency-Key": message.delivery_id,
            "X-HotSwap-Event": message.kind,
            **signed(body, key.get_secret_value(), int(self._clock())),
        }
        await self._post(target.url, body, headers, str(origin_of(target.url)))

    async def _post(self, url: str, content: bytes, headers: Mapping[str, str], where: str) -> None:
        """`where` names the receiver in faults: a URL may be a secret."""
        sent = {"Content-Type": "application/json", "User-Agent": "HotSwap", **headers}
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream("POST", url, content=content, headers=sent) as answer,
            ):
                said = await _beginning(answer)
        except (httpx.TimeoutException, TimeoutError):
            raise NotificationFault(f"{where} did not answer within {self._timeout:g} s", transient=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            # Without its text and without `from`: both may hold the URL.
            raise NotificationFault(f"{where} cannot be reached ({type(fault).__name__})", transient=True) from None
        if answer.is_success:
            return
        if answer.is_redirect:
            why = f"{where} answered with a redirect ({answer.status_code}), which is not followed"
            raise NotificationFault(why, transient=False)
        raise NotificationFault(
            f"{where} answered {answer.status_code}: {said}".rstrip(": "),
            transient=answer.status_code in _TRANSIENT,
            retry_after=_retry_after(answer.headers.get("retry-after", "")),
        )


class _NoSecretUrls(logging.Filter):
    """Drops records that would tell a URL which is a secret."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(secret in record.getMessage() for secret in self._secrets)


def signed(body: bytes, key: str, timestamp: int) -> dict[str, str]:
    """HMAC-SHA256 over `timestamp.body`: who holds the key knows that we sent it, and when (a replay is old)."""
    mac = hmac.new(key.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {TIMESTAMP: str(timestamp), SIGNATURE: f"sha256={mac}"}


def slack_text(message: Message) -> str:
    """What came from outside cannot mention a channel or make a link: Slack reads only < > & specially."""
    text = f"*{message.subject}*\n{message.body}"
    for char, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, escape)
    return bounded(text, LONGEST_SLACK)


async def _beginning(answer: httpx.Response) -> str:
    """Of its body, one printable line; the rest is not read."""
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk[:MOST_ANSWER_BYTES]
        if len(body) >= MOST_ANSWER_BYTES:
            break
    text = bytes(body[: 4 * ANSWER_KEPT]).decode("utf-8", "replace")
    return bounded("".join(char if char.isprintable() else " " for char in text).strip(), ANSWER_KEPT)


def _retry_after(header: str) -> float:
    """Seconds, when the receiver says a number of them."""
    return min(float(header), LONGEST_RETRY_AFTER) if header.isascii() and header.isdigit() else 0.0
