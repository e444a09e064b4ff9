"""docs/commands.md says what workflows.commands does."""

from tests.workflow.command_table import PAGE, written


def test_the_table_in_the_docs_is_what_the_code_answers() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run `python -m tests.workflow.command_table`"
