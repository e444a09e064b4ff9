"""A process's own scratch directory, and the end of those whose process was killed. Used by worker.py for trials.

A directory is locked (flock) by the process it belongs to; the kernel lets go when that ends, however it ends, so a
directory that nobody holds is a leftover, and one that is held is never touched. Blocks: call it in a thread.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_LOCK = ".lock"


class ProcessScratch:
    """`path` is fresh and this process's alone until `close`; making one sweeps what dead processes left in `parent`."""

    def __init__(self, parent: Path) -> None:
        """Raises OSError when `parent` cannot be made or written."""
        parent.mkdir(parents=True, exist_ok=True)
        with _turn(parent):
            self.swept = sum(_swept(place) for place in parent.iterdir() if place.is_dir())
            self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent.resolve()))
            self._held = (self.path / _LOCK).open("a")
            fcntl.flock(self._held, fcntl.LOCK_EX)
        if self.swept:
            logger.info("removed %d scratch directories in %s that killed processes left", self.swept, parent)

    def close(self) -> None:
        """Remove it. Repeats are fine."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._held.close()


@contextmanager
def _turn(parent: Path) -> Iterator[None]:
    """Who makes a directory and has not locked it yet must not be swept meanwhile."""
    with (parent / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _swept(place: Path) -> bool:
    try:
        with (place / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place)
    except BlockingIOError:
        return False
    except OSError as fault:
        logger.warning("the leftover %s cannot be removed: %s; remove it by hand", place, fault)
        return False
    return True
