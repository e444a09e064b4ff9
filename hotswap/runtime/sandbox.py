"""The sandbox: what a forked child does to itself before it imports a plugin. Pure Python through ctypes.

Order: no_new_privs, privileges, parent-death signal, file descriptors, rlimits, Landlock, seccomp last. That is tier
`standard`; it works as root, as an ordinary user and in an unprivileged pod, and costs nothing per call. Tier `strong`
does the same inside namespaces (hotswap.runtime.namespaces), after moving into a root directory of its own. What a tier
stops is proven at start by hotswap.runtime.selftest. `none` keeps only the limits and the tie to the parent; it takes an
explicit setting.
"""

import errno
import os
import platform
import resource
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime import landlock, namespaces, private_root, privileges, seccomp
from hotswap.runtime.libc import Libc, errno_name

Tier = Literal["strong", "standard", "none"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_THREAD_STACK_BYTES = 8 * 1024 * 1024

_SYSTEM_LIBRARIES = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
_READABLE_FILES = ("/dev/urandom", "/dev/random", "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache")
_LIBRARY_LINKS = ("/lib", "/lib64", "/usr/lib64")
"""On most systems links into /usr, by which the dynamic loader finds its libraries."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard caps of one host process.

    memory_bytes: address space beyond what the zygote already maps and the stacks of `pool_threads`, the host's own.
    threads: beyond the main thread, the pool's included.
    cpu_seconds: over the whole life of the process, so for trials only; None = no limit.
    scratch_bytes: of a private writable directory, which tier strong alone can bound; 0 = none.
    """

    memory_bytes: int
    threads: int
    pool_threads: int
    open_files: int
    cpu_seconds: int | None = None
    scratch_bytes: int = 0


class Sandbox:
    """What can be prepared once, in the zygote: libc, the machine's call list, the paths every host may read."""

    def __init__(self, tier: Tier) -> None:
        """Raises SandboxUnavailable when this system has no such sandbox."""
        if sys.platform != "linux":
            raise SandboxUnavailable(
                f"plugin hosts need Linux (Landlock, seccomp); this is {platform.system()}: run nodes in a Linux machine or VM"
            )
        self.tier = tier
        self.libc = Libc()
        self.own_user = False
        self.machine = ""
        self.reaches_for_hosts = False
        """Whether the zygote itself takes hold of a host's paths (strong): it may reach more than a host's first process."""
        self._base: list[landlock.OpenPath] = []
        self._base_names: list[str] = []
        self._base_plan = private_root.Plan()
        self._root: tuple[private_root.Plan, dict[str, int]] | None = None
        self._moved_in = False
        self._mapped = 0
        if tier != "none":
            self.machine = seccomp.machine_name(platform.machine())
            landlock.abi(self.libc)
            self.own_user = privileges.own_user_ids()
            self._base_names = [str(Path(os.__file__).parent)]
            names = [*self._base_names, *_library_paths(self._base_names), *_READABLE_FILES]
            self._base = list(_open_all(names))
            self._base.append(landlock.open_path("/dev/null", writable=True))
        if tier == "strong":
            self._base_plan = private_root.Plan().with_links(_LIBRARY_LINKS).with_paths([*names, "/dev/null"])
            self.reaches_for_hosts = os.geteuid() == 0 and private_root.may_clone(self.libc)

    def tie_to_parent(self, parent: int) -> None:
        """Die by SIGKILL when the parent does. Exits at once when it is dead already."""
        self.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)

    def die_with_parent(self) -> None:
        """As `tie_to_parent`, for one who cannot see its parent and must find out otherwise whether it is there."""
        if self.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise SandboxUnavailable(f"prctl(PR_SET_PDEATHSIG) failed ({errno_name()})")

    def name_process(self, name: str) -> None:
        """What `ps -o comm` and `top` show; cut to 15 bytes."""
        self.libc.prctl(_PR_SET_NAME, name.encode("ascii", "replace")[:15])

    def plan(self, readable: Sequence[str]) -> private_root.Plan:
        """What a strong host that may read `readable` sees. Raises FileNotFoundError."""
        return self._base_plan.with_paths(readable, required=True)

    def will_move_into(self, plan: private_root.Plan, trees: dict[str, int]) -> None:
        """Said in a strong host's process: `enter` is to build this root first."""
        self._root = (plan, trees)

    def move_in(self, scratch_bytes: int) -> None:
        """A strong host's first half of `enter`: its own root and host name. Nothing in other tiers, or the second time."""
        if self._root is not None:
            namespaces.name_host(self.machine, self.libc)
            plan, trees = self._root
            self._root = None
            self._mapped = _mapped_bytes()  # before /proc is gone
            private_root.enter(plan, trees, scratch_bytes, self.machine, self.libc)
            self._moved_in = True

    def keep_watch_only(self, keep_fds: Iterable[int]) -> None:
        """For the process 1 of a strong host, which runs no plugin: no capability, no way to get any, no descriptor."""
        self.libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)
        privileges.drop([], False, self.machine, self.libc)
        _close_all_but(set(keep_fds))

    def enter(
        self,
        readable: Sequence[str],
        limits: Limits,
        keep_fds: Iterable[int],
        parent: int,
        *,
        receives_on: int | None = None,
    ) -> None:
        """Shut this process in, for good. It may then read beneath `readable` and use `keep_fds` and 0, 1, 2.

        receives_on: the one of `keep_fds` over which descriptors may be received (hotswap.runtime.egress).
        Raises SandboxUnavailable naming the layer that failed; the process must then exit without running a plugin.
        """
        if self.tier == "none":
            self.tie_to_parent(parent)
            _close_all_but({0, 1, 2, *keep_fds})
            _limit(limits, _mapped_bytes(), processes=None)
            return
        self.move_in(limits.scratch_bytes)
        if self.tier == "strong" and not self._moved_in:
            raise SandboxUnavailable("tier strong was asked for and this process is in no namespaces of its own")
        if limits.scratch_bytes and not self._moved_in:
            raise SandboxUnavailable("a scratch directory can be bounded in tier strong alone")
        if self.libc.prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0:
            raise SandboxUnavailable(f"prctl(PR_SET_NO_NEW_PRIVS) failed ({errno_name()})")
        paths = [*self._base, *_open_all(readable, required=True)]
        if limits.scratch_bytes:
            paths.append(landlock.open_path(private_root.SCRATCH, writable=True, scratch=True))
        alone = privileges.drop([*self._base_names, *readable], self.own_user, self.machine, self.libc)
        processes = 1 if alone else None
        if self.tier == "strong":
            _check_readable(readable)
            processes = 2 if self.own_user or namespaces.counts_processes() else None
        self.tie_to_parent(parent)  # after the change of user, which clears it
        _close_all_but({0, 1, 2, *keep_fds, *(path.fd for path in paths)})
        _limit(limits, self._mapped or _mapped_bytes(), processes=processes)
        _set(resource.RLIMIT_FSIZE, limits.scratch_bytes)
        landlock.restrict(paths, self.libc)
        for path in paths:
            os.close(path.fd)
        program = seccomp.assemble(self.machine, os.getpid(), scratch=limits.scratch_bytes > 0, receives_on=receives_on)
        seccomp.install(program, self.libc)


def _library_paths(granted: Sequence[str]) -> list[str]:
    """Shared libraries in use: whole system directories (a later import needs its neighbours), elsewhere single files.

    Those beneath `granted` are left out: they can be read already.
    """
    found: set[str] = set()
    with Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            name = line.rstrip("\n")[73:].strip() if len(line) > 73 else ""
            if name.startswith("/") and ".so" in name:
                real = Path(name).resolve()
                if not any(real.is_relative_to(folder) for folder in granted):
                    in_system = str(real).startswith(_SYSTEM_LIBRARIES)
                    found.add(str(real.parent if in_system else real))
    return sorted(found)


def _open_all(names: Iterable[str], *, required: bool = False) -> Iterable[landlock.OpenPath]:
    for name in names:
        try:
            yield landlock.open_path(name)
        except FileNotFoundError:
            if required:
                raise
            # An optional path (time zones, the loader's cache) that this system does not have cannot be granted.


def _close_all_but(keep: set[int]) -> None:
    """Close every descriptor but these, the gaps between them first."""
    start = 0
    for fd in sorted(keep):
        if start < fd:  # CPython hands close_range an empty range as "everything"
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 2**20)


def _check_readable(names: Iterable[str]) -> None:
    """A strong host of root's cannot keep a capability for what root alone may read: it counts for its own files only."""
    for name in names:
        if not os.access(name, os.R_OK | (os.X_OK if Path(name).is_dir() else 0)):
            raise PermissionError(
                errno.EACCES, "the host's own user may not read it (bundles are unpacked as 0755)", name
            )


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()


def _limit(limits: Limits, mapped: int, *, processes: int | None) -> None:
    """processes: those that count towards the limit on threads besides the threads; None = others' count too."""
    stacks = limits.pool_threads * _THREAD_STACK_BYTES  # 8 MiB each of address space, hardly any of it touched
    _set(resource.RLIMIT_AS, mapped + limits.memory_bytes + stacks)
    _set(resource.RLIMIT_NOFILE, limits.open_files)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MEMLOCK, 0)
    _set(resource.RLIMIT_MSGQUEUE, 0)
    if processes is not None:
        # Counted per user (in its namespace): exact for a user of one's own, meaningless (and harmful) when shared.
        # Others' threads are bounded by their stacks' address space.
        _set(resource.RLIMIT_NPROC, processes + limits.threads)
    if limits.cpu_seconds is not None:
        # SIGXCPU at the limit says what happened; SIGKILL a second later cannot be ignored.
        _set(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1)


def _set(which: int, soft: int, hard: int | None = None) -> None:
    """Never raises a limit: one that is already lower stays."""
    _, ceiling = resource.getrlimit(which)
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(soft if hard is None else hard, ceiling)
    resource.setrlimit(which, (soft, soft if hard is None else hard))
