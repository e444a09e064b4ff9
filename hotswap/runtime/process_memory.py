"""What the kernel tells of another process's memory, by /proc. Used by hotswap.runtime.handle alone."""

from pathlib import Path


def memory(pid: int, field: str) -> int:
    """Bytes from /proc/<pid>/status; 0 when there is no such process."""
    return int(status(pid, field) or 0) * 1024


def status(pid: int, field: str) -> str:
    """One value of /proc/<pid>/status, "" when there is no such process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return ""
    return next((line.split()[1] for line in lines if line.startswith(field)), "")


def own_memory(pid: int) -> int:
    """Private bytes from /proc/<pid>/smaps_rollup; 0 when there is no such process or it may not be looked into."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii", "replace")
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
