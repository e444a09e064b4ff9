"""The Temporal Web UI says what an operator asks first, in words on the page: no payload needs to be opened."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Error as PageError
from playwright.async_api import Page, expect

from hotswap.demo.rollout import Rollout
from tests.chaos.lane import ANSWER
from tests.e2e.live import Live, eventually

REASON = "OPS-4711: the new tax table"
COLUMNS = ("HotSwapPlugin", "HotSwapVersion", "HotSwapEnvironment", "HotSwapStrategy", "HotSwapStatus")


@pytest.fixture
async def canary(live: Live) -> AsyncIterator[Rollout]:
    """One that watches 25 % of tenants for as long as the test takes."""
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    body = live.body(plugin, "2.0.0", "Canary", steps=[25, 100], evaluationPeriod="PT1H", evaluationInterval="PT4S")
    async with await Rollout.start(live.api, {**body, "reason": REASON}) as rollout:
        await rollout.until(lambda one: one.weight() == 25 and bool(one.deployment["verdict"]), "a verdict at 25 %", 60)
        yield rollout
        await live.api.command(rollout.id, "abort", "the test ends", "")
        await rollout.until_over()


def page_of(live: Live, rollout: Rollout, tab: str) -> str:
    workflow = quote(rollout.deployment["workflowId"], safe="")
    return f"{_workflows(live)}/{workflow}/{rollout.deployment['runId']}/{tab}"


def _workflows(live: Live) -> str:
    return f"{live.stack.info['temporalUiUrl']}/namespaces/{live.stack.info['namespace']}/workflows"


async def shoot(page: Page, folder: Path, name: str) -> None:
    """A picture for a person; a page that shows nothing makes a tiny one."""
    path = folder / f"{name}.png"
    await page.screenshot(path=path)
    assert path.stat().st_size > 20_000, f"{path} shows nothing"
    print(path)


async def words_once_told(page: Page, *parts: str) -> str:
    """All text of the page once it has these parts: the frames of rendered Markdown too, with plain spaces and slashes."""
    text = ""

    async def told() -> bool:
        nonlocal text
        try:
            texts = [await frame.locator("body").inner_text() for frame in page.frames]
        except PageError:  # a frame was drawn anew while it was read
            return False
        text = " ".join(" ".join(texts).replace("\u2044", "/").split())
        return all(part in text for part in parts)

    await eventually(told, f"the page tells {parts}", within=60)
    return text


async def test_a_rollout_tells_who_what_where_how_far_and_why(
    page: Page, live: Live, canary: Rollout, tmp_path: Path
) -> None:
    plugin = str(canary.deployment["plugin"])
    await page.goto(page_of(live, canary, "user-metadata"))
    text = await words_once_told(page, "Reason", "verdict")
    await shoot(page, tmp_path, "rollout")
    assert f"deployment/Development/{plugin}" in text
    assert "Workflow Type CanaryDeployment" in text
    assert f"{plugin} 2.0.0 -> Development by Canary: InProgress" in text
    assert "step 5/9: observe at 25 %" in text
    assert "set weight 25 %" in text
    assert "verdict: Inconclusive - error-rate: no requests yet" in text
    assert f"Started by admin Reason {REASON}" in text


async def test_the_timeline_names_what_each_activity_did_and_on_which_node(
    page: Page, live: Live, canary: Rollout, tmp_path: Path
) -> None:
    await page.goto(page_of(live, canary, "timeline"))
    for said in ("load 1.0.0 and 2.0.0 on node-3", "25 % to 2.0.0 on node-1", "judge 2.0.0 at 25 %"):
        await expect(page.get_by_text(said).first).to_be_attached()
    await shoot(page, tmp_path, "timeline")


async def test_the_list_has_columns_for_plugin_version_environment_strategy_and_status(
    page: Page, live: Live, canary: Rollout, tmp_path: Path
) -> None:
    plugin = str(canary.deployment["plugin"])
    query = quote(f'HotSwapPlugin = "{plugin}" AND HotSwapStatus = "InProgress"', safe="")
    await page.goto(f"{_workflows(live)}?query={query}")
    await page.get_by_role("button", name="Configure Columns").click()
    for column in COLUMNS:  # as a person does once; the browser remembers them
        await page.get_by_role("button", name=f"Add {column} column").click()
    for column in ("Run ID", "Start", "End"):
        await page.get_by_role("button", name=f"Remove {column} column").click()
    await page.get_by_role("button", name="Close Workflows Table configuration").click()
    row = page.get_by_role("row").filter(has_text=str(canary.deployment["workflowId"]))
    await expect(row).to_have_count(1)
    for shown in (plugin, "2.0.0", "Development", "Canary", "InProgress"):
        await expect(row.get_by_text(shown, exact=True)).to_be_visible()
    await shoot(page, tmp_path, "list")


async def test_a_rollout_that_was_taken_back_says_why_and_what_to_do(page: Page, live: Live, tmp_path: Path) -> None:
    """Closed workflows too: the page asks the worker, which replays them."""

    def broken(source: str) -> str:
        return source.replace(ANSWER, f'raise ValueError("bad")\n        {ANSWER}')

    plugin = await live.new_plugin("1.0.0", code=broken)
    rollout = await live.deploy(plugin, "1.0.0")
    assert rollout.status == "RolledBack", rollout.describe()
    await page.goto(page_of(live, rollout, "user-metadata"))
    text = await words_once_told(page, "what to do: ")
    await shoot(page, tmp_path, "taken-back")
    assert "1.0.0 -> Development by Direct: RolledBack" in text
    assert "outcome: the trial failed" in text
    assert "mend the plugin and upload a new version" in text
