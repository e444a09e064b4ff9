"""One contract for plugins, versions and environments: PostgreSQL and its in-memory twin."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotswap.adapters.memory.records import MemoryRecords
from hotswap.adapters.postgres.database import Database
from hotswap.domain.deployment import Strategy
from hotswap.domain.errors import Conflict, HotSwapError, InvalidInput, NotFound
from hotswap.domain.lifecycle import PluginStatus
from hotswap.domain.manifest import PluginType
from hotswap.domain.registry import Page, Plugin
from hotswap.ports.records import PluginFilter, UnitOfWorkFactory
from tests.contract.factories import (
    EPOCH,
    make_deployment,
    make_manifest,
    make_plugin,
    make_route,
    make_version,
)

EVERYTHING = Page(limit=100)


async def add(unit_of_work: UnitOfWorkFactory, *plugins: Plugin) -> None:
    async with unit_of_work() as uow:
        for plugin in plugins:
            await uow.plugins.add(plugin)
        await uow.commit()


async def names(unit_of_work: UnitOfWorkFactory, page: Page = EVERYTHING, **where: Any) -> tuple[list[str], int]:
    async with unit_of_work() as uow:
        found, total = await uow.plugins.list(PluginFilter(**where), page)
    return [plugin.name for plugin in found], total


async def test_a_plugin_comes_back_as_it_was_given(unit_of_work: UnitOfWorkFactory) -> None:
    plugin = make_plugin(
        "invoice",
        display_name='Robert"; DROP TABLE plugins;-- %s {} 発票 🧾',
        description="x" * 4000,
        type=PluginType.REPORTING_ENGINE,
        status=PluginStatus.ACTIVE,
        author="O'Brien\\",
        documentation_url="https://example.org/?a=%20&b='",
        tags=("b", "a", "it's"),
    )
    await add(unit_of_work, plugin)
    async with unit_of_work() as uow:
        assert await uow.plugins.get("invoice") == plugin


async def test_what_is_not_committed_is_undone(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin("lost"))
        assert (await uow.plugins.get("lost")).name == "lost"
    async with unit_of_work() as uow:
        with pytest.raises(NotFound, match="'lost'"):
            await uow.plugins.get("lost")


async def test_an_error_inside_undoes_everything(unit_of_work: UnitOfWorkFactory) -> None:
    async def fail_inside() -> None:
        async with unit_of_work() as uow:
            await uow.plugins.add(make_plugin("lost"))
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await fail_inside()
    assert await names(unit_of_work) == ([], 0)


async def test_others_see_nothing_before_the_commit(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as writer, unit_of_work() as reader:
        await writer.plugins.add(make_plugin("late"))
        with pytest.raises(NotFound):
            await reader.plugins.get("late")
        await writer.commit()
        assert (await reader.plugins.get("late")).name == "late"


async def test_a_unit_can_go_on_after_its_commit(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin("first"))
        await uow.commit()
        await uow.plugins.add(make_plugin("second"))
        await uow.commit()
        await uow.plugins.add(make_plugin("third"))
    assert await names(unit_of_work) == (["first", "second"], 2)


async def test_a_unit_is_of_no_use_outside_its_block(unit_of_work: UnitOfWorkFactory) -> None:
    uow = unit_of_work()
    with pytest.raises(RuntimeError, match="async with"):
        await uow.plugins.get("any")


async def test_a_taken_name_is_a_conflict_and_leaves_the_unit_usable(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, make_plugin("taken", author="first"))
    async with unit_of_work() as uow:
        with pytest.raises(Conflict, match="'taken' is registered already"):
            await uow.plugins.add(make_plugin("taken", author="second"))
        assert (await uow.plugins.get("taken")).author == "first"
        await uow.plugins.add(make_plugin("free"))
        await uow.commit()
    assert await names(unit_of_work) == (["free", "taken"], 2)


async def test_of_many_that_register_one_name_one_wins(unit_of_work: UnitOfWorkFactory) -> None:
    async def register() -> bool:
        try:
            await add(unit_of_work, make_plugin("wanted"))
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*(register() for _ in range(10)))) == 1


async def test_save_replaces_the_row_but_not_what_the_versions_say(unit_of_work: UnitOfWorkFactory) -> None:
    before = make_plugin("saved", tags=("old",))
    await add(unit_of_work, before)
    async with unit_of_work() as uow:
        await uow.versions.add(make_version("saved", "2.0.0"))
        changed = before.model_copy(
            update={
                "display_name": "Changed",
                "status": PluginStatus.DEPRECATED,
                "tags": ("new",),
                "deprecation_reason": "use exporter",
                "updated_at": EPOCH.replace(year=2027),
                "current_version": "1.0.0",
            }
        )
        await uow.plugins.save(changed)
        await uow.commit()
    async with unit_of_work() as uow:
        after = await uow.plugins.get("saved")
        assert after == changed.model_copy(update={"current_version": "2.0.0"})
    assert await names(unit_of_work, search="changed") == (["saved"], 1)


async def test_saving_what_is_not_there_is_not_found(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        with pytest.raises(NotFound):
            await uow.plugins.save(make_plugin("ghost"))


async def test_delete_takes_the_plugin_with_its_versions_and_pins(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, make_plugin("gone"), make_plugin("stays"))
    async with unit_of_work() as uow:
        await uow.versions.add(make_version("gone"))
        await uow.pins.pin("tenant", "gone", "1.0.0", "admin")
        await uow.plugins.delete("gone")
        await uow.commit()
    async with unit_of_work() as uow:
        with pytest.raises(NotFound):
            await uow.versions.get("gone", "1.0.0")
        assert await uow.pins.pins("gone") == {}
        with pytest.raises(NotFound):
            await uow.plugins.delete("gone")
    assert await names(unit_of_work) == (["stays"], 1)


async def test_a_deployed_or_routed_plugin_cannot_be_deleted(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, make_plugin("deployed"), make_plugin("routed"))
    async with unit_of_work() as uow:
        await uow.versions.add(make_version("routed"))
        await uow.deployments.open(make_deployment("deployed"))
        await uow.routes.write("Development", "routed", 0, make_route("routed"), "dep")
        for name in ("deployed", "routed"):
            with pytest.raises(Conflict, match=f"'{name}' is named by a route or a deployment"):
                await uow.plugins.delete(name)
        await uow.commit()
    assert await names(unit_of_work) == (["deployed", "routed"], 2)


async def test_lists_are_ordered_by_name_and_cut_by_page(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, *(make_plugin(name) for name in ("b", "a-b", "a", "ab", "a0", "c")))
    assert await names(unit_of_work) == (["a", "a-b", "a0", "ab", "b", "c"], 6)
    assert await names(unit_of_work, Page(limit=2, offset=1)) == (["a-b", "a0"], 6)
    assert await names(unit_of_work, Page(limit=2, offset=5)) == (["c"], 6)
    assert await names(unit_of_work, Page(limit=1, offset=6)) == ([], 6)
    assert await names(unit_of_work, Page(offset=1_000_000)) == ([], 6)


async def test_filters_narrow_by_type_status_and_all_tags(unit_of_work: UnitOfWorkFactory) -> None:
    await add(
        unit_of_work,
        make_plugin("one", type=PluginType.OTHER, status=PluginStatus.ACTIVE, tags=("pay", "eu")),
        make_plugin("two", type=PluginType.DATA_PROCESSOR, status=PluginStatus.ACTIVE, tags=("pay",)),
        make_plugin("three", type=PluginType.OTHER, status=PluginStatus.DRAFT),
    )
    assert await names(unit_of_work, type="Other") == (["one", "three"], 2)
    assert await names(unit_of_work, type="Nonsense") == ([], 0)
    assert await names(unit_of_work, status=PluginStatus.ACTIVE) == (["one", "two"], 2)
    assert await names(unit_of_work, tags=("pay",)) == (["one", "two"], 2)
    assert await names(unit_of_work, tags=("eu", "pay")) == (["one"], 1)
    assert await names(unit_of_work, tags=("pa",)) == ([], 0)
    assert await names(unit_of_work, type="Other", status=PluginStatus.ACTIVE, search="on") == (["one"], 1)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("100%", ["percent"]),
        ("%", ["percent"]),
        ("_", ["underscore"]),
        ("a_b", ["underscore"]),
        ("\\", ["backslash"]),
        ("it's", ["quote"]),
        ("';--", []),
        ("STRASSE", ["german"]),
        ("straße", ["german"]),
        ("ÉCLAIR", ["french"]),
        ("PERCENT", ["percent"]),
        ("", ["backslash", "french", "german", "percent", "quote", "underscore"]),
        ("x" * 10_000, []),
    ],
)
async def test_search_is_a_literal_substring_in_any_case(
    unit_of_work: UnitOfWorkFactory, search: str, found: list[str]
) -> None:
    await add(
        unit_of_work,
        make_plugin("percent", display_name="Takes 100% of it"),
        make_plugin("underscore", description="name a_b here"),
        make_plugin("backslash", description="a\\b"),
        make_plugin("quote", description="it's"),
        make_plugin("german", display_name="Straße"),
        make_plugin("french", display_name="éclair"),
    )
    assert await names(unit_of_work, search=search) == (found, len(found))


async def test_text_that_cannot_be_stored_names_its_field(unit_of_work: UnitOfWorkFactory) -> None:
    text = "a\0b"
    good = make_plugin("good")
    await add(unit_of_work, good)
    async with unit_of_work() as uow:
        attempts = {
            "displayName": lambda: uow.plugins.add(make_plugin("x", display_name=text)),
            "tags.1": lambda: uow.plugins.save(good.model_copy(update={"tags": ("ok", text)})),
            "name": lambda: uow.plugins.get(text),
            "search": lambda: uow.plugins.list(PluginFilter(search=text), Page()),
            "tags.0": lambda: uow.plugins.list(PluginFilter(tags=(text,)), Page()),
            "type": lambda: uow.plugins.list(PluginFilter(type=text), Page()),
            "releaseNotes": lambda: uow.versions.add(make_version("good", release_notes=text)),
            "manifest.author": lambda: uow.versions.add(
                make_version("good", manifest=make_manifest("good", author=text))
            ),
            "plugin": lambda: uow.versions.get(text, "1.0.0"),
            "version": lambda: uow.versions.get("good", text),
            "environment": lambda: uow.environments.get(text),
        }
        for field, attempt in attempts.items():
            with pytest.raises(InvalidInput) as caught:
                await attempt()
            assert [fault.field for fault in caught.value.faults] == [field]
        with pytest.raises(InvalidInput, match="name"):
            await uow.plugins.delete(text)
        with pytest.raises(InvalidInput, match="plugin"):
            await uow.versions.list(text, Page())
        assert await uow.plugins.get("good") == good


async def test_a_name_that_is_no_text_names_its_field(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        for attempt in (uow.plugins.get, uow.plugins.delete, uow.environments.get):
            with pytest.raises(InvalidInput, match="surrogate"):
                await attempt("\ud800")


async def test_a_name_of_any_length_is_only_not_found(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        for attempt in (uow.plugins.get, uow.plugins.delete, uow.environments.get):
            with pytest.raises(NotFound):
                await attempt("n" * 100_000)


async def test_the_four_environments_are_there(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        found = await uow.environments.list()
        assert [(row.name, row.rank, row.default_strategy, row.required_approvals, row.require_admin_approval)
                for row in found] == [
            ("Development", 0, Strategy.DIRECT, 0, False),
            ("QA", 1, Strategy.ROLLING, 1, False),
            ("Staging", 2, Strategy.ROLLING, 1, False),
            ("Production", 3, Strategy.CANARY, 2, True),
        ]  # fmt: skip
        assert await uow.environments.get("Production") == found[3]
        with pytest.raises(NotFound, match="'Moon'"):
            await uow.environments.get("Moon")


_TEXT = st.text(alphabet="ab%_\\'\"ßÉé ", max_size=6)
_SOME_PLUGINS = st.lists(
    st.tuples(_TEXT, st.sets(st.sampled_from(["x", "y", "z"])), st.sampled_from(list(PluginStatus))), max_size=6
)


@pytest.mark.stack
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=_SOME_PLUGINS,
    search=_TEXT,
    tags=st.sets(st.sampled_from(["x", "y"])),
    status=st.none() | st.sampled_from(list(PluginStatus)),
    page=st.builds(Page, limit=st.integers(1, 4), offset=st.integers(0, 8)),
)
async def test_both_adapters_answer_every_list_alike(
    database: Database,
    rows: list[tuple[str, set[str], PluginStatus]],
    search: str,
    tags: set[str],
    status: PluginStatus | None,
    page: Page,
) -> None:
    where = PluginFilter(search=search, tags=tuple(sorted(tags)), status=status)
    answers = []
    for factory in (MemoryRecords().unit_of_work, database.unit_of_work):
        async with factory() as uow:  # never committed: each example starts empty
            for number, (text, held, state) in enumerate(rows):
                await uow.plugins.add(
                    make_plugin(f"p{number}", description=text, tags=tuple(sorted(held)), status=state)
                )
            found, total = await uow.plugins.list(where, page)
            answers.append((list(found), total))
    assert answers[0] == answers[1]


async def test_every_refusal_is_of_the_one_error_tree(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        with pytest.raises(HotSwapError):
            await uow.plugins.get("nobody")
