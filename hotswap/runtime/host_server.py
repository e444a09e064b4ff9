"""Serves calls inside a plugin host: frames in, the plugin's methods, frames out. Plain asyncio, standard library only.

`async def` methods run on the loop, others in a small pool of threads. Every CALL and PING is answered exactly once, on the
line it came on (hotswap.runtime.host_line). Made by hotswap.runtime.host; nothing here is trusted by the node, so limits on
replies are checked there again.
"""

import asyncio
import contextlib
import inspect
import json
import mmap
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from hotswap.runtime import protocol
from hotswap.runtime.host_line import HostLine, Job
from hotswap.runtime.limits import WORDS, limit_of
from hotswap.runtime.protocol import Call, Fault, Kind
from hotswap.runtime.tenant_views import TenantViews
from hotswap_plugin import logs
from hotswap_plugin.context import Context

_encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Method:
    function: Callable[..., Any]
    is_async: bool


class Server:
    def __init__(
        self,
        channel: socket.socket,
        watermark: mmap.mmap,
        plugin: Any,
        methods: dict[str, Method],
        *,
        plugin_name: str,
        version: str,
        max_reply_bytes: int,
        pool_threads: int,
        secrets_granted: bool = False,
        lines: Sequence[socket.socket] = (),
    ) -> None:
        """`channel` is the node's own; `lines` are further ones, for routers in processes of their own."""
        self._watermark = watermark
        self._plugin = plugin
        self._methods = methods
        self._plugin_name = plugin_name
        self._version = version
        self._max_reply = max_reply_bytes
        self._pool_threads = pool_threads
        self._loop = asyncio.new_event_loop()
        self._counting = threading.Lock()
        self._jobs = 0
        """Calls that have a thread or wait for one."""
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._threads = 0
        self._finished: deque[tuple[HostLine, int, bytes]] = deque()
        self._waking = False
        self._next_traceback = 0.0
        health = getattr(plugin, "health", None)
        self._health = Method(health, inspect.iscoroutinefunction(health)) if callable(health) else None
        self._lines = [
            HostLine(index, each, watermark, self._loop, TenantViews(secrets_granted), self._heard, self._hung_up)
            for index, each in enumerate((channel, *lines))
        ]

    def serve(self) -> NoReturn:
        """Until the channel closes; then the process ends."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        os._exit(0)

    def rehearse(self, work: Coroutine[Any, Any, None]) -> None:
        """Serve until `work` is done, then let go of everything but the channel (hotswap.runtime.rehearsal)."""
        self._loop.run_until_complete(work)
        self._loop.close()

    def _heard(self, line: HostLine, data: bytes) -> None:
        for request_id, kind, payload in line.decoder.feed(data):
            if kind == Kind.CALL:
                self._call(line, request_id, protocol.decode_call(payload))
            elif kind == Kind.PING:
                self._ping(line, request_id)
            elif kind == Kind.SETTINGS:
                line.tenants.take(payload)
            elif kind == Kind.CANCEL:
                self._cancel(line, request_id)
            else:
                self._close()

    def _hung_up(self, line: HostLine) -> None:
        """Its router has ended: nobody waits for what came on it."""
        for request_id in (*line.unbegun, *line.tasks, *line.jobs):
            self._cancel(line, request_id)

    def _call(self, line: HostLine, request_id: int, call: Call) -> None:
        method = self._methods.get(call.method)
        if method is None:
            self._count(line)
            self._fault(line, request_id, Fault(f"the plugin has no method '{call.method}'", unknown_method=True))
            return
        try:
            parameters = json.loads(call.body)
        except (ValueError, RecursionError) as fault:
            self._count(line)
            self._fault(line, request_id, Fault(f"the body is not JSON: {fault}", invalid=True))
            return
        if not isinstance(parameters, dict):
            self._count(line)
            self._fault(
                line, request_id, Fault("the body must be a JSON object: the method's parameters", invalid=True)
            )
            return
        # From here on the plugin may see the call: it must not be sent to another host.
        protocol.WATERMARK.pack_into(self._watermark, line.marks_at, request_id)
        deadline = call.deadline_us / 1e6
        view = line.tenants.of(call.tenant)
        context = Context(call.tenant, self._plugin_name, self._version, deadline, call.traceparent, view)
        self._run(line, request_id, method, (parameters, context))

    def _run(
        self, line: HostLine, request_id: int, method: Method, arguments: tuple[Any, ...], *, is_health: bool = False
    ) -> None:
        if method.is_async:
            line.unbegun.add(request_id)
            work = self._await(line, request_id, method.function, arguments, is_health=is_health)
            task = self._start_task(work)
            if not task.done():
                line.tasks[request_id] = task
        else:
            job = Job(line, request_id, method.function, arguments, is_health)
            line.jobs[request_id] = job
            self._jobs += 1
            if self._threads < self._pool_threads and self._jobs > self._threads:
                self._add_thread()
            if self._threads:
                self._queue.put(job)
            else:
                del line.jobs[request_id]
                self._jobs -= 1
                if not is_health:
                    self._count(line)
                self._fault(
                    line,
                    request_id,
                    Fault(f"no thread can be started: {WORDS['PROCESS_LIMIT']}", limit="PROCESS_LIMIT"),
                )

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Before 3.12 a task starts in the loop's next turn; since then at once, which saves the turn."""
        if sys.version_info >= (3, 12):
            return asyncio.Task(work, loop=self._loop, eager_start=True)
        return self._loop.create_task(work)

    async def _await(
        self,
        line: HostLine,
        request_id: int,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        is_health: bool,
    ) -> None:
        logs.current.set(None if is_health else arguments[1])
        if not is_health:
            self._count(line)
        try:
            if request_id in line.unbegun:
                line.unbegun.discard(request_id)
                frame = self._result(request_id, await function(*arguments), is_health)
            else:
                frame = self._cancelled(request_id)
        except BaseException as fault:  # noqa: BLE001 - a plugin may raise anything; the caller is told what
            frame = self._raised(request_id, fault)
        line.tasks.pop(request_id, None)
        line.send(frame)

    def _add_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"call-{self._threads}", daemon=True).start()
        except (RuntimeError, MemoryError):
            return  # the limit on threads or memory is reached; the threads there are will get to it
        self._threads += 1

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            job.running = True
            if not job.is_health:
                self._count(job.line)
            if job.cancelled:
                frame = self._cancelled(job.request_id)
            else:
                logs.current.set(None if job.is_health else job.arguments[1])
                try:
                    frame = self._result(job.request_id, job.function(*job.arguments), job.is_health)
                except BaseException as fault:  # noqa: BLE001 - as in _await
                    frame = self._raised(job.request_id, fault)
            self._finished.append((job.line, job.request_id, frame))
            del job
            if not self._waking:
                self._waking = True
                self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._waking = False  # first: a thread that finishes now wakes us again
        while self._finished:
            line, request_id, frame = self._finished.popleft()
            del line.jobs[request_id]
            self._jobs -= 1
            line.send(frame)

    def _result(self, request_id: int, result: Any, is_health: bool) -> bytes:
        if is_health:
            if result is None or result is True:
                return protocol.encode(request_id, Kind.PONG)
            return self._encode_fault(request_id, Fault("the plugin's health() says it is unhealthy", kind="Unhealthy"))
        try:
            body = _encode_json(result).encode()
        except (TypeError, ValueError, RecursionError) as fault:
            if inspect.iscoroutine(result):
                result.close()
            return self._encode_fault(
                request_id, Fault(f"the method's result is not JSON: {safe_text(fault)}", limit="BAD_REPLY")
            )
        if len(body) > self._max_reply:
            message = f"the method's result has {len(body)} bytes; at most {self._max_reply} are allowed"
            return self._encode_fault(request_id, Fault(message, limit="REPLY_TOO_LARGE"))
        return protocol.encode(request_id, Kind.RESULT, body)

    def _raised(self, request_id: int, fault: BaseException) -> bytes:
        if limit := limit_of(fault):
            return self._encode_fault(request_id, Fault(WORDS[limit], kind=type(fault).__name__, limit=limit))
        if isinstance(fault, asyncio.CancelledError):
            return self._cancelled(request_id)
        now = time.monotonic()
        if now >= self._next_traceback:  # one a second: enough to see why, never a flood
            self._next_traceback = now + 1
            _print_traceback(fault)
        return self._encode_fault(request_id, Fault(safe_text(fault), kind=type(fault).__name__))

    def _cancelled(self, request_id: int) -> bytes:
        return self._encode_fault(request_id, Fault("cancelled: nobody waits any more", limit="TIMEOUT"))

    def _cancel(self, line: HostLine, request_id: int) -> None:
        if request_id in line.unbegun:
            line.unbegun.discard(request_id)  # its task ends by itself, with an answer
        elif task := line.tasks.get(request_id):
            task.cancel()
        elif job := line.jobs.get(request_id):
            job.cancelled = True

    def _ping(self, line: HostLine, request_id: int) -> None:
        stuck = sum(job.running and job.cancelled for each in self._lines for job in each.jobs.values())
        if stuck >= self._pool_threads:
            message = f"all {stuck} threads are held by calls that timed out long ago"
            self._fault(line, request_id, Fault(message, limit="TIMEOUT"))
        elif self._health is None:
            line.send(protocol.encode(request_id, Kind.PONG))
        else:
            self._run(line, request_id, self._health, (), is_health=True)

    def _close(self) -> None:
        close = getattr(self._plugin, "close", None)
        if not callable(close):
            os._exit(0)
        self._loop.create_task(self._close_plugin(close))

    async def _close_plugin(self, close: Callable[[], Any]) -> None:
        try:
            result = close()
            if inspect.isawaitable(result):
                await result
        except BaseException:  # noqa: BLE001 - it ends either way; its log says why it did not end well
            traceback.print_exc()
        with contextlib.suppress(OSError, ValueError):  # the log is best effort at the end
            sys.stdout.flush()
        os._exit(0)

    def _count(self, line: HostLine) -> None:
        """One CALL more is no longer waiting to begin. Any thread; the node reads the count at any time."""
        with self._counting:
            line.begun += 1
            at = line.marks_at + protocol.BEGUN_AT
            protocol.BEGUN.pack_into(self._watermark, at, line.begun & protocol.REQUEST_ID_MASK)

    def _fault(self, line: HostLine, request_id: int, fault: Fault) -> None:
        line.send(self._encode_fault(request_id, fault))

    @staticmethod
    def _encode_fault(request_id: int, fault: Fault) -> bytes:
        return protocol.encode(request_id, Kind.ERROR, protocol.encode_fault(fault))


def safe_text(fault: BaseException) -> str:
    """str(fault), which is the plugin's own code and may itself raise."""
    try:
        return str(fault)
    except BaseException as second:  # noqa: BLE001 - a SystemExit here would cost a thread of the pool, and the call its answer
        return f"<its message raised {type(second).__name__}>"


def _print_traceback(fault: BaseException) -> None:
    """Into the plugin's log. Printing runs the fault's own code too, which may raise anything."""
    try:
        traceback.print_exception(fault)
    except BaseException as second:  # noqa: BLE001 - as above; where it was raised is worth more than nothing
        sys.stderr.write(f"a {type(fault).__name__} whose traceback raised {type(second).__name__}\n")
