"""docs/reference says what the code has."""

from tests.docs.reference import FOLDER, pages


def test_the_reference_is_what_the_code_has() -> None:
    wanted = pages()
    assert {path.name for path in FOLDER.glob("*.md")} == set(wanted)
    stale = [name for name, text in wanted.items() if (FOLDER / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make reference`"
