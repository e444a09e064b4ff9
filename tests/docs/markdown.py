"""What the reference pages are written with: cells, tables and links of Markdown."""

import re
from collections.abc import Iterable, Sequence

MADE = "<!-- made by make reference; do not edit -->\n"


def cell(text: str) -> str:
    """Text within a table."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    return f"`{cell(text)}`" if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table, and an empty one; none without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return []
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines, ""]


def anchor(heading: str) -> str:
    """The fragment under which a heading is found, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
