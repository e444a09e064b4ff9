"""A process's scratch directory is its own, goes with it, and is swept by the next when it was killed."""

import subprocess
import sys
from pathlib import Path

from hotswap.runtime.scratch import ProcessScratch

HOLDER = """
import sys, time
from pathlib import Path
from hotswap.runtime.scratch import ProcessScratch
held = ProcessScratch(Path(sys.argv[1]))
(held.path / "trial-1").mkdir()
print(held.path, flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        theirs = Path(holder.stdout.readline().strip())
        first = ProcessScratch(tmp_path)
        assert first.swept == 0
        assert (theirs / "trial-1").is_dir()
        assert first.path != theirs
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    second = ProcessScratch(tmp_path)
    assert second.swept == 1
    assert not theirs.exists()
    assert first.path.is_dir()
    for scratch in (first, second, second):
        scratch.close()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
