"""`python -m hotswap.healthcheck [url ...]`: exit code 0 when this container's process serves, 1 with the reason when not.

For container engines, whose images hold no curl. Without an url it looks for the file that every part writes once it
serves (hotswap.lifeline); each url must answer 2xx besides. Standard library only, so that it costs little every 10 s.
"""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from hotswap.lifeline import READY_FILE

TIMEOUT_SECONDS = 3.0


def fault_of(urls: Sequence[str], proc: Path = Path("/proc")) -> str:
    """Why the container is not healthy, in words; "" when it is."""
    marker = os.environ.get(READY_FILE)
    if not marker and not urls:
        return f"{READY_FILE} is not set and no url is given: nothing to check"
    if marker and (fault := _marker_fault(Path(marker), proc)):
        return fault
    for url in urls:
        if not url.startswith(("http://", "https://")):
            return f"{url} is not an http(s) url"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS):  # noqa: S310 - http(s), checked above
                pass
        except (urllib.error.URLError, TimeoutError, OSError) as fault:
            return f"{url}: {fault}"
    return ""


def _marker_fault(marker: Path, proc: Path) -> str:
    try:
        written = marker.stat().st_mtime
    except OSError:
        return f"it does not serve yet: {marker} is not there"
    # A container that restarted in place (Kubernetes) finds the file of its life before. 2 s: /proc counts in whole
    # seconds since boot, and no part serves that soon.
    if written < _started(proc) - 2:
        return f"it does not serve yet: {marker} is from before this start"
    return ""


def _started(proc: Path) -> float:
    """When process 1, the container's own, began (Unix seconds). 0.0 where there is no /proc."""
    try:
        ticks = (proc / "1" / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        boot = next(line for line in (proc / "stat").read_text(encoding="utf-8").splitlines() if line[:6] == "btime ")
    except OSError:
        return 0.0
    return float(boot.split()[1]) + int(ticks) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    said = fault_of(sys.argv[1:])
    if said:
        print(said, file=sys.stderr)
    sys.exit(1 if said else 0)
