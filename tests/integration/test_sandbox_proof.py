"""The sandbox refuses to start where it cannot hold, naming the layer; and it holds for every kind of user."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.siege import left_open_by_standard

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534

# Run in a process of its own that first withholds one kernel feature from itself, as a container would.
_WITHHOLD = """
import asyncio, ctypes, struct, sys
sys.path[:0] = [sys.argv[1], *sys.argv[4:]]
from hotswap.runtime.launcher import ZygoteLauncher
from hotswap.runtime import seccomp
from hotswap.runtime.libc import Libc
from hotswap.domain.errors import SandboxUnavailable

tier = sys.argv[3]
number, argument, value, error = (int(word) for word in sys.argv[2].split(","))
libc = Libc()
assert libc.prctl(38, 1) == 0
lines = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16 + 8 * max(argument, 0))]
lines += [(0x15, 0, 1, value) if argument >= 0 else (0x15, 0, 0, 0), (0x06, 0, 0, 0x50000 + error), (0x06, 0, 0, 0x7FFF0000)]
seccomp.install(b"".join(struct.pack("=HBBI", *line) for line in lines), libc)

async def main():
    launcher = ZygoteLauncher(tier, 2048)
    try:
        await launcher.start()
        print("started")
    except SandboxUnavailable as fault:
        print(fault.message)
    finally:
        await launcher.close()

asyncio.run(main())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers below are x86_64's")
@pytest.mark.parametrize(
    ("withheld", "named"),
    [
        ("444,-1,0,38", "Landlock is not there (ENOSYS)"),
        ("444,-1,0,95", "Landlock is not there (ENOTSUP)"),
        ("445,-1,0,1", "Landlock refused a rule (EPERM)"),
        ("446,-1,0,1", "Landlock could not be entered (EPERM)"),
        ("157,0,22,22", "seccomp: the kernel refused the filter (EINVAL)"),
        ("157,0,38,22", "PR_SET_NO_NEW_PRIVS"),
        ("157,0,1,22", "PR_SET_PDEATHSIG"),
        ("126,-1,0,1", "capabilities could not be dropped (EPERM)"),
    ],
)
@pytest.mark.parametrize("tier", ["standard", "strong"])
def test_a_missing_layer_is_refused_by_name(tier: str, withheld: str, named: str) -> None:
    said = _run([sys.executable, "-c", _WITHHOLD, str(ROOT), withheld, tier])
    assert named in said
    assert "started" not in said


_ALL_NAMESPACES = 0x7C020011  # with SIGCHLD, as clone is called


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers below are x86_64's")
@pytest.mark.parametrize(
    ("withheld", "named"),
    [
        (f"56,0,{_ALL_NAMESPACES},1", "the user namespace cannot be made (EPERM)"),
        (f"56,0,{_ALL_NAMESPACES},28", "the user namespace cannot be made (ENOSPC)"),
        ("428,-1,0,1", "the mount namespace does not hold: open_tree of"),
        ("165,-1,0,1", "the mount namespace does not hold: making its mounts private was refused (EPERM)"),
        ("429,-1,0,1", "the mount namespace does not hold: binding"),
        ("442,-1,0,38", "the mount namespace does not hold: making the root read-only was refused (ENOSYS)"),
        ("155,-1,0,1", "the mount namespace does not hold: pivot_root"),
        ("166,-1,0,1", "the mount namespace does not hold: letting go of the old root"),
        ("170,-1,0,1", "the UTS namespace does not hold"),
    ],
)
def test_strong_refuses_where_its_namespaces_cannot_be(withheld: str, named: str) -> None:
    said = _run([sys.executable, "-c", _WITHHOLD, str(ROOT), withheld, "strong"])
    assert named in said
    assert "started" not in said


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can be root without its powers"
)
def test_strong_refuses_a_root_that_may_not_change_its_user() -> None:
    """As in a container that drops every capability and still runs as root."""
    command = ["setpriv", "--bounding-set=-setuid,-setgid,-setfcap", sys.executable]
    said = _run([*command, "-c", _WITHHOLD, str(ROOT), "9999,-1,0,1", "strong"])
    assert "the user namespace does not hold: its id map was refused" in said
    assert "CAP_SETUID" in said


_HOLLOW = """
import sys
sys.path[:0] = [sys.argv[1], *sys.argv[2:]]
from hotswap.runtime import selftest
from hotswap.runtime.sandbox import Sandbox
from hotswap.domain.errors import SandboxUnavailable

class Hollow(Sandbox):
    def enter(self, *arguments, **more):
        pass

class Dead(Sandbox):
    def enter(self, *arguments, **more):
        raise RuntimeError

for kind in (Hollow, Dead, Sandbox):
    try:
        selftest.prove(kind("standard"))
        print(kind.__name__, "proven")
    except SandboxUnavailable as fault:
        print(kind.__name__, fault.message)
"""


def test_the_self_test_catches_a_sandbox_that_claims_more_than_it_does() -> None:
    hollow, *_ = said = _run([sys.executable, "-c", _HOLLOW, str(ROOT)]).splitlines()
    assert hollow.startswith("Hollow Landlock and seccomp does not hold")
    for escape in ("read a file", "write a file", "open a socket", "fork", "signal its parent", "execute a program"):
        assert escape in hollow
    assert [line for line in said if line.startswith("Dead Landlock and seccomp")]
    assert said[-1] == "Sandbox proven"


_ONE_LESS = """
import sys
sys.path[:0] = [sys.argv[1], *sys.argv[2:]]
from hotswap.runtime import namespaces, private_root, selftest
from hotswap.runtime.sandbox import Sandbox
from hotswap.domain.errors import SandboxUnavailable

def prove(what):
    try:
        selftest.prove(Sandbox("strong"))
        print(what, "proven")
    except SandboxUnavailable as fault:
        print(what, "-", fault.message)

every = namespaces._ALL
for kind in ("pid", "network", "IPC", "UTS"):  # never the mount namespace: what follows would be done to the machine's own
    namespaces._ALL = every & ~namespaces._OTHERS[kind]
    prove(kind)
namespaces._ALL = every & ~namespaces._NEW_USER
prove("user")
namespaces._ALL = every
private_root.enter, entered = lambda *arguments: None, private_root.enter
prove("root")
private_root.enter = entered
prove("whole")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave the user namespace out")
def test_the_self_test_misses_each_namespace_that_is_not_there() -> None:
    said = dict(line.split(" ", 1) for line in _run([sys.executable, "-c", _ONE_LESS, str(ROOT)]).splitlines())
    assert "the pid namespace does not hold here: the self-test's canary could see another process" in said["pid"]
    assert "the network namespace" in said["network"]
    assert "find a network that is up" in said["network"]
    assert "the IPC namespace" in said["IPC"]
    assert "the UTS namespace" in said["UTS"]
    assert "the user namespace" in said["user"]
    assert "the mount namespace" in said["root"]
    assert "see a file outside" in said["root"]
    assert said["whole"] == "proven"


@pytest.mark.parametrize("tier", ["standard", "strong"])
def test_it_holds_for_an_ordinary_user_without_capabilities(tier: str) -> None:
    """As who we are, or as nobody when we are root."""
    command, packages = [sys.executable], []
    if os.geteuid() == 0:
        interpreter = _interpreter_for_nobody()
        if interpreter is None:
            pytest.skip("nobody may run no interpreter of our version here, or may not read the project")
        setpriv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all"]
        command = [*setpriv, interpreter]
        packages = [path for path in sys.path if path.endswith("site-packages")]
    start = "import runpy, sys; sys.path[:0] = sys.argv[2:]; runpy.run_module('siege', run_name='__main__')"
    siege = json.loads(_run([*command, "-c", start, tier, str(Path(__file__).parent), str(ROOT), *packages]))
    assert siege["escaped"] == []
    assert siege["glimpsed"] == (left_open_by_standard() if tier == "standard" else [])
    assert siege["accidents"] == {}
    assert len(siege["tried"]) > 120
    assert siege["unharmed"]
    assert siege["allowed"]["sqlite"] == 1
    assert siege["host_uid"] == (NOBODY if os.geteuid() == 0 else os.geteuid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give away")
def test_a_host_of_root_is_a_user_of_its_own_without_privileges(tmp_path: Path) -> None:
    """Where its bundle cannot be read by others, it keeps CAP_DAC_READ_SEARCH alone: Landlock decides what that reads."""
    script = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from tests.integration.host_lab import launched, spec_of

async def main():
    for bundle in sys.argv[3:]:
        async with launched(spec_of("worker", bundle_dir=Path(bundle))) as host:
            status = Path(f"/proc/{host.pid}/status").read_text().splitlines()
            print([line.split()[1] for line in status if line.startswith(("Uid", "CapPrm", "CapEff", "NoNewPrivs", "Seccomp:"))])

asyncio.run(main())
"""
    lab = str(Path(__file__).parent)
    closed = tmp_path / "closed" / "bundle"
    shutil.copytree(ROOT / "tests" / "plugins" / "worker", closed)
    closed.parent.chmod(0o700)
    (line,) = _run([sys.executable, "-c", script, lab, str(ROOT), str(closed)]).splitlines()
    uid, permitted, effective, no_new_privileges, mode = json.loads(line.replace("'", '"'))
    assert int(uid) > 0x70000000
    assert int(permitted, 16) == int(effective, 16) == 1 << 2
    assert (no_new_privileges, mode) == ("1", "2")


def _interpreter_for_nobody() -> str | None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", candidate]
        # It must also run a second time: setpriv still has root's rights when it executes the first.
        check = (
            "import subprocess, sys; sys.path[:0] = sys.argv[1:]; import hotswap, pydantic_core;"
            "subprocess.run([sys.executable, '-c', ''], check=True); print('yes')"
        )
        packages = [path for path in sys.path if path.endswith("site-packages")]
        if shutil.which("setpriv") is None or not Path(candidate).exists():
            continue
        done = subprocess.run(
            [*command, "-c", check, str(ROOT), *packages], capture_output=True, text=True, check=False, cwd="/"
        )
        if done.stdout == "yes\n":
            return candidate
    return None


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout
