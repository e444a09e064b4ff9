"""What pages say can be followed: their links lead somewhere, their commands exist."""

import re
from functools import cache
from pathlib import Path

import pytest
import typer.main

from api.schemas.deployments import DeploymentIn
from hotswap.cli.main import app
from hotswap.domain.deployment import Strategy
from hotswap.strategies.registry import parse_config
from tests.docs.markdown import anchor

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/*.md")])
FENCED = re.compile(r"^ *```[^\n`]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
PROGRAM = typer.main.get_command(app)


@cache
def anchors(page: Path) -> set[str]:
    plain = FENCED.sub("", page.read_text(encoding="utf-8"))
    return {anchor(re.sub(r"[`*]", "", title)) for title in re.findall(r"^#+ (.+)$", plain, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    text = CODE.sub("", FENCED.sub("", page.read_text(encoding="utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{target.name} has no heading for #{fragment}"


def test_every_request_on_a_how_to_is_one_that_the_api_takes() -> None:
    strategies = set()
    for page in (ROOT / "docs" / "howto").glob("*.md"):
        for block in re.findall(r"^```json\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            request = DeploymentIn.model_validate_json(block)
            assert request.strategy is not None
            parse_config(request.strategy, request.config)
            strategies.add(request.strategy)
    assert strategies == set(Strategy)


def commands() -> list[tuple[str, str]]:
    """Each `hotswap ...` line of a fenced block, with its page."""
    found = []
    for page in PAGES:
        for block in FENCED.findall(page.read_text(encoding="utf-8")):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                found += [
                    (page.relative_to(ROOT).as_posix(), part)
                    for part in re.split(r"\$\(|&&|\|(?=\s)|;|\s{3,}", re.sub(r"\s#.*", "", line))
                    if re.match(r"\s*hotswap [a-z]", part)
                ]
    return found


def test_every_command_on_a_page_is_one_of_the_program() -> None:
    told = commands()
    assert len(told) > 100
    faults = [f"{page}: {line.strip()}: {fault}" for page, line in told if (fault := fault_of(line))]
    assert faults == []


def fault_of(line: str) -> str:
    """What is not known in it: a command or an option. Values are not judged."""
    words = re.sub(r"'[^']*'|\"[^\"]*\"", "X", line.strip().rstrip(")").replace("...", "")).split()[1:]
    command = PROGRAM
    while (inner := getattr(command, "commands", None)) is not None:
        if not words or words[0].split("|")[0] not in inner:
            return f"no command {words[:1]}"
        command = inner[words.pop(0).split("|")[0]]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    options = [word.strip("[]").split("=")[0] for word in words if re.match(r"\[?-{1,2}[a-zA-Z]", word)]
    wrong = [name for option in options for name in option.split("|") if name.startswith("-") and name not in known]
    return f"no option {wrong}" if wrong else ""
