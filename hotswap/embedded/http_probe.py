"""One small HTTP/1.1 request over loopback, for readiness: no pool, no TLS, nothing to import that takes 100 ms."""

import asyncio
import json
from typing import Any

from hotswap.embedded.parts import NotReady
from hotswap.embedded.ports import LOOPBACK

MAX_BODY = 1024 * 1024


async def request(port: int, path: str, body: dict[str, Any] | None = None) -> bytes:
    """GET, or POST when there is a body; the response's body. Raises NotReady unless the status is 2xx."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=MAX_BODY)
    except OSError as fault:
        raise NotReady(f"port {port}: {fault.strerror or fault}") from None
    try:
        writer.write(head.encode("ascii") + content)
        await writer.drain()
        answer = await reader.read(MAX_BODY)
        while chunk := await reader.read(MAX_BODY):
            answer += chunk
            if len(answer) > MAX_BODY:
                raise NotReady(f"{path} on port {port} answers more than {MAX_BODY} bytes")
    except (ConnectionError, asyncio.IncompleteReadError) as fault:
        raise NotReady(f"{path} on port {port}: {fault}") from None
    finally:
        writer.close()
    header, _, payload = answer.partition(b"\r\n\r\n")
    status = header.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[1].startswith(b"2"):
        said = payload[:200].decode("utf-8", "replace").strip()
        raise NotReady(f"{path} on port {port} answers {b' '.join(status).decode('latin-1') or 'nothing'} {said}")
    return payload
