"""`hotswap tenant` and `hotswap plugin health` against the real facade, served over HTTP on in-memory twins."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from hotswap.adapters.local_keys import LocalKeyProvider
from hotswap.cli.main import app
from hotswap.domain.lifecycle import VersionStatus
from tests.contract.factories import EPOCH
from tests.http.bundles import bundle
from tests.http.site import API, Site, make_site
from tests.http.test_api_health import Nodes

Run = Callable[..., tuple[int, str, str]]
SECRET = "s3cret-of-acme"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Site]]:
    made = make_site(tmp_path_factory.mktemp("site"), keys=LocalKeyProvider(lambda: [b"k" * 32]), nodes=Nodes())
    server = uvicorn.Server(uvicorn.Config(made.app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with httpx.Client(
        base_url=address, headers={"Authorization": "Bearer token-of-admin"}, trust_env=False, timeout=30
    ) as admin:
        assert admin.post(f"{API}/plugins", json={"name": "greeter"}).status_code == 201
        files = {"binary": ("plugin.zip", bundle("greeter", "1.0.0"), "application/zip")}
        made_version = admin.post(f"{API}/plugins/greeter/versions", data={"version": "1.0.0"}, files=files)
        assert made_version.status_code == 201, made_version.text
    yield address, made
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def run(
    served: tuple[str, Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run a command line as the Admin; exit code, what it said, and its hints and faults."""
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "no-stack"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOTSWAP_URL", served[0])
    monkeypatch.setenv("HOTSWAP_TOKEN", "token-of-admin")

    def once(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            app(args=list(arguments), prog_name="hotswap")
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return once


def test_a_tenant_is_looked_at_and_changed(run: Run, served: tuple[str, Site], tmp_path: Path) -> None:
    assert run("tenant", "plugins", "acme")[:2] == (0, "greeter\tenabled\t\t\t\n")
    assert run("tenant", "disable", "acme", "greeter", "-m", "contract ended")[0] == 0
    assert "disabled" in run("tenant", "plugins", "acme")[1]
    assert run("tenant", "enable", "acme", "greeter")[1] == "greeter is enabled for acme\n"
    code, _, fault = run("tenant", "pin", "acme", "greeter", "1.0.0")
    assert (code, "approve it first" in fault) == (1, True)
    known = served[1].records.committed.versions
    approved = {"status": VersionStatus.APPROVED, "approved_at": EPOCH}
    known["greeter", "1.0.0"] = known["greeter", "1.0.0"].model_copy(update=approved)
    assert run("tenant", "pin", "acme", "greeter", "1.0.0")[1] == "acme stays on greeter 1.0.0\n"
    code, _, fault = run("tenant", "pin", "acme", "greeter", "9.0.0")
    assert (code, "9.0.0" in fault) == (1, True)
    assert run("tenant", "unpin", "acme", "greeter")[0] == 0
    assert run("tenant", "quotas", "acme", "greeter", "--concurrent", "7")[1] == "acme has concurrent 7 for greeter\n"
    assert "concurrent 7" in run("tenant", "quotas", "acme", "greeter")[1]
    assert "defaults" in run("tenant", "quotas", "acme", "greeter", "--defaults")[1]
    file = tmp_path / "config.json"
    file.write_text('{"region": "eu"}')
    assert run("tenant", "config", "set", "acme", "greeter", str(file))[0] == 0
    assert run("tenant", "config", "set", "acme", "greeter", "-", typed='{"region": "us"}')[0] == 0
    assert run("tenant", "config", "set", "acme", "greeter", "-", typed="[1]")[0] == 2
    assert run("tenant", "config", "get", "acme", "greeter")[1].splitlines() == [
        "{",
        '  "region": "us"',
        "}",
        "secrets: none",
    ]
    kinds = [line.split("\t")[2] for line in run("tenant", "history", "acme", "greeter")[1].splitlines()]
    assert kinds == ["configured"] * 2 + ["quotas-set"] * 2 + ["unpinned", "pinned", "enabled", "disabled"]


def test_a_secret_is_piped_never_shown_and_its_key_rotates(run: Run, served: tuple[str, Site]) -> None:
    said = [run("tenant", "secret", "set", "globex", "greeter", "api-key", "--stdin", typed=f"{SECRET}\n")]
    assert run("tenant", "secret", "set", "globex", "greeter", "api-key", "--stdin")[0] == 2
    said.append(run("tenant", "config", "get", "globex", "greeter", "--json"))
    assert [one["name"] for one in json.loads(said[-1][1])["secrets"]] == ["api-key"]
    before = served[1].records.committed.tenant_rows["globex", "greeter"].secrets["api-key"].key_id
    said.append(run("tenant", "rotate-keys", "globex"))
    assert said[-1][1] == "0 data keys wrapped anew, 1 plugins sealed anew\n"
    assert served[1].records.committed.tenant_rows["globex", "greeter"].secrets["api-key"].key_id != before
    said.append(run("tenant", "rotate-keys", "--all"))
    assert run("tenant", "rotate-keys")[0] == 2
    said.append(run("tenant", "secret", "delete", "globex", "greeter", "api-key"))
    assert all(one[0] == 0 for one in said), said
    assert SECRET not in str(said)


def test_health_and_figures_are_tables(run: Run) -> None:
    assert run("plugin", "health", "greeter")[0] == 0
    assert run("plugin", "health", "greeter", "--check", "-e", "qa")[0] == 0
    code, said, _ = run("plugin", "metrics", "greeter", "--window", "1h", "--json")
    assert (code, json.loads(said)["versions"]) == (0, [])
    assert run("plugin", "metrics", "greeter", "-w", "2d")[0] == 2
