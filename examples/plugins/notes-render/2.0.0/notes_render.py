"""Renders release notes from Markdown to HTML, with tables, and outlines them (library: markdown-it-py 4)."""

from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode


class NotesRender:
    def __init__(self) -> None:
        # Notes are a stranger's text: raw HTML in them is shown, not obeyed.
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])

    async def render(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        """An `async def` method: it runs on the host's own loop."""
        return {"html": self._markdown.render(parameters["markdown"])}

    def outline(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        """The headings, in order."""
        tree = SyntaxTreeNode(self._markdown.parse(parameters["markdown"]))
        return {
            "headings": [
                {"level": int(node.tag[1:]), "text": node.children[0].content}
                for node in tree.walk()
                if node.type == "heading"
            ]
        }

    def health(self) -> bool:
        return self._markdown.render("*x*") == "<p><em>x</em></p>\n"
