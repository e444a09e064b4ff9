"""Modules that an operator has the zygote import: hosts have them, a bundle's own copy wins, a wrong name says so."""

import subprocess
import sys
from pathlib import Path

import pytest

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime import preload
from hotswap.runtime.launcher import ZygoteLauncher
from tests.integration.host_lab import ask, spec_of_source

SOURCE = """
import sys

ALREADY = [name for name in ("semver", "sqlite3") if name in sys.modules]


class Plugin:
    def look(self, parameters, context):
        import semver
        return {"already": ALREADY, "semver": semver.__file__, "path": sys.path}
"""


async def test_hosts_find_the_modules_imported_and_no_more_to_import_from(tmp_path: Path) -> None:
    launcher = ZygoteLauncher("standard", 512, preload=["semver", "sqlite3"])
    try:
        seen = await ask(await launcher.launch(spec_of_source(tmp_path / "plain", SOURCE)), "look")
        assert seen["already"] == ["semver", "sqlite3"]
        assert not [entry for entry in seen["path"] if "site-packages" in entry]
        own = spec_of_source(tmp_path / "own", SOURCE)
        (own.bundle_dir / "vendor" / "semver").mkdir(parents=True)
        (own.bundle_dir / "vendor" / "semver" / "__init__.py").write_text("", encoding="utf-8")
        seen = await ask(await launcher.launch(own), "look")
        assert seen["already"] == ["sqlite3"]
        assert seen["semver"] == str(own.bundle_dir / "vendor" / "semver" / "__init__.py")
    finally:
        await launcher.close()


async def test_a_module_that_cannot_be_imported_is_named_with_its_setting() -> None:
    launcher = ZygoteLauncher("standard", 512, preload=["json", "semver.nothing"])
    try:
        with pytest.raises(SandboxUnavailable, match=r"HOTSWAP_SANDBOX__PRELOAD: 'semver\.nothing' cannot be imported"):
            await launcher.start()
    finally:
        await launcher.close()


def test_what_is_not_installed_is_found_without_importing_anything() -> None:
    assert preload.missing(["json", "semver.version", "jsonn", "semverr.version"]) == ["jsonn", "semverr.version"]


def test_a_module_that_starts_threads_is_refused(tmp_path: Path) -> None:
    (tmp_path / "starter.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n", encoding="utf-8"
    )
    code = f"from hotswap.runtime.preload import import_all; import_all(['starter'], [{str(tmp_path)!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "'starter' starts threads when it is imported" in done.stderr
