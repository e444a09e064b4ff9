"""A small real SMTP server on loopback: takes mail, or refuses as it is told; with STARTTLS, implicit TLS or neither."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Literal

CERTIFICATE = Path(__file__).parent / "tls" / "localhost.pem"
"""Self-signed for localhost and 127.0.0.1, for these tests only; its key is in it."""


@dataclass
class Mail:
    recipients: list[str]
    raw: bytes
    encrypted: bool
    user: str

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.raw, policy=policy.default)


@dataclass
class SmtpSink:
    """`replies` overrides the answer to a verb: {"DATA": "451 busy"}; `once` the same, for its first time only."""

    tls: Literal["starttls", "implicit", "none"] = "none"
    mails: list[Mail] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)
    once: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def reply(self, verb: str, default: str) -> str:
        return self.once.pop(verb, "") or self.replies.get(verb, default)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@contextmanager
def smtp_sink(tls: Literal["starttls", "implicit", "none"] = "none") -> Iterator[SmtpSink]:
    sink = SmtpSink(tls)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(30)
            with ExitStack() as opened:
                try:
                    self._talk(opened, self._encrypted(opened, self.request) if tls == "implicit" else self.request)
                except OSError:
                    return  # the client hung up: it did not trust us, or had enough

        def _encrypted(self, opened: ExitStack, connection: socket.socket) -> ssl.SSLSocket:
            return opened.enter_context(_context().wrap_socket(connection, server_side=True))

        def _talk(self, opened: ExitStack, connection: socket.socket) -> None:
            file: Any = opened.enter_context(connection.makefile("rwb"))
            encrypted = isinstance(connection, ssl.SSLSocket)
            recipients: list[str] = []
            user = ""

            def say(line: str) -> None:
                file.write(line.encode() + b"\r\n")
                file.flush()

            say(sink.reply("CONNECT", "220 sink"))
            while line := file.readline():
                text = line.decode("ascii", "replace").strip()
                verb = text.split(" ")[0].upper()
                if verb == "EHLO":
                    offers = ["sink", "AUTH PLAIN", "8BITMIME"]
                    if tls == "starttls" and not encrypted:
                        offers.append("STARTTLS")
                    for offer in offers[:-1]:
                        say(f"250-{offer}")
                    say(f"250 {offers[-1]}")
                elif verb == "STARTTLS":
                    say("220 go ahead")
                    file = opened.enter_context(self._encrypted(opened, connection).makefile("rwb"))
                    encrypted = True
                elif verb == "AUTH":
                    user = text.split(" ")[-1]
                    say(sink.reply("AUTH", "235 welcome"))
                elif verb == "RCPT":
                    address = text.partition(":")[2].strip("<>")
                    answer = sink.reply(f"RCPT {address}", sink.reply("RCPT", "250 ok"))
                    if answer.startswith("2"):
                        recipients.append(address)
                    say(answer)
                elif verb == "DATA":
                    answer = sink.reply("DATA", "354 go on")
                    say(answer)
                    if answer.startswith("354"):
                        body = b""
                        while (part := file.readline()) not in (b".\r\n", b""):
                            body += part[1:] if part.startswith(b"..") else part
                        sink.mails.append(Mail(list(recipients), body, encrypted, user))
                        say("250 taken")
                elif verb == "QUIT":
                    say("221 bye")
                    return
                else:
                    say("250 ok")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        sink.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield sink
        finally:
            server.shutdown()
            thread.join()
