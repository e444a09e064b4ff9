"""What an author has to try a plugin at home: hotswap_plugin.testing and `hotswap plugin test`, in a real host each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotswap.cli.main import app
from hotswap.domain.errors import InvalidInput
from hotswap.runtime.build import build_plugin, init_plugin
from hotswap_plugin.testing import HostFailed, PluginError, run_plugin
from tests.integration.host_lab import leaves_nothing

MANIFEST: dict[str, Any] = {
    "name": "made",
    "version": "1.0.0",
    "entryPoint": "made:Made",
    "methods": [{"name": name} for name in ("tell", "fail", "connect", "eat", "shout", "shadow")],
    "requiredPermissions": ["secrets.read", "network.http:api.example.com"],
    "configurationSchema": {"properties": {"region": {"enum": ["eu", "us"], "default": "eu"}}},
    "resources": {"memoryMb": 128},
}
CODE = """
import importlib, json, os, socket, sys
import hotswap_plugin
from hotswap_plugin import Context, Plugin, Unhealthy, get_logger
log = get_logger(__name__)

class Made(Plugin):
    sick = False
    def tell(self, parameters, context: Context):
        log.warning("asked by %s", context.tenant)
        return [context.tenant, context.config, dict(context.secrets)]
    def fail(self, parameters, context):
        self.sick = True
        raise LookupError("no such thing")
    def connect(self, parameters, context):
        socket.create_connection(("other.example.com", 443), 5)
    def eat(self, parameters, context):
        return len(bytearray(1024 * 1024 * 1024))
    def shout(self, parameters, context):
        for _ in range(5000):
            print("x" * 200)
    def shadow(self, parameters, context):
        try:
            importlib.import_module("hotswap_plugin.testing")
            return "imported"
        except ImportError:
            return [hotswap_plugin.__file__.startswith(os.getcwd()), "evil" in dir(hotswap_plugin)]
    def health(self):
        if self.sick:
            raise Unhealthy("lost its things")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    write(folder)
    return folder


def write(folder: Path, **changes: Any) -> None:
    (folder / "plugin.json").write_text(json.dumps(MANIFEST | changes))
    (folder / "made.py").write_text(CODE)


def test_a_plugin_is_called_in_the_sandbox_and_reconfigured_while_it_runs(folder: Path) -> None:
    with leaves_nothing(), run_plugin(folder, secrets={"key": "s3cret"}) as plugin:
        assert plugin.sandbox_tier == "standard"
        assert plugin.call("tell") == ["local", {"region": "eu"}, {"key": "s3cret"}]
        plugin.configure({"region": "us"})
        assert plugin.call("tell", {"any": 1}, tenant="acme") == ["acme", {"region": "us"}, {}]
        plugin.check_health()
        with pytest.raises(PluginError, match="no such thing") as caught:
            plugin.call("fail")
        assert caught.value.kind == "LookupError"
        with pytest.raises(PluginError, match="lost its things") as sick:
            plugin.check_health()
        assert sick.value.kind == "Unhealthy"
        with pytest.raises(HostFailed) as full:
            plugin.call("eat")
        assert full.value.limit == "MEMORY_LIMIT"


def test_what_does_not_fit_the_manifest_is_named(folder: Path) -> None:
    with pytest.raises(InvalidInput) as caught, run_plugin(folder, config={"region": "mars"}):
        pass
    assert [fault.field for fault in caught.value.faults] == ["config.region"]
    write(folder, requiredPermissions=[])
    with pytest.raises(InvalidInput, match="may not read secrets"), run_plugin(folder, secrets={"key": "x"}):
        pass
    with pytest.raises(InvalidInput, match="there is no"), run_plugin(folder / "nowhere"):
        pass


def test_a_package_of_the_same_name_in_a_bundle_hides_nothing(folder: Path) -> None:
    (folder / "hotswap_plugin").mkdir()
    (folder / "hotswap_plugin" / "__init__.py").write_text("evil = True")
    with run_plugin(folder) as plugin:
        assert plugin.call("shadow") == [False, False]


# -- hotswap plugin test ------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `hotswap plugin test`; the exit code, stdout, stderr."""

    def typed(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            app(args=["plugin", "test", *map(str, arguments)], prog_name="hotswap")
        said = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return typed


def test_a_new_plugin_passes_its_smoke_tests(tmp_path: Path, run: Run) -> None:
    init_plugin(tmp_path / "new", "new-thing")
    code, out, _ = run(tmp_path / "new")
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("new-thing 0.1.0: loaded in ")
    assert "sandbox standard" in first
    assert second.startswith("passed\tgreet\t")
    zipped = build_plugin(tmp_path / "new").path
    code, out, _ = run(zipped, "--json")
    document = json.loads(out)
    assert (code, document["passed"], document["sandboxTier"]) == (0, True, "standard")
    assert [test["method"] for test in document["smokeTests"]] == ["greet"]


def test_a_failed_smoke_test_says_why_and_is_exit_code_1(folder: Path, run: Run) -> None:
    tests = [{"method": "tell", "expected": 1}, {"method": "fail"}]
    write(folder, smokeTests=tests)
    code, out, err = run(folder)
    assert code == 1
    assert [line.split("\t")[:2] for line in out.splitlines()[1:]] == [["FAILED", "tell"], ["FAILED", "fail"]]
    assert "expected 1 and got" in out
    assert "LookupError: no such thing" in out
    assert "smoke test of 'tell'" in err
    assert "plugin warning: made: asked by local" in err


def test_one_method_is_called_with_settings_of_choice(folder: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "eu.toml").write_text('region = "us"')
    (tmp_path / "key.txt").write_text("s3cret-value\n")
    given = ["--config", tmp_path / "eu.toml", "--secret", f"key=@{tmp_path / 'key.txt'}", "--tenant", "acme"]
    code, out, err = run(folder, "--method", "tell", "--json", *given)
    assert code == 0
    assert json.loads(out)["result"] == ["acme", {"region": "us"}, {"key": "s3cret-value"}]
    assert "plugin warning: made: asked by acme" in err


@pytest.mark.parametrize(
    ("method", "limit", "why"),
    [
        ("eat", "MEMORY_LIMIT", "memory"),
        ("shout", "OUTPUT_LIMIT", ""),
        ("connect", "", "requiredPermissions: network.http:other.example.com"),
        ("nope", "", "has no method 'nope'"),
    ],
)
def test_a_limit_names_itself(folder: Path, run: Run, method: str, limit: str, why: str) -> None:
    code, out, err = run(folder, "-M", method)
    assert code == (0 if method == "shout" else 1)
    assert why in err
    assert (f"limit hit: {limit}" in out) == bool(limit)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--parameters", "[1]"], "--parameters is not a JSON object"),
        (["--parameters", "@nowhere"], "--parameters: nowhere cannot be read"),
        (["--config", "nowhere.json"], "--config: nowhere.json cannot be read"),
        (["--secret", "key"], "--secret needs NAME=VALUE"),
        (["--tier", "paper"], "is not a sandbox tier"),
        (["--allow-private", "everywhere"], "--allow-private"),
        (["--timeout", "soon"], "is not a duration"),
    ],
)
def test_what_is_typed_wrong_is_exit_code_2(folder: Path, run: Run, arguments: list[str], why: str) -> None:
    code, _, err = run(folder, *arguments)
    assert code == 2
    assert why in err.replace("\n", " ")


def test_a_plugin_that_cannot_load_is_exit_code_1(folder: Path, run: Run) -> None:
    (folder / "made.py").write_text("import nothing_like_it")
    code, out, err = run(folder)
    assert code == 1
    assert "limit hit: LOAD_FAILED" in out
    assert "No module named 'nothing_like_it'" in err


@pytest.mark.parametrize("content", [b"", b"no zip"])
def test_what_is_no_zip_is_named_with_what_to_do(tmp_path: Path, run: Run, content: bytes) -> None:
    path = tmp_path / "some.zip"
    path.write_bytes(content)
    code, _, err = run(path)
    assert code == 2
    assert f"{path}: the archive is not a zip" in err
    assert "hotswap plugin build FOLDER" in err
