"""One email: made so that nothing in it can add a header or markup, and sent by SMTP, over TLS unless the settings say none.

Blocking (smtplib): hotswap.adapters.notification_channels calls it in a thread.
"""

import html
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime

from hotswap.config_trail import NotificationSettings
from hotswap.domain.base import bounded
from hotswap.domain.errors import NotificationFault
from hotswap.domain.notification_rules import Message


def mail_of(message: Message, sender: str, to: Sequence[str]) -> EmailMessage:
    """Plain text, and the same as HTML with everything escaped. Its Message-ID is the delivery's: a repeat is the same mail."""
    mail = EmailMessage()
    mail["Subject"] = message.subject
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(message.happened_at)
    mail["Message-ID"] = f"<{message.delivery_id}@hotswap>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday answers
    mail["X-HotSwap-Event"] = message.kind
    mail.set_content(message.body + "\n")
    escaped = html.escape(message.body).replace("\n", "<br>\n")
    title = html.escape(message.subject)
    mail.add_alternative(f"<html><body><h3>{title}</h3><p>{escaped}</p></body></html>\n", subtype="html")
    return mail


def send_mail(settings: NotificationSettings, mail: EmailMessage) -> None:
    """Raises NotificationFault; what the server said for good (5xx) is not transient. A server without TLS gets nothing."""
    seconds = settings.timeout.total_seconds()
    where = f"{settings.smtp_host}:{settings.smtp_port}"
    try:
        with _connected(settings, seconds) as smtp:
            if settings.smtp_tls == "starttls":
                smtp.starttls(context=_context(settings))
            if settings.smtp_password is not None:
                smtp.login(settings.smtp_user, settings.smtp_password.get_secret_value())
            refused = smtp.send_message(mail)
    except smtplib.SMTPRecipientsRefused as fault:
        for_good = all(code >= 500 for code, _ in fault.recipients.values())
        raise NotificationFault(f"{where} refuses every recipient", transient=not for_good) from None
    except smtplib.SMTPNotSupportedError as fault:
        raise NotificationFault(f"{where}: {bounded(str(fault), 200)}", transient=False) from None
    except smtplib.SMTPResponseException as fault:
        said = _line(fault.smtp_error)
        raise NotificationFault(f"{where} said {fault.smtp_code}: {said}", transient=fault.smtp_code < 500) from None
    except (smtplib.SMTPException, OSError) as fault:
        why = bounded(str(fault), 200) or type(fault).__name__
        raise NotificationFault(f"{where} cannot be reached: {why}", transient=True) from None
    if refused:
        # The others have it: to repeat would tell them twice.
        raise NotificationFault(f"{where} refuses {', '.join(sorted(refused))}; the others got it", transient=False)


def _connected(settings: NotificationSettings, seconds: float) -> smtplib.SMTP:
    if settings.smtp_tls == "implicit":
        return smtplib.SMTP_SSL(
            settings.smtp_host,
            settings.smtp_port,
            timeout=seconds,
            context=_context(settings),
            local_hostname="hotswap",
        )
    return smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=seconds, local_hostname="hotswap")


def _context(settings: NotificationSettings) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=settings.smtp_ca_file)


def _line(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return bounded(" ".join(text.split()), 200)
