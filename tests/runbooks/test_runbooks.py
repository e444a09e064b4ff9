"""Every runbook is whole and followed by a scenario; the quick ones are followed here, the others by `make runbooks`."""

import ast
import re
from pathlib import Path

import pytest

from hotswap.cli.client import API
from tests.deploy.files import ROOT, document
from tests.e2e.live import Live
from tests.e2e.test_main_job import RETURN
from tests.runbooks.conftest import Open
from tests.runbooks.page import KINDS, Page, commands_of, runbooks

HERE = Path(__file__).parent
PARTS = ("**What it means.**", "**By itself.**", "## Look", "## Act", "## Over when", "## Call")
SLEEPS = 'if parameters["name"] == "slow":\n            __import__("time").sleep(0.7)\n        '
CANARY = {"steps": [30, 100], "evaluationPeriod": "PT1H", "evaluationInterval": "PT1S", "thresholds": {"minSample": 10}}


def followed() -> dict[str, set[str]]:
    """The sections of each page that some scenario follows, read from the scenarios' own text."""
    found: dict[str, set[str]] = {}
    for path in HERE.glob("*.py"):
        for scenario in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(scenario, ast.AsyncFunctionDef):
                continue
            calls = [one for one in ast.walk(scenario) if isinstance(one, ast.Call)]
            pages = [_texts(one)[0] for one in calls if isinstance(one.func, ast.Name) and one.func.id == "reading"]
            follows = [one for one in calls if isinstance(one.func, ast.Attribute) and one.func.attr == "follow"]
            for page in pages:
                found.setdefault(page, set()).update(text for one in follows for text in _texts(one))
    return found


def _texts(call: ast.Call) -> list[str]:
    return [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]


@pytest.mark.parametrize("page", runbooks(), ids=lambda page: page.name)
def test_a_runbook_is_whole_and_followed_to_its_end(page: Page) -> None:
    at = [page.text.find(part) for part in PARTS]
    assert -1 not in at, f"it lacks one of {PARTS}"
    assert at == sorted(at), f"in this order: {PARTS}"
    assert page.text.split("\n")[1].startswith("Alerts:")
    assert {block.kind for block in page.blocks} <= set(KINDS), "a block of bash says how it is followed"
    assert any(block.kind == "over" for block in page.blocks), "how does one know that it is over?"
    assert set(page.sections) <= followed().get(page.name, set()), "no scenario follows these"


def test_the_index_names_every_runbook() -> None:
    index = (ROOT / "docs/runbooks/README.md").read_text(encoding="utf-8")
    assert {page.name for page in runbooks()} == set(re.findall(r"\(([a-z-]+)\.md\)", index))


def test_compose_services_that_runbooks_restart_are_there() -> None:
    services = document(ROOT / "docker-compose.temporal.yml")["services"]
    named = {
        name
        for page in runbooks()
        for name in re.findall(r"docker compose -f docker-compose\.temporal\.yml restart ([a-z0-9-]+)", page.text)
    }
    assert named
    assert named <= set(services)


def test_a_command_is_read_as_a_reader_reads_it() -> None:
    body = 'hotswap abort "$ID" \\\n  -m "why"   # => Aborted  # exit 11\n# nothing\necho "#1"  # a remark\n'
    first, second = commands_of(body)
    assert (first.text, first.says, first.exit_code) == ('hotswap abort "$ID" -m "why"', "Aborted", 11)
    assert (second.text, second.says, second.exit_code) == ('echo "#1"', "", 0)


async def test_the_page_on_sandbox_timeouts(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", code=lambda text: text.replace(RETURN, SLEEPS + RETURN))
    sandbox = (await live.api.call("POST", f"{API}/sandbox/create", body={"pluginId": plugin, "version": "1.0.0"}))[
        "sandboxId"
    ]
    call = {"method": "greet", "parameters": {"name": "slow"}, "timeout": "PT0.3S", "wait": "PT30S"}
    execution = await live.api.call("POST", f"{API}/sandbox/{sandbox}/execute", body=call)
    variables = {"PLUGIN": plugin, "SANDBOX": sandbox, "EXECUTION": execution["executionId"]}
    more = {"METHOD": "greet", "PARAMETERS": '{"name": "slow"}'}
    async with reading("sandbox-timeout", **variables, **more) as reader:
        await reader.follow("Look", "Act", "Over when")
