"""A load generator of its own process: raw keep-alive sockets, one request at a time on each, closed loop or at a fixed rate.

`Group`s run side by side, each with its own connections (a tenant, say). `hammer(...)` starts the process, pinned where
asked, and gives back every sample, so that a benchmark can judge what happened when. At a fixed rate a latency counts
from when the request was due, not from when a connection was free (no coordinated omission).
"""

import asyncio
import gc
import os
import pickle
import select
import socket
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Group:
    """One stream of equal requests. `rate` in requests/s; 0 = every connection sends again as soon as it is answered."""

    name: str
    port: int
    request: bytes
    connections: int
    rate: float = 0.0


@dataclass
class Samples:
    """What one group saw. Times are time.monotonic(), so they compare across processes of this machine."""

    began: "array[float]" = field(default_factory=lambda: array("d"))
    took: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds, aligned with `began` and `status`."""
    status: "array[int]" = field(default_factory=lambda: array("H"))
    """0 = no answer: the connection failed or was cut with a request under way."""
    faults: Counter[str] = field(default_factory=Counter)

    def after(self, seconds: float) -> "Samples":
        """Those that began later than so many seconds after the first."""
        later = Samples(faults=self.faults)
        for began, took, status in zip(self.began, self.took, self.status, strict=True):
            if began > self.began[0] + seconds:
                later.began.append(began)
                later.took.append(took)
                later.status.append(status)
        return later

    def statuses(self) -> Counter[int]:
        return Counter(self.status)

    def latencies(self, status: int = 200) -> list[float]:
        """Sorted seconds of the answers with this status."""
        return sorted(took for took, code in zip(self.took, self.status, strict=True) if code == status)


def percentile(ordered: list[float], share: float) -> float:
    """Of a sorted list; nan when it is empty, so that no data never looks like a good figure."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def request(path: str, token: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {token}\r\n"
    return head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def hammer(groups: list[Group], seconds: float, core: int | None = None) -> dict[str, Samples]:
    """Run the load in a process of its own and wait for it. Raises RuntimeError when the process fails."""
    program = "from benchmarks.hammer import main; main()"  # not -m: pickles name this module, not __main__
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        told, _ = await process.communicate(pickle.dumps((groups, seconds, core)))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    samples: dict[str, Samples] = pickle.loads(told)
    return samples


class _Wire:
    """One connection: at most one request under way."""

    __slots__ = ("began", "sock", "stream", "want")

    def __init__(self, stream: "_Stream") -> None:
        self.stream = stream
        self.began = 0.0
        self.want = b""
        self.sock = socket.create_connection(("127.0.0.1", stream.group.port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)


class _Stream:
    def __init__(self, group: Group) -> None:
        self.group = group
        self.samples = Samples()
        self.free: deque[_Wire] = deque()
        self.due = 0.0
        self.usual = 0
        """Bytes of the last answer: the next one of the same length, a 200, is whole."""
        self.late: deque[float] = deque()
        """When requests were due for which no connection was free yet."""


class _Load:
    def __init__(self, groups: Iterable[Group]) -> None:
        self.epoll = select.epoll()
        self.streams = [_Stream(group) for group in groups]
        self.wires: dict[int, _Wire] = {}
        for stream in self.streams:
            for _ in range(stream.group.connections):
                self.connect(stream)

    def connect(self, stream: _Stream) -> None:
        wire = _Wire(stream)
        self.wires[wire.sock.fileno()] = wire
        self.epoll.register(wire.sock.fileno(), select.EPOLLIN)
        stream.free.append(wire)

    def run(self, seconds: float) -> None:
        monotonic = time.monotonic
        start = monotonic()
        end = start + seconds
        timed = [stream for stream in self.streams if stream.group.rate]
        for stream in self.streams:
            stream.due = start
            if not stream.group.rate:
                while stream.free:
                    self.send(stream.free.popleft(), monotonic())
        while (now := monotonic()) < end:
            pause = end - now
            for stream in timed:
                gap = 1 / stream.group.rate
                while stream.due <= now:
                    stream.late.append(stream.due)
                    stream.due += gap
                while stream.late and stream.free:
                    self.send(stream.free.popleft(), stream.late.popleft())
                pause = min(pause, stream.due - now)
            self.poll(pause, again=True)
        last = monotonic() + 5  # what is under way may end, so that a cut at the end is not taken for a failure
        while monotonic() < last and any(wire.began for wire in self.wires.values()):
            self.poll(0.1, again=False)

    def poll(self, pause: float, *, again: bool) -> None:
        events = self.epoll.poll(0)
        if not events and pause > 0:
            select.select([self.epoll.fileno()], [], [], pause)  # epoll's own timeout is no finer than 1 ms
            events = self.epoll.poll(0)
        for fd, _ in events:
            self.receive(self.wires[fd], again=again)

    def send(self, wire: _Wire, due: float) -> None:
        wire.began = due
        try:
            wire.sock.send(wire.stream.group.request)
        except OSError as fault:
            self.failed(wire, repr(fault))

    def receive(self, wire: _Wire, *, again: bool) -> None:
        try:
            data = wire.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as fault:
            self.failed(wire, repr(fault))
            return
        if not data:
            self.failed(wire, "closed by the server")
            return
        if wire.want:
            data = wire.want + data
        stream = wire.stream
        if len(data) != stream.usual or not data.startswith(b"HTTP/1.1 200"):  # looked at closely only when it differs
            head = data.find(b"\r\n\r\n")
            if head < 0 or len(data) < head + 4 + _length(data[:head]):
                wire.want = data
                return
            stream.usual = len(data)
        wire.want = b""
        now = time.monotonic()
        samples = stream.samples
        samples.began.append(wire.began)
        samples.took.append(now - wire.began)
        samples.status.append(int(data[9:12]))
        wire.began = 0.0
        if again and not stream.group.rate:
            self.send(wire, now)
        else:
            stream.free.append(wire)

    def failed(self, wire: _Wire, why: str) -> None:
        stream = wire.stream
        if wire.began:
            stream.samples.began.append(wire.began)
            stream.samples.took.append(time.monotonic() - wire.began)
            stream.samples.status.append(0)
            stream.samples.faults[why] += 1
        self.epoll.unregister(wire.sock.fileno())
        del self.wires[wire.sock.fileno()]
        if wire in stream.free:
            stream.free.remove(wire)
        wire.sock.close()
        try:
            self.connect(stream)
        except OSError as fault:
            stream.samples.faults[f"connecting again: {fault!r}"] += 1
            return
        if not stream.group.rate:
            self.send(stream.free.pop(), time.monotonic())


def _length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    return int(head[at + 17 : head.find(b"\r\n", at + 2) if head.find(b"\r\n", at + 2) > 0 else None])


def main() -> None:
    groups, seconds, core = pickle.load(sys.stdin.buffer)
    if core is not None:
        os.sched_setaffinity(0, {core})
    gc.disable()
    load = _Load(groups)
    load.run(seconds)
    pickle.dump({stream.group.name: stream.samples for stream in load.streams}, sys.stdout.buffer)
