"""What the tests of egress share: a plugin that connects in every usual way, and a server on loopback to connect to."""

import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from hotswap.runtime.egress import EgressPolicy
from hotswap.runtime.handle import ZygoteHost
from tests.integration.host_lab import launched, spec_of_source

ANONYMOUS = "AECDH-AES256-SHA:ADH-AES256-SHA:@SECLEVEL=0"
"""TLS without a certificate, so that none need be made: what counts here is that it ends in the plugin."""

LOOPBACK = (ip_network("127.0.0.0/8"),)

SOURCE = f"""
    import asyncio, http.client, json, os, socket, ssl, urllib.request
    from urllib.error import HTTPError, URLError

    def anonymous():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("{ANONYMOUS}")
        return context

    class Plugin:
        kept = []
        def urllib(self, p, context):
            try:
                with urllib.request.urlopen(p["url"], timeout=20) as answer:
                    return answer.read().decode()
            except URLError as fault:
                raise fault.reason
        def http_client(self, p, context):
            connection = http.client.HTTPConnection(p["to"], p["port"], timeout=20)
            connection.request("POST", "/", body=b"x" * p["size"])
            return len(connection.getresponse().read())
        def tls(self, p, context):
            connection = http.client.HTTPSConnection(p["to"], p["port"], timeout=20, context=anonymous())
            connection.request("GET", "/")
            return [connection.getresponse().read().decode(), connection.sock.cipher()[0]]
        async def streams(self, p, context):
            tls = anonymous() if p.get("tls") else None
            reader, writer = await asyncio.open_connection(p["to"], p["port"], ssl=tls)
            writer.write(b"POST / HTTP/1.0\\r\\nContent-Length: 3000000\\r\\n\\r\\n" + b"x" * 3_000_000)
            await writer.drain()
            answer = await reader.read()
            writer.close()
            return len(answer.partition(b"\\r\\n\\r\\n")[2])
        def raw(self, p, context):
            socket.create_connection((p["to"], p["port"]), 20).close()
        async def raw_async(self, p, context):
            await asyncio.open_connection(p["to"], p["port"])
        def keep(self, p, context):
            for _ in range(p["count"]):
                self.kept.append(socket.create_connection((p["to"], p["port"]), 20))
        def let_go(self, p, context):
            while self.kept:
                self.kept.pop().close()
        def outright(self, p, context):
            import _socket
            found = []
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
                try:
                    _socket.socket(family, socket.SOCK_STREAM)
                except OSError as fault:
                    found.append(type(fault).__name__)
            granted = socket.create_connection((p["to"], p["port"])) if p.get("to") else None
            for attempt in (
                lambda: _socket.socket.connect(granted, ("127.0.0.1", p["other"])),
                lambda: _socket.socket.sendto(granted, b"x", socket.MSG_FASTOPEN, ("127.0.0.1", p["other"])),
                lambda: _socket.socket.sendmsg(granted, [b"x"]),
                lambda: _socket.socket.recvmsg(granted, 10),
                lambda: _socket.socket.bind(granted, ("127.0.0.1", 0)),
                lambda: _socket.socket.listen(granted),
                lambda: _socket.socket.setsockopt(granted, socket.SOL_SOCKET, socket.SO_MARK, 1),
            ) if granted else ():
                try:
                    attempt()
                except OSError as fault:
                    found.append(type(fault).__name__)
            return found
        def certificates(self, p, context):
            return ssl.create_default_context().cert_store_stats()["x509_ca"]
        def lie(self, p, context):
            fds = [int(name) for name in range(3, 64)]
            sent = 0
            for fd in fds:
                try:
                    if socket.socket(fileno=os.dup(fd)).getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_SEQPACKET:
                        way = socket.socket(fileno=os.dup(fd))
                        for _ in range(p["times"]):
                            way.send(p["text"].encode(), socket.MSG_DONTWAIT)
                            sent += 1
                except OSError:
                    pass
            return sent
        def httpx(self, p, context):
            import httpx
            return httpx.get(p["url"], timeout=20).text
        async def httpx_async(self, p, context):
            import httpx
            async with httpx.AsyncClient(timeout=20) as client:
                return (await client.get(p["url"])).text
        def urllib3(self, p, context):
            import urllib3
            return urllib3.PoolManager(retries=False).request("GET", p["url"], timeout=20).data.decode()
"""


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", f"http://{self.path.removeprefix('/to/')}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(f"hello {self.headers['Host']}".encode())

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the test's output."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.port: int = self.server_address[1]
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ANONYMOUS)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="http")
        self.thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A host that ends cuts its connections."""

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


@contextmanager
def serving(*, tls: bool = False) -> Iterator[Server]:
    server = Server(tls=tls)
    try:
        yield server
    finally:
        server.end()


def names(**known: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that knows these names, '_' for '.', addresses separated by spaces."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        try:
            return known[host.replace(".", "_")].split()
        except KeyError:
            raise socket.gaierror(socket.EAI_NONAME, "no such name") from None

    return resolve


RESOLVE = names(api_test="127.0.0.1", other_test="127.0.0.1")


@asynccontextmanager
async def granted(
    folder: Path, *permissions: str, policy: EgressPolicy | None = None, **more: Any
) -> AsyncIterator[ZygoteHost]:
    policy = policy or EgressPolicy(LOOPBACK, resolve=RESOLVE)
    async with launched(spec_of_source(folder, SOURCE, permissions=permissions), egress=policy, **more) as host:
        yield host
