"""Renders release notes from Markdown to HTML (library: markdown-it-py 3)."""

from typing import Any

from markdown_it import MarkdownIt


class NotesRender:
    def __init__(self) -> None:
        # Notes are a stranger's text: raw HTML in them is shown, not obeyed.
        self._markdown = MarkdownIt("commonmark", {"html": False})

    def render(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        return {"html": self._markdown.render(parameters["markdown"])}

    def health(self) -> bool:
        return self._markdown.render("*x*") == "<p><em>x</em></p>\n"
