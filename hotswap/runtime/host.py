"""A plugin host: the forked child's life until it serves. Shut in, import, construct, say READY.

Forked by hotswap.runtime.zygote; hotswap.runtime.handle is at the other end of the channel; hotswap.runtime.host_server
answers the calls. Standard library only.
"""

import contextlib
import importlib
import inspect
import io
import mmap
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import hotswap_plugin
from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime import egress_client, preload, protocol
from hotswap.runtime.host_server import Method, Server, safe_text
from hotswap.runtime.limits import limit_of
from hotswap.runtime.private_root import SCRATCH
from hotswap.runtime.protocol import Fault, Kind
from hotswap.runtime.sandbox import Limits, Sandbox
from hotswap_plugin import logs

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_POOL_THREADS = 8
_out_of_sight: list[ModuleType] = []
_HOOKS = frozenset({"health", "close"})


@dataclass(frozen=True, slots=True)
class Assignment:
    """One host to be, as JSON from the launcher."""

    plugin: str
    version: str
    bundle_dir: str
    entry_point: str
    methods: list[str]
    library_paths: list[str]
    memory_bytes: int
    threads: int
    open_files: int
    cpu_seconds: int | None
    max_reply_bytes: int
    scratch_bytes: int = 0
    secrets_granted: bool = False
    network_granted: bool = False
    """Then a fourth descriptor comes along: the host's end of the pair over which it asks for connections."""
    certificates: str = ""
    """The file of the certificate authorities that TLS trusts, readable when the network is granted."""
    tls_libraries: list[str] = field(default_factory=list)
    """Shared libraries of the ssl module, readable then too. It is not preloaded: that costs every host 240 KiB."""
    core: int | None = None
    lines: int = 0
    """Channels of routers in processes of their own: as many descriptors come last."""

    @property
    def readable(self) -> list[str]:
        return [self.bundle_dir, *self.library_paths, *self.tls_libraries, *filter(None, [self.certificates])]

    @property
    def pool_threads(self) -> int:
        return min(MAX_POOL_THREADS, self.threads)


class _LoadFailed(Exception):
    """The plugin cannot be loaded as its manifest says."""


def run(assignment: Assignment, fds: Sequence[int], sandbox: Sandbox, zygote: int) -> NoReturn:
    """`fds`: channel, log, watermark, with the network granted a fourth, then the lines. Never returns. The exit code says why: 0 the channel closed, EXIT_LOAD, EXIT_MEMORY, 1 a fault of the host."""
    try:
        channel_fd, log_fd, watermark_fd, *more = fds
        egress_fd, line_fds = (more[:1], more[1:]) if assignment.network_granted else ([], more)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        channel = socket.socket(fileno=os.dup(channel_fd))
        watermark = mmap.mmap(watermark_fd, protocol.WATERMARK_BYTES)
        egress = socket.socket(fileno=os.dup(egress_fd[0])) if egress_fd else None
        lines = [socket.socket(fileno=os.dup(fd)) for fd in line_fds]
        _serve(assignment, channel, watermark, egress, lines, sandbox, zygote)
    except MemoryError:
        os._exit(protocol.EXIT_MEMORY)
    except BaseException:  # noqa: BLE001 - the last word of a process: say why, then end
        traceback.print_exc()
    os._exit(1)


def _serve(
    assignment: Assignment,
    channel: socket.socket,
    watermark: mmap.mmap,
    egress: socket.socket | None,
    lines: Sequence[socket.socket],
    sandbox: Sandbox,
    zygote: int,
) -> NoReturn:
    own_threads = 0 if egress is None else 1  # the one that hears the node's answers is none of the plugin's
    limits = Limits(
        memory_bytes=assignment.memory_bytes,
        threads=assignment.threads + own_threads,
        pool_threads=assignment.pool_threads + own_threads,
        open_files=assignment.open_files + len(lines),
        cpu_seconds=assignment.cpu_seconds,
        scratch_bytes=assignment.scratch_bytes,
    )
    sandbox.name_process(f"host {assignment.plugin}")
    if assignment.core is not None:
        with contextlib.suppress(OSError):  # the core was taken from us meanwhile: unpinned is slower, not wrong
            os.sched_setaffinity(0, {assignment.core})
    try:
        keep = [kept.fileno() for kept in (channel, egress, *lines) if kept is not None]
        receives_on = None if egress is None else egress.fileno()
        sandbox.enter(assignment.readable, limits, keep, zygote, receives_on=receives_on)
    except SandboxUnavailable as fault:
        _fail(channel, Fault(fault.message, limit="SANDBOX"))
    except (OSError, ValueError) as fault:  # the bundle is gone, or a limit is above what this node may set
        _fail(channel, Fault(f"the sandbox could not be entered: {fault}", limit="LOAD_FAILED"))
    channel.sendall(protocol.encode(0, Kind.ISOLATED))
    if egress is not None or sandbox.tier != "none":
        egress_client.install(egress)
    _prepare_interpreter(assignment)
    try:
        plugin, methods = load(assignment)
    except MemoryError:
        _fail(channel, Fault("out of memory while loading", kind="MemoryError", limit="MEMORY_LIMIT"))
    except _LoadFailed as fault:
        _fail(channel, Fault(str(fault), limit="LOAD_FAILED"))
    except BaseException as fault:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        traceback.print_exc()
        limit = limit_of(fault) or "LOAD_FAILED"
        _fail(channel, Fault(_describe(fault, assignment.bundle_dir), type(fault).__name__, limit))
    channel.sendall(protocol.encode(0, Kind.READY))
    server = Server(
        channel,
        watermark,
        plugin,
        methods,
        plugin_name=assignment.plugin,
        version=assignment.version,
        max_reply_bytes=assignment.max_reply_bytes,
        pool_threads=assignment.pool_threads,
        secrets_granted=assignment.secrets_granted,
        lines=lines,
    )
    server.serve()


def _fail(channel: socket.socket, fault: Fault) -> NoReturn:
    with contextlib.suppress(OSError):  # the node has given up already; our exit is all it waits for
        channel.sendall(protocol.encode(0, Kind.FAILED, protocol.encode_fault(fault)))
    os._exit(protocol.EXIT_MEMORY if fault.limit == "MEMORY_LIMIT" else protocol.EXIT_LOAD)


def _prepare_interpreter(assignment: Assignment) -> None:
    logs.in_host = True
    hotswap_plugin.__path__ = []  # what a plugin may use of it is imported; its testing helper is for authors' machines
    if assignment.certificates:
        os.environ["SSL_CERT_FILE"] = assignment.certificates
    sys.stdout = io.TextIOWrapper(PipeOutput(1), encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.stderr = io.TextIOWrapper(PipeOutput(2), encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.path[:0] = [assignment.bundle_dir, str(Path(assignment.bundle_dir) / "vendor"), *assignment.library_paths]
    sys.argv = [assignment.plugin]
    # A plugin may bring a package of any name, ours included. What runs here holds its modules by reference; the others
    # are kept too, since to take them apart writes to pages that all hosts share.
    ours = [name for name in sys.modules if name.partition(".")[0] == "hotswap"]
    _out_of_sight.extend(sys.modules.pop(name) for name in ours)
    if assignment.scratch_bytes:
        os.environ["TMPDIR"] = tempfile.tempdir = SCRATCH
    preload.give_way([assignment.bundle_dir, str(Path(assignment.bundle_dir) / "vendor")])
    os.chdir(assignment.bundle_dir)


def load(assignment: Assignment) -> tuple[Any, dict[str, Method]]:
    """Import the entry point, construct it, find its methods. Raises _LoadFailed, or whatever the plugin raises."""
    module_name, _, class_name = assignment.entry_point.partition(":")
    module = importlib.import_module(module_name)
    make = getattr(module, class_name, None)
    if not callable(make):
        raise _LoadFailed(f"entryPoint: module '{module_name}' has no class '{class_name}'")
    plugin = make()
    names = assignment.methods or [
        name
        for name in dir(type(plugin))
        if not name.startswith("_") and name not in _HOOKS and callable(getattr(type(plugin), name))
    ]
    methods = {}
    missing = []
    for name in names:
        function = getattr(plugin, name, None)
        if callable(function):
            methods[name] = Method(function, inspect.iscoroutinefunction(function))
        else:
            missing.append(name)
    if missing:
        raise _LoadFailed(f"methods: {class_name} has no method {', '.join(missing)}, which the manifest declares")
    return plugin, methods


def _describe(fault: BaseException, bundle_dir: str) -> str:
    """`message (plugin.py:12)`: the innermost place in the bundle's own code."""
    message = safe_text(fault)
    for frame in reversed(traceback.extract_tb(fault.__traceback__)):
        if frame.filename.startswith(bundle_dir):
            return f"{message} ({os.path.relpath(frame.filename, bundle_dir)}:{frame.lineno})"
    return message


class PipeOutput(io.BufferedIOBase):
    """The plugin's stdout and stderr: a non-blocking pipe. What does not fit is dropped, so that a plugin never waits
    for its own log; the node counts and limits what does (hotswap.runtime.output)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: "ReadableBuffer") -> int:
        view = memoryview(data).cast("B")
        with contextlib.suppress(BlockingIOError):  # full: the node reads no more for now
            os.write(self._fd, view)
        return len(view)
