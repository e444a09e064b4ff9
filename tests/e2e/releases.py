"""Two releases of HotSwap for the upgrade test: this tree, and the one before the last change of what a rollout runs on.

The one before comes out of git. Where it cannot be had (a shallow clone, an archive without history) this tree with other
workflow code stands in: then code meets code of another build, but no commit is crossed; `Release.crosses` says which.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.e2e.worker_builds import SOURCES, WorkerProcess, changed_sources

REPLAYED = ("workflows", "activities", "hotswap/domain", "hotswap/ports")
SHIPPED = ("workflows", "activities", "hotswap", "hotswap_plugin", "api", "migrations", "worker.py")


@dataclass(frozen=True)
class Release:
    """`crosses`: the commit between it and this tree; "" = none, it is this tree with other workflow code."""

    sources: Path
    crosses: str = ""


def release_before(into: Path) -> Release:
    """Blocks: a second."""
    change = _git("log", "-1", "--format=%H", "--", *REPLAYED)
    archive = _git("archive", f"{change.decode().strip()}^", *SHIPPED) if change else None
    if not archive:
        changed_sources(into)
        for package in ("api", "migrations"):
            shutil.copytree(SOURCES / package, into / package, ignore=shutil.ignore_patterns("__pycache__"))
        return Release(into)
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(into, filter="data")
    return Release(into, change.decode().strip() if change else "")


def _git(*arguments: str) -> bytes | None:
    """None: no git, no repository, or it does not have that."""
    try:
        done = subprocess.run(["git", *arguments], cwd=SOURCES, capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


async def settings_known_to(release: Release, variables: dict[str, str]) -> dict[str, str]:
    """Without those that came later: a release is configured by its own page of settings."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", "from hotswap.config import load_settings; load_settings()"),
        env={**os.environ, **variables, "PYTHONPATH": str(release.sources)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    unknown = set(re.findall(r"(HOTSWAP_\w+) is not a known setting", said.decode()))
    return {name: value for name, value in variables.items() if name not in unknown}


class NodeProcess(WorkerProcess):
    """`python -m hotswap.node` of a release."""

    module = "hotswap.node"


class ApiProcess(WorkerProcess):
    """`python -m api` of a release."""

    module = "api"

    @property
    def url(self) -> str:
        found = re.search(r"the api serves (http://[\w.:]+)", self.log())
        assert found is not None, self.log()
        return found[1]
