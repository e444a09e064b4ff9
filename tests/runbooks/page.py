"""A page that is followed: its sections and the commands in them, as a reader sees them. Pure: text in, steps out.

The word behind ```bash says what a block is:

    run                 carried out once, in order; every command must succeed
    over                how one knows that it is over: each command is repeated until it succeeds
    beside              runs beside what follows, in another terminal
    elsewhere NAME      is done with the tools of the place where HotSwap runs (kubectl, docker compose); nothing of it can run
                        in a test, so the scenario does by NAME what amounts to the same on the embedded stack

Behind a command, `# => TEXT` is what it prints and `# exit N` with which code it ends, for readers and tests alike.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^##+ (?P<title>.+)$", re.MULTILINE)
PROMISE = re.compile(r"\s+# (?:=> (?P<text>(?:(?! # ).)+?)|exit (?P<code>\d+))\s*$")

KINDS = ("run", "over", "beside", "elsewhere")


@dataclass(frozen=True)
class Command:
    """One command; `says` must be in what it prints."""

    text: str
    says: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Block:
    section: str
    kind: str
    name: str
    commands: tuple[Command, ...]


class Page:
    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.text = path.read_text(encoding="utf-8")
        self.blocks = tuple(self._blocks())

    @property
    def sections(self) -> list[str]:
        """Those in which something is to be done, in order."""
        return list(dict.fromkeys(block.section for block in self.blocks))

    def of(self, *sections: str) -> list[Block]:
        """The blocks of these sections, in this order. KeyError for one that has none."""
        missing = [section for section in sections if section not in self.sections]
        if missing:
            raise KeyError(f"{self.name}: nothing is to be done under {missing}; there are {self.sections}")
        return [block for section in sections for block in self.blocks if block.section == section]

    def _blocks(self) -> Iterator[Block]:
        headings = [(match.start(), match["title"]) for match in HEADING.finditer(self.text)]
        for match in FENCE.finditer(self.text):
            words = match["info"].split()
            if words[:1] != ["bash"]:
                continue
            kind, name = (words[1:2] or [""])[0], " ".join(words[2:])
            section = [title for at, title in headings if at < match.start()]
            indent = len(match["indent"])
            body = "\n".join(line[indent:] for line in match["body"].splitlines())
            commands = tuple(commands_of(body)) if kind != "beside" else (Command(body),)
            yield Block(section[-1] if section else "", kind, name, commands)


def commands_of(body: str) -> Iterator[Command]:
    """A command is a line, with those that follow a backslash."""
    for line in re.sub(r"\\\n\s*", "", body).splitlines():
        says, code = "", 0
        text = line
        while promise := PROMISE.search(text):
            says, code = promise["text"] or says, int(promise["code"] or code)
            text = text[: promise.start()]
        text = re.sub(r"\s+# .*$", "", text).strip()
        if text and not text.startswith("#"):
            yield Command(text, says, code)


def runbooks() -> list[Page]:
    return [Page(path) for path in sorted(RUNBOOKS.glob("*.md")) if path.name != "README.md"]
