"""The tenants of benchmarks.load, in a process of their own: a few connections that ask one plugin again and again.

python -m benchmarks.load_callers PORT TOKEN PLUGIN: asks until stdin closes, then prints every answer as JSON:
[seconds of the machine's monotonic clock, status, the host's own name for itself].
"""

import asyncio
import json
import sys
import time

CONNECTIONS = 4
PAUSE = 0.001
"""Seconds between an answer and the next request of a connection."""


async def main(port: int, token: str, plugin: str) -> None:
    answers: list[tuple[float, int, str]] = []
    done = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, done.set)
    callers = [asyncio.create_task(_ask(port, token, plugin, done, answers)) for _ in range(CONNECTIONS)]
    print("asking", flush=True)
    await asyncio.gather(*callers)
    print(json.dumps(answers), flush=True)


async def _ask(port: int, token: str, plugin: str, done: asyncio.Event, answers: list[tuple[float, int, str]]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        f"POST /invoke/acme/{plugin}/where HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {token}\r\n"
        "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    ).encode()
    while not done.is_set():
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        body = await reader.readexactly(length)
        answers.append((time.monotonic(), int(lines[0].split()[1]), body.decode() if length < 100 else ""))
        await asyncio.sleep(PAUSE)
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
