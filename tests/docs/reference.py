"""The pages under docs/reference, made from the code itself: the api's routes, the command line, the settings.

`make reference` writes them; tests/docs/test_reference.py sees that they were written. Neighbours: api_reference.py,
cli_reference.py and settings_reference.py, each code in, one page out.
"""

from pathlib import Path

from tests.docs import api_reference, cli_reference, settings_reference

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """Each file of docs/reference with what it must hold."""
    return {
        "api.md": api_reference.page(),
        "cli.md": cli_reference.page(),
        "settings.md": settings_reference.page(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
