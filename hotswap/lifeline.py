"""A process's ties to the one that started it: it dies with its parent, and says once when it serves.

Called first thing by every entry point (api, worker, hotswap.node). hotswap.embedded sets the variables read here;
without them (systemd, Kubernetes) both functions do nothing. Standard library only: hotswap.config imports this.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

DIE_WITH_PARENT = "HOTSWAP_DIE_WITH_PARENT"
"""`1` = be killed when the parent ends."""

PARENT_PID = "HOTSWAP_PARENT_PID"
"""The parent's process id: tells a parent that died before we could tie ourselves to it from one that is pid 1."""

READY_FILE = "HOTSWAP_READY_FILE"
"""Path of the file that announce_ready writes. Never a secret's file, although the name ends in _FILE."""

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.5


def die_with_parent(death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send `death_signal` when the parent ends; nothing unless HOTSWAP_DIE_WITH_PARENT=1.

    Call it from the main thread, before anything else: on Linux the tie is to the parent's THREAD that started us,
    so a parent must start children from a thread that lives as long as itself. Elsewhere a thread watches instead
    (up to 0.5 s late). Exits the process with code 1 when the parent is already gone.
    """
    if os.environ.get(DIE_WITH_PARENT) != "1":
        return
    expected = int(os.environ.get(PARENT_PID, "0"))
    if sys.platform == "linux":
        tie_to_parent(death_signal)
        if expected and os.getppid() != expected:
            sys.stderr.write(f"parent process {expected} is gone; not starting\n")
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(expected or os.getppid(), death_signal), daemon=True).start()


def tie_to_parent(death_signal: signal.Signals) -> None:
    """prctl(PR_SET_PDEATHSIG). Raises OSError where the kernel refuses. Linux only; survives exec, not a change of user."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")


def announce_ready() -> None:
    """Tell the supervisor that this process serves: writes its pid into HOTSWAP_READY_FILE, when that is set."""
    target = os.environ.get(READY_FILE)
    if not target:
        return
    whole = Path(f"{target}.{os.getpid()}")
    whole.write_text(f"{os.getpid()}\n", encoding="ascii")
    whole.replace(target)


def _watch(parent: int, death_signal: signal.Signals) -> None:
    """The fallback without prctl: there is nothing to await, so look every half second."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), death_signal)
