"""The console over the whole real system: a canary that tenants call is approved, watched and aborted from the page."""

from pathlib import Path

import psycopg
from playwright.async_api import Page, expect

from hotswap.demo.rollout import Rollout
from tests.e2e.live import ENVIRONMENT, Live


async def _require(live: Live, approvals: int) -> None:
    """How many approvals Development asks for; the stack is shared, so put it back."""
    url = live.settings.postgres.url.get_secret_value()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(
            "UPDATE environments SET required_approvals = %s WHERE name = %s", (approvals, ENVIRONMENT)
        )


async def enter(page: Page, live: Live, user: str, rollout: Rollout) -> None:
    token = next(one["token"] for one in live.stack.info["users"] if one["user"] == user)
    await page.goto(f"{live.stack.info['consoleUrl']}#/rollouts/{rollout.id}")
    await page.get_by_text("I have a token").click()
    await page.get_by_label("Token", exact=True).fill(token)
    await page.get_by_role("button", name="Use this token").click()


async def decide(page: Page, what: str, reason: str) -> None:
    await page.get_by_role("button", name=what, exact=True).click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Reason").fill(reason)
    await dialog.get_by_role("button", name=what, exact=True).click()
    await expect(dialog).to_have_count(0)


async def test_a_real_canary_is_approved_watched_and_aborted(page: Page, live: Live, tmp_path: Path) -> None:
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    await _require(live, 1)
    body = live.body(plugin, "2.0.0", "Canary", steps=[25, 100], evaluationPeriod="PT1H", evaluationInterval="PT2S")
    try:
        async with live.traffic(plugin), await Rollout.start(live.api, body) as rollout:
            await enter(page, live, "approver", rollout)
            await expect(page.get_by_text("Live: this page moves")).to_be_visible()
            await decide(page, "Approve", "OPS-4711")
            await expect(page.get_by_role("definition").filter(has_text="25 % of tenants")).to_be_visible()
            await expect(page.get_by_role("img", name="Requests that failed: Pass.")).to_be_visible()
            await expect(page.get_by_role("region", name="Hosts of node-1")).to_contain_text("2.0.0")
            await page.get_by_role("button", name="Sign out").click()
            await enter(page, live, "admin", rollout)
            await decide(page, "Abort", "wrong tax table")
            await expect(page.get_by_text("It is over; nothing moves any more.")).to_be_visible()
            await expect(page.get_by_role("main").get_by_text("wrong tax table").first).to_be_visible()
            await expect(page.get_by_role("row", name="deployment.abort.requested")).to_be_visible()
            await page.screenshot(path=tmp_path / "aborted.png", full_page=True)
            print(tmp_path / "aborted.png")
            await rollout.until_over()
            assert rollout.status == "Aborted", rollout.describe()
            assert [given["approver"] for given in rollout.deployment["approvals"]] == ["approver"]
    finally:
        await _require(live, 0)
    await page.get_by_role("link", name="Nodes").click()
    for node in ("node-1", "node-2", "node-3"):
        await expect(page.get_by_role("row", name=node)).to_contain_text("Ready")
    assert (await live.route(plugin)).state.candidate is None
    assert faults == []
