"""`console`: the console in a browser tab, served by a real server over the facade's twins, with all that it complained of.

A rollout is moved by the test itself, so that every state can be shown at once; test_console_live has the real ones.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import uvicorn
from playwright.async_api import ConsoleMessage, Page, expect

from hotswap.domain.analysis import HostReport, MetricVerdict, Outcome, Verdict
from hotswap.domain.deployment import NodeProgress, TimelineEvent
from hotswap.domain.lifecycle import DeploymentStatus
from tests.http.site import Site

S = DeploymentStatus
STEPS = (
    "verify 2.0.0",
    "trial 2.0.0",
    "wait for approval",
    "stage 2.0.0",
    "set weight 25 %",
    "observe at 25 %",
    "promote",
    "retire 1.0.0",
)


@dataclass
class Console:
    site: Site
    url: str
    page: Page
    faults: list[str] = field(default_factory=list)
    """Errors and warnings of the page: broken scripts and what the content security policy refused."""

    async def open(self, view: str = "") -> None:
        await self.page.goto(f"{self.url}/console{view}")

    async def enter(self, user: str, view: str = "") -> None:
        """With the development token of one of the site's people."""
        await self.open()
        await self.page.get_by_text("I have a token").click()
        await self.page.get_by_label("Token", exact=True).fill(f"token-of-{user}")
        await self.page.get_by_role("button", name="Use this token").click()
        await expect(self.page.get_by_role("heading", name="Rollouts", level=1)).to_be_visible()
        if view:
            await self.open(view)

    async def canary(self, **more: Any) -> str:
        """A rollout of greeter 2.0.0 that the developer started; waits for its approval."""
        await self.site.ship("greeter", "1.0.0", "2.0.0")
        first = (await self.site.deploy("1.0.0")).json()["deploymentId"]
        await self.site.complete(first)
        deployment: str = (await self.site.deploy("2.0.0", client=self.site.developer, strategy="Canary")).json()[
            "deploymentId"
        ]
        await self.move(
            deployment, 3, status=S.AWAITING_APPROVAL, waiting_for="1 approval", approvals_required=1, **more
        )
        return deployment

    async def move(self, deployment: str, step: int, *events: TimelineEvent, **changes: Any) -> None:
        """To a step, with the timeline that leads there."""
        before = await self.site.progress(deployment)
        begun = range(before.step_number + 1, step + 1)
        told = [self.line(number, "step", f"step {number}: {STEPS[number - 1]}") for number in begun]
        await self.site.project(
            deployment, *told, *events, step_number=step, step_count=len(STEPS), step_title=STEPS[step - 1], **changes
        )

    @staticmethod
    def line(sequence: int, kind: str, message: str, **data: Any) -> TimelineEvent:
        at = datetime.now(UTC) + timedelta(seconds=sequence)
        return TimelineEvent(sequence=sequence, at=at, kind=kind, message=message, data=data)


@asynccontextmanager
async def serving(site: Site, page: Page) -> AsyncIterator[Console]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        server = uvicorn.Server(uvicorn.Config(site.app, lifespan="off", log_config=None))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        console = Console(site, f"http://127.0.0.1:{listener.getsockname()[1]}", page)

        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                console.faults.append(message.text)

        page.on("console", heard)
        page.on("pageerror", lambda fault: console.faults.append(str(fault)))
        try:
            yield console
        finally:
            await page.goto("about:blank")  # no stream is left for the server to wait for
            site.container.streams.close()
            server.should_exit = True
            await running


def verdict(outcome: Outcome = Outcome.PASS, failed: float = 0.004) -> Verdict:
    def share(metric: str, estimate: float, threshold: float, old: float | None = None) -> MetricVerdict:
        return MetricVerdict(
            metric=metric, outcome=outcome, n=812, estimate=estimate, lower=max(0.0, estimate - 0.004),
            upper=estimate + 0.011, threshold=threshold, baseline_n=2400 if old is not None else None,
            baseline_estimate=old, explanation=f"{estimate:.2%} of 812 requests of 2.0.0",
        )  # fmt: skip

    return Verdict(
        outcome=outcome,
        reason="all metrics pass" if outcome is Outcome.PASS else "error-rate: 12 % of 812 requests failed",
        metrics=(
            MetricVerdict(metric="probes", outcome=Outcome.PASS, explanation="every host answers its probe"),
            share("error-rate", failed, 0.05),
            share("error-rate-vs-baseline", failed - 0.003, 0.01, 0.003),
            share("latency-p99", 0.006, 0.01),
            share("latency-vs-baseline", 0.008, 0.015, 0.01),
        ),
        candidate_requests=812,
        baseline_requests=2400,
        actual_weight_percent=25.3,
        nodes_heard=("node-1", "node-2"),
        taken_at=datetime.now(UTC),
        window=timedelta(minutes=1),
    )


def nodes() -> tuple[NodeProgress, ...]:
    def host(version: str, **more: Any) -> HostReport:
        return HostReport(
            plugin="greeter",
            version=version,
            state="Ready",
            pid=4711,
            sandbox_tier="strong",
            memory_bytes=41_000_000,
            **more,
        )

    return (
        NodeProgress(node_id="node-1", state="Ready", generation=7, hosts=(host("1.0.0"), host("2.0.0", in_flight=3))),
        NodeProgress(node_id="node-2", state="Ready", generation=7, hosts=(host("1.0.0"), host("2.0.0", crashes=1))),
    )
