"""The console as people use it, in a real browser: by mouse, by keyboard, by what a screen reader is told."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from hotswap.domain.analysis import Outcome
from tests.browser.console import STEPS, Console, S, nodes, serving, verdict
from tests.http.conftest import site as site
from tests.http.people import PASSWORD, make_user
from tests.http.site import API

HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script> "&amp;'
DECISIONS = ("Approve", "Reject", "Pause", "Resume", "Promote", "Abort", "Roll back", "Retry")


@pytest.fixture
async def console(site: Any, page: Page) -> AsyncIterator[Console]:
    async with serving(site, page) as served:
        yield served
        assert served.faults == []


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


async def offered(page: Page) -> list[str]:
    return [name for name in DECISIONS if await button(page, name).count()]


async def test_sign_in_with_a_password_and_out_again(console: Console) -> None:
    page = console.page
    await make_user(console.site, "ada", "Viewer")
    await console.open("#/nodes")
    await page.get_by_label("User").fill("ada")
    await page.get_by_label("Password").fill("not this one, surely")
    await button(page, "Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("wrong")
    assert len(console.faults) == 1  # the browser's own line about the 401
    console.faults.clear()
    await page.get_by_label("Password").fill(PASSWORD)
    await button(page, "Sign in").click()
    await expect(page.get_by_role("heading", name="Nodes", level=1)).to_be_focused()
    assert PASSWORD not in page.url
    assert "token" not in page.url
    await page.reload()
    await expect(page.get_by_role("heading", name="Nodes", level=1)).to_be_visible()
    token = await page.evaluate("JSON.parse(sessionStorage['hotswap.session']).token")
    await button(page, "Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_focused()
    assert await page.evaluate("sessionStorage.length + localStorage.length + document.cookie.length") == 0
    answer = await console.site.nobody.get(f"{API}/authentication/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401


async def test_an_expiring_login_is_renewed_and_an_ended_one_asks_again(console: Console) -> None:
    page = console.page
    await make_user(console.site, "ada", "Viewer")
    await console.open("#/nodes")
    await page.get_by_label("User").fill("ada")
    await page.get_by_label("Password").fill(PASSWORD)
    await button(page, "Sign in").click()
    await expect(page.get_by_role("heading", name="Nodes", level=1)).to_be_visible()
    old = await page.evaluate(
        "() => { const kept = JSON.parse(sessionStorage['hotswap.session']); kept.expiresAt = Date.now() + 1000;"
        " sessionStorage['hotswap.session'] = JSON.stringify(kept); return kept.refreshToken; }"
    )
    await page.reload()
    await page.wait_for_function("old => JSON.parse(sessionStorage['hotswap.session']).refreshToken !== old", arg=old)
    await page.evaluate("sessionStorage['hotswap.session'] = JSON.stringify({token: 'nobody'})")
    await page.reload()
    await expect(page.get_by_role("alert")).to_contain_text("Your session has ended")
    assert all("401" in fault for fault in console.faults)
    console.faults.clear()


async def test_a_canary_moves_by_itself_is_approved_and_judged(console: Console, tmp_path: Path) -> None:
    page = console.page
    deployment = await console.canary()
    await console.enter("approver")
    loads = await page.evaluate("performance.timeOrigin")
    card = page.get_by_role("listitem").filter(has_text="greeter 1.0.0 → 2.0.0")
    await expect(card).to_contain_text("Awaiting approval")
    await card.get_by_role("link").click()
    await expect(page.get_by_text("Live: this page moves")).to_be_visible()
    await expect(page.get_by_text("Waits for 1 approval")).to_be_visible()
    assert await offered(page) == ["Approve", "Reject"]
    await button(page, "Approve").click()
    dialog = page.get_by_role("dialog", name="Approve greeter 2.0.0?")
    await dialog.get_by_label("Reason").fill("OPS-4711")
    await dialog.get_by_role("button", name="Approve").click()
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("status")).to_contain_text("approve: done")
    name, command, update = console.site.rollouts.sent[-1]
    assert (name, command.by, command.reason) == ("approve", "approver", "OPS-4711")
    assert command.plan_hash == (await console.site.progress(deployment)).plan_hash  # type: ignore[attr-defined]
    assert update, "a repeat after a lost answer must be the same wish"

    await console.move(deployment, 6, status=S.IN_PROGRESS, waiting_for="", set_weight_percent=25, nodes=nodes())
    await expect(page.get_by_role("listitem").filter(has_text="observe at 25 %").first).to_contain_text("25 % set")
    assert await offered(page) == []  # an Approver decides, and runs nothing
    await console.move(deployment, 6, verdict=verdict())
    chart = page.get_by_role(
        "img", name="Requests that failed: Pass. 2.0.0 0.40 %, between 0.00 % and 1.50 %. 1.0.0 0.30 %. Limit 5.00 %."
    )
    await expect(chart).to_be_visible()
    await expect(page.get_by_text("25.3 % of requests")).to_be_visible()
    await page.get_by_text("All figures as a table").click()
    await expect(page.get_by_role("row", name="latency-vs-baseline")).to_contain_text("1.50 %")
    await expect(page.get_by_role("region", name="Hosts of node-2")).to_contain_text("crashed once")
    phases = page.get_by_role("region", name="Phases of this rollout")
    await expect(phases.get_by_role("row", name="observe at 25 %")).to_be_visible()
    await shoot(page, tmp_path, "rollout")
    await console.move(deployment, 8, console.line(9, "status", "done", to="Completed"), status=S.COMPLETED)
    await expect(page.get_by_text("It is over; nothing moves any more.")).to_be_visible()
    assert await page.evaluate("performance.timeOrigin") == loads, "the page was loaded again"


async def test_a_stream_that_breaks_goes_on_behind_what_was_told(console: Console) -> None:
    page = console.page
    deployment = await console.canary()
    await console.enter("viewer", f"#/rollouts/{deployment}")
    await expect(page.get_by_text("Live: this page moves")).to_be_visible()
    await expect(page.get_by_text("step 3: wait for approval")).to_have_count(1)
    asked: list[dict[str, str]] = []
    page.on("request", lambda request: asked.append(request.headers) if request.url.endswith("/events") else None)
    console.site.container.streams.close()  # as an api that stops does; the next one goes on
    await expect(page.get_by_text("Not live: the api ended the stream")).to_be_visible()
    console.site.container.streams._closed = False
    await console.move(deployment, 4, status=S.IN_PROGRESS)
    await expect(page.get_by_text("step 4: stage 2.0.0")).to_have_count(1)
    await expect(page.get_by_text("step 3: wait for approval")).to_have_count(1)
    assert asked[-1]["last-event-id"] == "3"
    assert all("token-of-viewer" not in request["referer"] for request in asked if "referer" in request)


async def test_an_abort_takes_a_reason_and_a_refusal_is_shown_in_words(console: Console) -> None:
    page = console.page
    deployment = await console.canary()
    await console.move(deployment, 6, status=S.IN_PROGRESS, waiting_for="")
    await console.enter("developer", f"#/rollouts/{deployment}")
    await expect(button(page, "Abort")).to_be_visible()
    assert await offered(page) == ["Pause", "Promote", "Abort", "Roll back"]
    await button(page, "Abort").click()
    dialog = page.get_by_role("dialog", name="Abort greeter 2.0.0?")
    await dialog.get_by_label("Reason (required)").fill("   ")
    await dialog.get_by_role("button", name="Abort").click()
    assert console.site.rollouts.sent == []
    console.site.rollouts.away = True
    await dialog.get_by_label("Reason (required)").fill("wrong tax table")
    await dialog.get_by_role("button", name="Abort").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("Temporal at nowhere does not answer")
    console.site.rollouts.away = False
    await dialog.get_by_role("button", name="Abort").click()
    await expect(dialog).to_have_count(0)
    assert [(name, sent.reason) for name, sent, _ in console.site.rollouts.sent] == [("abort", "wrong tax table")]
    assert [fault for fault in console.faults if "503" not in fault] == []
    console.faults.clear()


async def test_who_may_not_decide_is_offered_nothing(console: Console) -> None:
    page = console.page
    deployment = await console.canary()
    await console.enter("viewer", f"#/rollouts/{deployment}")
    await expect(page.get_by_text("Waits for 1 approval")).to_be_visible()
    assert await offered(page) == []
    await console.move(deployment, 6, status=S.PAUSED, waiting_for="somebody")
    await expect(page.get_by_text("Waits for somebody")).to_be_visible()
    assert await offered(page) == []


async def test_what_strangers_wrote_is_shown_as_text(console: Console) -> None:
    page = console.page
    deployment = await console.canary(reason=HOSTILE, outcome_reason=HOSTILE)
    answer = await console.site.admin.put(f"{API}/plugins/greeter", json={"description": HOSTILE})
    assert answer.status_code == 200, answer.text
    await console.site.project(deployment, console.line(5, "command", HOSTILE))
    await console.enter("admin", f"#/rollouts/{deployment}")
    await expect(page.get_by_role("region", name="About").get_by_text(HOSTILE)).to_be_visible()
    await expect(page.get_by_role("region", name="Timeline").get_by_text(HOSTILE)).to_be_visible()
    await expect(page.locator("main img, main script")).to_have_count(0)
    assert await page.title() == "greeter 1.0.0 → 2.0.0 · HotSwap"
    link = page.get_by_role("link", name="Open in the Temporal Web UI")
    assert (await link.get_attribute("href") or "").startswith("http://temporal.test/namespaces/default/workflows/")
    assert await link.get_attribute("rel") == "noopener noreferrer"


async def test_the_policy_refuses_what_a_hole_would_need(console: Console) -> None:
    page = console.page
    await console.open()
    refused = await page.evaluate(
        """() => {
          const tries = [() => { document.body.innerHTML = '<b>x</b>'; }, () => document.write('x'),
            () => { document.createElement('script').src = 'https://elsewhere.test/x.js'; }];
          return tries.map((one) => { try { one(); return 'done'; } catch (fault) { return fault.name; } });
        }"""
    )
    assert refused == ["TypeError", "TypeError", "TypeError"]
    assert console.faults, "Chromium tells of each"
    console.faults.clear()


async def test_everything_can_be_done_without_a_mouse(console: Console) -> None:
    page = console.page
    deployment = await console.canary()
    await console.enter("approver")
    await page.reload()
    await expect(page.get_by_role("heading", name="Rollouts", level=1)).to_be_focused()
    await page.keyboard.press("Shift+Tab")  # back from the heading: the header's last control
    await expect(button(page, "Sign out")).to_be_focused()
    link = page.get_by_role("link", name="greeter 1.0.0 → 2.0.0")
    await expect(link).to_be_visible()
    await tab_to(page, link)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()
    await expect(button(page, "Reject")).to_be_visible()
    await tab_to(page, button(page, "Reject"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Reason (required)")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(button(page, "Reject")).to_be_focused()
    await console.site.project(deployment, waiting_for="1 approval, still")  # drawn anew under the reader's feet
    await expect(page.get_by_text("1 approval, still")).to_be_visible()
    await expect(button(page, "Reject")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.type("not in December")
    await tab_to(page, page.get_by_role("dialog").get_by_role("button", name="Reject"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert [(name, sent.reason) for name, sent, _ in console.site.rollouts.sent] == [("reject", "not in December")]


async def tab_to(page: Page, target: Any, most: int = 40) -> None:
    for _ in range(most):
        if await target.evaluate("one => one === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"{target} is not within {most} presses of Tab")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_view_is_accessible_and_fits_320_pixels(console: Console, scheme: Any, tmp_path: Path) -> None:
    page = console.page
    deployment = await console.canary(nodes=nodes(), verdict=verdict(Outcome.FAIL, 0.12))
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await console.open()
    await console_is_fine(page, tmp_path, f"door-{scheme}")
    await console.enter("admin")
    await expect(page.get_by_role("link", name="greeter 1.0.0 → 2.0.0")).to_be_visible()
    await console_is_fine(page, tmp_path, f"rollouts-{scheme}")
    await console.open(f"#/rollouts/{deployment}")
    await page.get_by_text("All figures as a table").click()
    await expect(page.get_by_role("heading", name="Audit")).to_be_visible()
    await console_is_fine(page, tmp_path, f"rollout-{scheme}")
    await button(page, "Abort").click()
    await console_is_fine(page, tmp_path, f"dialog-{scheme}")
    await page.keyboard.press("Escape")
    await console.open("#/nodes")
    await expect(page.get_by_role("table", name="Environments")).to_be_visible()
    await console_is_fine(page, tmp_path, f"nodes-{scheme}")
    await console.open("#/tenants/acme")
    await expect(page.get_by_role("table", name="Plugins of acme")).to_be_visible()
    await console_is_fine(page, tmp_path, f"tenants-{scheme}")


async def console_is_fine(page: Page, folder: Path, name: str) -> None:
    """No finding of axe, wide and narrow; nothing sticks out of a narrow page."""
    for width in (1280, 320):
        await page.set_viewport_size({"width": width, "height": 900})
        found = await Axe().run(page)
        assert found.violations_count == 0, f"{name} at {width}: {found.generate_report()}"
        await shoot(page, folder, f"{name}-{width}")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} at {width}"


async def shoot(page: Page, folder: Path, name: str) -> None:
    """A picture for a person."""
    path = folder / f"{name}.png"
    await page.screenshot(path=path, full_page=True)
    print(path)


async def test_steps_to_come_have_their_titles(console: Console) -> None:
    page = console.page
    deployment = await console.canary()
    await console.enter("viewer", f"#/rollouts/{deployment}")
    steps = page.get_by_role("region", name="Steps and nodes").get_by_role("listitem")
    await expect(steps.filter(has_text="step 7")).to_contain_text(
        "not begun"
    )  # a release before this one told no titles
    planned = console.line(40, "plan", "8 steps from 1.0.0 to 2.0.0", steps=[*STEPS[:7], HOSTILE])
    await console.site.project(deployment, planned)
    await expect(steps.filter(has_text="promote")).to_contain_text("not begun")
    await expect(steps.filter(has_text="<script>")).to_contain_text("not begun")
    assert await page.title() != "owned"


async def test_the_tenants_page_shows_what_the_api_tells(console: Console) -> None:
    page, site = console.page, console.site
    await console.canary()
    await site.approve("1.0.0")
    for path, body in (("pin", {"version": "1.0.0"}), ("disable", None)):
        ask = site.owner.put if path == "pin" else site.owner.post
        assert (await ask(f"{API}/tenants/acme/plugins/greeter/{path}", json=body)).status_code == 200
    await console.enter("owner", "#/tenants")
    await page.get_by_role("list", name="Your tenants").get_by_role("link", name="acme").click()
    row = page.get_by_role("table", name="Plugins of acme").get_by_role("row", name="greeter")
    for told in ("disabled", "1.0.0", "Development 1.0.0"):
        await expect(row).to_contain_text(told)
    await page.get_by_label("Tenant", exact=True).fill("globex")
    await button(page, "Show").click()
    await expect(page.get_by_role("alert")).to_contain_text("may not act for this tenant")
    assert [fault for fault in console.faults if "403" not in fault] == []
    console.faults.clear()
