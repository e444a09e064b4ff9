"""Compiles an unpacked bundle's source to bytecode, in a child process with limits, so that a host's import is fast.

Measured (design section 6): importing without .pyc costs 41 ms where 3 ms would do. The source is a stranger's: a file
made to exhaust or crash the compiler must cost us this child and some milliseconds of import, never the node.
Neighbour: hotswap.runtime.bundle calls it before the bundle becomes visible.
"""

import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

_log = logging.getLogger(__name__)

COMPILE_TIMEOUT = timedelta(seconds=60)
"""Ten times the slowest real bundle tried (all of phonenumbers, 23 MB of tables: 5.5 s)."""

_MEMORY_BYTES = 2 * 1024**3

# unchecked-hash: valid whatever the source's time stamp, so also for a copied or read-only bundle; it is immutable anyway.
# -qq and the ignored result: a library may ship templates that are not Python. The import of such a file names its fault.
# Folding makes 4 KiB of `"ab"*2048`, so bytecode is bounded too: a file's and the whole's, in proportion to the source.
# Real libraries stay below 1.5 times their source. A file that would pass its bound imports from source; what was written
# of it is removed, as Python 3.11 takes a write cut short by the limit for a whole one.
_SCRIPT = """
import compileall, os, py_compile, resource, sys
from importlib.util import cache_from_source
os.umask(0o022)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
root = sys.argv[1]
sources = {os.path.join(at, name): 0 for at, _, names in os.walk(root) for name in sorted(names) if name.endswith(".py")}
sources = {path: os.path.getsize(path) for path in sources}
left = 2 * sum(sources.values()) + 16 * 2**20
for path, size in sources.items():
    bound = max(0, min(8 * size + 16384, left))
    resource.setrlimit(resource.RLIMIT_FSIZE, (bound, resource.RLIM_INFINITY))
    compileall.compile_file(
        path, stripdir=root, prependdir="", quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    made = cache_from_source(path)
    if os.path.exists(made):
        if os.path.getsize(made) >= bound:
            os.remove(made)
        else:
            left -= os.path.getsize(made)
"""


def compile_bundle(root: Path, timeout: timedelta = COMPILE_TIMEOUT) -> bool:
    """Write __pycache__ for every source file under `root` that compiles; True when the compiler got through all.

    False when it ran out of time or memory or died: logged, and not an error, as such modules still import from source
    (or fail there with a name). Writes nothing but __pycache__; the paths in tracebacks are relative to `root`.
    """
    seconds = max(1, round(timeout.total_seconds()))
    command = [sys.executable, "-I", "-S", "-c", _SCRIPT, str(root), str(seconds), str(_MEMORY_BYTES)]
    # Nothing of ours goes along but what the interpreter's own loader may need.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    try:
        done = subprocess.run(
            command,
            check=False,
            timeout=seconds,
            env=environment,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        _log.warning("compiling %s took more than %s s; the rest imports from source", root.name, seconds)
        return False
    if done.returncode:
        _log.warning("compiling %s ended with code %s; the rest imports from source", root.name, done.returncode)
    return done.returncode == 0
