"""The zygote: a small clean process that forks plugin hosts, so that one starts in milliseconds and inherits no secret.

Exec'ed by hotswap.runtime.launcher with a bare environment; single-threaded and without a loop when it forks, since a fork
of anything else is a gamble. It preloads what plugins commonly import, rehearses what hosts do first, freezes the garbage
collector (pages stay shared), proves the sandbox once, then forks on request, kills on request, reaps and reports. It dies
with its parent and its hosts with it.
Imports the standard library only, plus this package's modules that do the same.
"""

import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn, cast

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime import host, preload, selftest
from hotswap.runtime.protocol import MAX_LINES
from hotswap.runtime.rehearsal import rehearse
from hotswap.runtime.sandbox import Sandbox, Tier
from hotswap.runtime.spawn import Message, spawner_for

MAX_MESSAGE_BYTES = 128 * 1024
"""Largest control message, one SOCK_SEQPACKET record."""
MAX_DESCRIPTORS = 4 + MAX_LINES
"""That come with one: channel, log, watermark, the way out, and lines of routers."""

_PRELOADED = (
    "abc", "argparse", "ast", "asyncio", "base64", "bisect", "calendar", "collections", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "decimal", "difflib", "email.utils", "enum", "fractions", "functools", "gettext", "gzip",
    "hashlib", "heapq", "hmac", "html", "importlib.metadata", "importlib.resources", "inspect", "io", "ipaddress",
    "itertools", "json", "locale", "logging", "math", "operator", "os", "pathlib", "pprint", "queue", "random", "re",
    "secrets", "statistics", "string", "struct", "tempfile", "textwrap", "threading", "time", "traceback", "types",
    "typing", "unicodedata", "urllib.parse", "uuid", "warnings", "weakref", "xml.etree.ElementTree", "zipfile", "zlib",
    "zoneinfo",
)  # fmt: skip


def main(control_fd: int, tier: Tier, parent: int, extra: dict[str, list[str]]) -> NoReturn:
    """Serve the launcher at the other end of `control_fd` (SOCK_SEQPACKET) until it closes.

    `extra`: `modules` to preload besides, and the `folders` to find them in.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the node's to answer; we go when it goes
    control = socket.socket(fileno=control_fd)
    try:
        for name in _PRELOADED:
            importlib.import_module(name)
        preload.import_all(extra["modules"], extra["folders"])
        sandbox = Sandbox(tier)  # after the imports: it grants what they mapped
        sandbox.tie_to_parent(parent)
        sandbox.name_process("hotswap-zygote")
        faulthandler.enable(2)  # a host that crashes in native code leaves its stack in its log
        rehearse(sandbox.machine if tier == "strong" else "")
        gc.collect()
        gc.freeze()
        selftest.prove(sandbox)
    except SandboxUnavailable as fault:
        _tell(control, op="unavailable", message=fault.message)
        sys.exit(0)
    _tell(control, op="ready")
    _Zygote(control, sandbox).serve()


def _tell(control: socket.socket, **message: object) -> None:
    try:
        control.send(json.dumps(message).encode())
    except ConnectionError:  # nobody is left to tell
        sys.exit(0)


class _Zygote:
    def __init__(self, control: socket.socket, sandbox: Sandbox) -> None:
        self._control = control
        self._sandbox = sandbox
        self._spawner = spawner_for(sandbox)
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> NoReturn:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        if self._spawner.fileno() >= 0:
            poller.register(self._spawner.fileno(), select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._woken:
                    os.read(self._woken, 4096)
                    self._tell_all(self._spawner.reap())
                elif fd == self._control.fileno():
                    self._obey()
                else:
                    self._tell_all(self._spawner.hear())

    def _obey(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
        except ConnectionResetError:  # it left something unread
            data = b""
        if not data:
            sys.exit(0)  # the launcher is gone; our end takes the hosts along
        order = json.loads(data)
        if order["op"] == "kill":
            self._spawner.kill(order["pid"])
            return
        try:
            self._fork(order, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, order: dict[str, Any], fds: list[int]) -> None:
        assignment = host.Assignment(**order["assignment"])

        def body(parent: int) -> NoReturn:
            host.run(assignment, fds, self._sandbox, parent)

        _, messages = self._spawner.spawn(order["id"], assignment.readable, body)
        self._tell_all(messages)

    def _tell_all(self, messages: list[Message]) -> None:
        for message in messages:
            _tell(self._control, **message)


def start() -> NoReturn:
    """Entry of the exec'ed process: argv is [-c, code path, control fd, tier, parent pid, preload as JSON]."""
    _, code_path, control_fd, tier, parent, extra = sys.argv
    sys.path.remove(code_path)  # plugins see the standard library and their own bundle
    main(int(control_fd), cast(Tier, tier), int(parent), json.loads(extra))
