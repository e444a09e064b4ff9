"""Finds the Chromium that browser tests drive. No package ships one that runs offline, so it comes from the system.

`make browser` installs it. Without one the tests marked `browser` are left out, and pytest's summary says so (tests.conftest).
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

SETTING = "HOTSWAP_TEST_CHROMIUM"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")

FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""A browser that asks nobody but the page's own server."""

LEFT_OUT = (
    "browser tests were left out: there is no Chromium. `make browser` installs one (Debian or Ubuntu, as root), "
    f"or name yours: {SETTING}=/path/to/chromium"
)


def find_chromium() -> str | None:
    """Path of the browser: the setting, else the first on PATH."""
    if given := os.environ.get(SETTING):
        return given
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def asked_for(arguments: Iterable[str]) -> bool:
    """Whether browser tests are among what pytest was told to run."""
    room = Path(__file__).parent.resolve()
    paths = [Path(argument.partition("::")[0]).resolve() for argument in arguments]
    return any(room.is_relative_to(path) or path.is_relative_to(room) for path in paths)
