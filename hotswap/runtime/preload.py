"""Modules that an operator has the zygote import once, so that every host finds them imported and shares their memory.

HOTSWAP_SANDBOX__PRELOAD names them (docs/hosts.md). Neighbours: hotswap.runtime.zygote calls `import_all` before its hosts
exist, hotswap.runtime.host calls `give_way` in each, hotswap.runtime.zygote_link passes the list on. Standard library only.
"""

import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime.protocol import printable

SETTING = "HOTSWAP_SANDBOX__PRELOAD"
_REMEDY = f"correct its name, install it beside HotSwap, or take it off {SETTING}"

_installed: set[str] = set()
"""Top-level names imported from where packages are installed: in the zygote and in every host."""


def missing(names: Iterable[str]) -> list[str]:
    """The names whose top-level module is not to be found, without importing anything. For a check of the settings."""
    return [name for name in names if importlib.util.find_spec(name.partition(".")[0]) is None]


def package_folders() -> list[str]:
    """Where the calling process finds installed packages; the zygote itself starts without any."""
    return sorted({sysconfig.get_path(kind) for kind in ("purelib", "platlib")})


def import_all(names: Iterable[str], folders: Iterable[str]) -> None:
    """Import them, looking in `folders` too, which are not looked into afterwards.

    Raises SandboxUnavailable naming the module: it cannot be imported, or it started a thread, which no fork takes along.
    """
    before, path = set(sys.modules), list(sys.path)
    sys.path += folders
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as fault:  # noqa: BLE001 - a module may raise anything; the operator is told which did
            why = printable(f"{type(fault).__name__}: {fault}")[:300]
            raise SandboxUnavailable(f"{SETTING}: '{name}' cannot be imported ({why}); {_REMEDY}") from None
        if sum(1 for _ in Path("/proc/self/task").iterdir()) > 1:
            raise SandboxUnavailable(
                f"{SETTING}: '{name}' starts threads when it is imported, which hosts would not have; take it off the list"
            )
    sys.path[:] = path
    _installed.update({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
    importlib.invalidate_caches()


def give_way(folders: Sequence[str]) -> None:
    """In a host: forget what was preloaded of every package that the bundle brings itself. Its own copy is what it meant."""
    for top in sorted(_installed):
        if any((Path(folder) / top).exists() or (Path(folder) / f"{top}.py").exists() for folder in folders):
            for name in [name for name in sys.modules if name.partition(".")[0] == top]:
                del sys.modules[name]
