"""The stack runs as root and as an ordinary user; PostgreSQL never runs as root; no folder has to be open to others."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from hotswap.embedded.parts import DROP_ROOT, LAUNCHER
from tests.stack.supervised import OwnStack, gone

NOBODY = 65534

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to drop root")


@only_root
@pytest.mark.parametrize("how", ["namespace", "nobody"])
def test_root_runs_postgres_as_somebody_else_even_below_a_folder_that_only_root_may_enter(
    tmp_path: Path, how: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with OwnStack(closed / "data", variables={DROP_ROOT: how}) as stack:
        url = stack.info()["environment"]["HOTSWAP_POSTGRES__URL"]
        seen = Path("/proc", str(stack.pid("postgres")), "status").read_text(encoding="ascii")
        uid = next(line.split()[1] for line in seen.splitlines() if line.startswith("Uid:"))
        assert uid == (str(NOBODY) if how == "nobody" else "0")  # in the namespace: root's files, another name
        stack.kill("postgres")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert stack.end(signal.SIGKILL) == -signal.SIGKILL
        gone(closed / "data")


@only_root
def test_a_data_folder_survives_a_change_of_how_root_is_dropped(tmp_path: Path) -> None:
    for how in ("nobody", "namespace", "auto"):
        with OwnStack(tmp_path / "data", variables={DROP_ROOT: how}) as stack:
            with psycopg.connect(stack.info()["environment"]["HOTSWAP_POSTGRES__URL"]) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
            assert stack.end(signal.SIGTERM) == 0


def test_an_ordinary_user_runs_it(tmp_path: Path) -> None:
    """As who we are; as root: as nobody, or, where nobody may not run this interpreter, as another user's namespace."""
    data = tmp_path / "data"
    prefix: tuple[str, ...] = ()
    user = None
    if os.geteuid() == 0:
        if _nobody_can_run_us():
            user = NOBODY
            data = _folder_for_nobody()
        else:
            data.mkdir(mode=0o700)
            options = ("--parent", str(os.getpid()), "--death-signal", str(int(signal.SIGKILL)))
            prefix = (sys.executable, "-I", "-S", str(LAUNCHER), *options, "--unprivileged", str(data), "--")
    try:
        with OwnStack(data, prefix=prefix, user=user) as stack:
            with psycopg.connect(stack.info()["environment"]["HOTSWAP_POSTGRES__URL"]) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            stack.kill("postgres")
            assert stack.end(signal.SIGTERM) == 0
            gone(data)
    finally:
        if user is not None:
            shutil.rmtree(data)


def _nobody_can_run_us() -> bool:
    try:
        return subprocess.run([sys.executable, "-c", "import hotswap"], user=NOBODY, check=False).returncode == 0
    except PermissionError:
        return False


def _folder_for_nobody() -> Path:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="hotswap-nobody-"))
    os.chown(folder, NOBODY, NOBODY)
    return folder
