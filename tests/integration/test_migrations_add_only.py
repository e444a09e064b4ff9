"""Migration before code: whatever the release before reads or writes is still there, as it was, after each migration.

By the schema alone, so it holds for every statement of that release, not only for those that a test happens to run.
"""

from collections.abc import Callable
from typing import NamedTuple

import psycopg
from alembic.script import ScriptDirectory

from migrations import runner

EXCEPTED = {"0004": "sandbox_sessions"}
"""Revision -> the table that it may change as it likes, because nothing of the release before read or wrote it."""


class Column(NamedTuple):
    """What a statement of older code relies on."""

    kind: str
    needed: bool
    """An INSERT that does not name it fails."""


def columns(url: str) -> dict[tuple[str, str], Column]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name, data_type || coalesce('(' || character_maximum_length || ')', ''),"
            " is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' AND is_generated = 'NEVER'"
            " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
        ).fetchall()
    return {(table, name): Column(kind, needed) for table, name, kind, needed in rows}


def breaks(before: dict[tuple[str, str], Column], after: dict[tuple[str, str], Column]) -> list[str]:
    """What code written for `before` could trip over in `after`."""
    said = []
    for (table, name), column in before.items():
        now = after.get((table, name))
        if now is None:
            said.append(f"{table}.{name} is gone")
        elif now.kind != column.kind:
            said.append(f"{table}.{name} was {column.kind} and is {now.kind}")
        elif now.needed and not column.needed:
            said.append(f"{table}.{name} must now be given")
    known = {table for table, _ in before}
    said += [
        f"{table}.{name} is new and must be given"
        for (table, name), column in after.items()
        if table in known and (table, name) not in before and column.needed
    ]
    return said


def test_no_migration_takes_away_what_the_release_before_needs(new_database: Callable[..., str]) -> None:
    url = new_database()
    scripts = ScriptDirectory.from_config(runner.script_config())
    revisions = [script.revision for script in reversed(list(scripts.walk_revisions()))]
    runner.upgrade(url, revisions[0])
    before = columns(url)
    assert len(before) > 50
    for revision in revisions[1:]:
        runner.upgrade(url, revision)
        after = columns(url)
        excepted = f"{EXCEPTED.get(revision, ' ')}."
        broken = [one for one in breaks(before, after) if not one.startswith(excepted)]
        assert broken == [], f"{revision} breaks code of the release before it (docs/upgrade.md)"
        before = after


def test_the_rule_sees_what_it_must() -> None:
    text, number = Column("text", False), Column("bigint", False)
    before = {("plugins", "name"): text, ("plugins", "size"): number}
    assert breaks(before, {**before, ("plugins", "note"): text, ("other", "id"): Column("text", True)}) == []
    for after in (
        {("plugins", "name"): text},
        {**before, ("plugins", "size"): text},
        {**before, ("plugins", "name"): Column("text", True)},
        {**before, ("plugins", "note"): Column("text", True)},
    ):
        assert len(breaks(before, after)) == 1
