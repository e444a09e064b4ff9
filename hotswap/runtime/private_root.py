"""The root directory of a `strong` host: a private tmpfs with read-only binds of what it may read, and nothing else.

`Plan` is pure but for looking at links; the rest are system calls made by hotswap.runtime.namespaces in the forked child,
in a mount namespace of its own. Every path keeps its name inside, so that an import path needs no translation.
Needs Linux 5.12 (mount_setattr), which the Landlock of every tier needs anyway.
"""

import errno
import os
import stat
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime.libc import Libc, errno_name

SCRATCH = "/hotswap-scratch"
"""Where a strong host finds its scratch directory; a name that no bundle's path begins with."""

_MOUNT = {"x86_64": 165, "aarch64": 40}
_UMOUNT = {"x86_64": 166, "aarch64": 39}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_MOUNT_SETATTR = 442

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
_MNT_DETACH = 2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_FROM_EMPTY_PATH = 0x4
_ATTR_RDONLY, _ATTR_NOSUID = 0x1, 0x2

_STAGE = "/proc"
"""Mounted over while the root is built: it is there wherever id maps can be written, and nothing inside needs it later."""
_ROOT_INODES = 4096
_MAX_LINKS = 40
_FILES_PER_MIB = 64
"""Inodes of a scratch directory: each costs the kernel about 1 KiB besides its data."""


@dataclass(slots=True)
class Plan:
    """What the root will hold: `binds` (real path to whether it is a directory) and the `links` that lead there."""

    binds: dict[str, bool] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def with_paths(self, names: Iterable[str], *, required: bool = False) -> Self:
        """A plan that shows these too, links on the way included.

        Raises FileNotFoundError for one that is not there and `required`; others are left out.
        """
        links = dict(self.links)
        found: dict[str, bool] = {}
        for name in names:
            try:
                real = _follow(name, links)
                found[real] = stat.S_ISDIR(Path(real).stat().st_mode)
            except FileNotFoundError:
                if required:
                    raise
        binds = dict(self.binds)
        for path, is_dir in sorted(found.items()):
            if not _beneath(path, binds):
                binds = {old: kind for old, kind in binds.items() if not old.startswith(f"{path}/")} | {path: is_dir}
        return type(self)(binds, {name: target for name, target in links.items() if not _beneath(name, binds)})

    def with_links(self, names: Iterable[str]) -> Self:
        """A plan with these names, where they are links, but not what they lead to."""
        links = dict(self.links)
        for name in names:
            _follow(name, links)
        return type(self)(dict(self.binds), links)

    def directories(self) -> list[str]:
        """Every directory to be made, parents first: the ways to all binds and links, and the binds that are directories."""
        made: dict[str, None] = {}
        for path in sorted({*self.binds, *self.links}):
            parts = path.split("/")
            for end in range(2, len(parts)):
                made["/".join(parts[:end])] = None
            if self.binds.get(path):
                made[path] = None
        return list(made)


def _follow(name: str, links: dict[str, str]) -> str:
    """The real path of `name`, with every link on the way noted."""
    rest, at, hops = deque(name.split("/")), "", 0
    while rest:
        part = rest.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            at = at.rpartition("/")[0]
            continue
        here = f"{at}/{part}"
        if not Path(here).is_symlink():
            at = here
            continue
        target = links[here] = str(Path(here).readlink())
        hops += 1
        if hops > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        if target.startswith("/"):
            at = ""
        rest.extendleft(reversed(target.split("/")))
    return at or "/"


def _beneath(path: str, binds: dict[str, bool]) -> bool:
    """Whether `path` is shown by one of these already."""
    parts = path.split("/")
    return any("/".join(parts[:end]) in binds for end in range(2, len(parts) + 1))


def clone_trees(plan: Plan, libc: Libc) -> dict[str, int]:
    """A detached copy of each bind, as a descriptor. Raises SandboxUnavailable when that is refused, OSError for a path."""
    trees: dict[str, int] = {}
    try:
        for path in plan.binds:
            tree = libc.syscall(
                _OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
            )
            if tree < 0:
                fault = errno_name()
                if fault in ("EACCES", "ENOENT"):
                    raise OSError(getattr(errno, fault), f"the node's user cannot reach it ({fault})", path)
                raise _refused(f"open_tree of {path}", fault)
            trees[path] = tree
    except BaseException:
        close_trees(trees)
        raise
    return trees


def may_clone(libc: Libc) -> bool:
    """Whether this process may do what `clone_trees` does, in its own mount namespace."""
    tree = libc.syscall(_OPEN_TREE, _AT_FDCWD, b"/", _OPEN_TREE_CLONE | os.O_CLOEXEC)
    if tree >= 0:
        os.close(tree)
    return tree >= 0


def close_trees(trees: dict[str, int]) -> None:
    for tree in trees.values():
        os.close(tree)
    trees.clear()


def enter(plan: Plan, trees: dict[str, int], scratch_bytes: int, machine: str, libc: Libc) -> None:
    """Make the plan's root and move this process, and every other of its mount namespace, into it for good.

    Takes over `trees`. scratch_bytes: 0 = no scratch directory. Raises SandboxUnavailable naming the step.
    """

    def mount(kind: bytes | None, target: bytes, flags: int, options: bytes | None, what: str) -> None:
        if libc.syscall(_MOUNT[machine], kind, target, kind, flags, options) != 0:
            raise _refused(what)

    mount(None, b"/", _MS_REC | _MS_PRIVATE, None, "making its mounts private")
    # A tmpfs of directories, links and empty files takes no blocks; the size is there because 0 would mean no limit.
    mount(
        b"tmpfs",
        _STAGE.encode(),
        _MS_NOSUID | _MS_NODEV,
        f"size=64k,nr_inodes={_ROOT_INODES},mode=755".encode(),
        "mounting a tmpfs",
    )
    os.chdir(_STAGE)
    os.umask(0o022)
    for directory in plan.directories():
        Path(directory[1:]).mkdir()
    for name, target in plan.links.items():
        Path(name[1:]).symlink_to(target)
    for path, tree in trees.items():
        if not plan.binds[path]:
            os.close(os.open(path[1:], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        place = os.fsencode(path[1:])
        if libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, place, _MOVE_FROM_EMPTY_PATH) != 0:
            raise _refused(f"binding {path}")
    if scratch_bytes:
        Path(SCRATCH[1:]).mkdir()
    attributes = struct.pack("=4Q", _ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0)
    if libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b".", _AT_RECURSIVE, attributes, len(attributes)) != 0:
        raise _refused("making the root read-only")
    if scratch_bytes:
        inodes = max(64, scratch_bytes * _FILES_PER_MIB // 2**20)
        options = f"size={scratch_bytes},nr_inodes={inodes},mode=700".encode()
        mount(
            b"tmpfs", SCRATCH[1:].encode(), _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options, "mounting the scratch tmpfs"
        )
    # The new root goes on top of the old one at the same place, which then lies beneath and is let go.
    if libc.syscall(_PIVOT_ROOT[machine], b".", b".") != 0:
        raise _refused("pivot_root")
    if libc.syscall(_UMOUNT[machine], b".", _MNT_DETACH) != 0:
        raise _refused("letting go of the old root")
    os.chdir("/")
    close_trees(trees)


def _refused(step: str, fault: str = "") -> SandboxUnavailable:
    return SandboxUnavailable(
        f"the mount namespace does not hold: {step} was refused ({fault or errno_name()}); tier strong needs a kernel from "
        "5.12 on and a container that allows mount, open_tree, move_mount, mount_setattr and pivot_root in a user "
        "namespace (AppArmor's kernel.apparmor_restrict_unprivileged_userns=0 where there is one)"
    )
