"""One plugin, deployed again and again as a client would who is used to servers that die: repeat under the same key, ask on.

Neighbours: tests.chaos.scenarios says what, tests.chaos.checks looks at each finished run, tests.chaos.run has many lanes.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from hotswap.cli.client import API
from hotswap.cli.faults import ApiError, CliError
from hotswap.cli.follow import is_over
from tests.chaos.checks import check_run
from tests.chaos.scenarios import BROKEN, CONFIGS, GOOD, TAKES_BACK, Scenario
from tests.e2e.live import Live

ANSWER = 'return {"greeting": '
"""Where the template's plugin answers; traffic's tenants are called tenant-..., the trial's is not."""

LOOK_EVERY = 0.25

START_WITHIN = 90.0
"""Seconds in which a POST must be taken: a part that died is back within 10, and two may die at a time."""

COMMAND_WITHIN = 40.0

END_WITHIN = 180.0
"""Seconds in which a run must be terminal; one without kills takes 2 to 8."""


@dataclass
class Run:
    """One deployment: what was asked, how it ended, and every way in which that was wrong."""

    plugin: str
    scenario: Scenario
    before: str
    after: str
    id: str = ""
    run_id: str = ""
    workflow_id: str = ""
    status: str = "never accepted"
    seconds: float = 0.0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return is_over({"status": self.status})


@dataclass
class Lane:
    """A plugin with its own history. `serving` is the version its tenants have, by our own book-keeping."""

    live: Live
    plugin: str
    runs: list[Run] = field(default_factory=list)
    serving: str = GOOD[0]
    generation: int = 0

    async def deploy(self, scenario: Scenario) -> list[Run]:
        """A whole run and the checks on its traces; two when a person took the completed one back."""
        target = BROKEN if scenario.broken else next(one for one in GOOD if one != self.serving)
        run = Run(self.plugin, scenario, self.serving, target)
        back_id = await self._carry_out(run, lambda: self._start(run))
        if scenario.meddle == "take-back" and run.status == "Completed":
            back_id = await self._command(run, "rollback", must=True)
        if not back_id:
            return [run]
        back = Run(self.plugin, TAKES_BACK, self.serving, run.before, id=back_id)
        await self._carry_out(back, lambda: self._find(back))
        return [run, back]

    async def _carry_out(self, run: Run, begin: Callable[[], Awaitable[None]]) -> str:
        """The id of the deployment that takes this one back, if a person started one."""
        self.runs.append(run)
        began, over, back_id = time.monotonic(), asyncio.Event(), ""
        try:
            await begin()
            meddling = asyncio.create_task(self._meddle(run, over))
            try:
                await self._until_over(run)
            finally:
                over.set()
                back_id = await meddling
        except (TimeoutError, CliError) as fault:
            run.faults.append(f"lost: {fault}")
            return ""
        finally:
            run.seconds = time.monotonic() - began
        await check_run(self.live, self, run)
        return back_id

    async def _start(self, run: Run) -> None:
        body = self.live.body(run.plugin, run.after, run.scenario.strategy, **CONFIGS[run.scenario.strategy])
        body["config"]["drainGrace"] = "PT1S"
        deployment = await self._insist(f"{API}/deployments", body, START_WITHIN, self._of_a_run_that_ends)
        run.id = deployment["deploymentId"]
        run.workflow_id, run.run_id = deployment["workflowId"], deployment["runId"]
        if run.id in {other.id for other in self.runs if other is not run}:
            run.faults.append(f"the api answered with an older deployment, {run.id}")

    async def _find(self, run: Run) -> None:
        """Of a deployment that a command started, the rest."""
        async with asyncio.timeout(START_WITHIN):
            while (deployment := await self._ask(run.id)) is None:
                await asyncio.sleep(LOOK_EVERY)
        run.workflow_id, run.run_id = deployment["workflowId"], deployment["runId"]

    async def _until_over(self, run: Run) -> None:
        try:
            async with asyncio.timeout(END_WITHIN):
                while True:
                    deployment = await self._ask(run.id)
                    if deployment is not None:
                        run.status = deployment["status"]
                        if is_over(deployment):
                            return
                        if run.status == "Paused":
                            run.resumed += 1
                            await self._command(run, "resume")
                    await asyncio.sleep(LOOK_EVERY)
        except TimeoutError:
            raise TimeoutError(f"{run.id} is still {run.status} after {END_WITHIN:.0f} s") from None

    async def _meddle(self, run: Run, over: asyncio.Event) -> str:
        """The scenario's command at its moment; the id of what a rollback that came too late started."""
        scenario = run.scenario
        if scenario.meddle in ("", "take-back"):
            return ""
        try:
            async with asyncio.timeout(scenario.after):
                await over.wait()
        except TimeoutError:
            return await self._command(run, scenario.meddle)
        return ""

    async def _ask(self, deployment_id: str) -> dict[str, Any] | None:
        """The deployment as the api tells it; None while the api or what is behind it is away."""
        try:
            return await self.live.api.deployment(deployment_id)
        except CliError as fault:
            if not _passing(fault):
                raise
            return None

    async def _command(self, run: Run, verb: str, must: bool = False) -> str:
        """The id of the deployment that the command started, "" when it started none. It may be refused unless it `must`."""
        path = f"{API}/deployments/{run.id}/{verb}"
        try:
            answer = await self._insist(path, {"reason": "chaos"}, COMMAND_WITHIN)
        except (TimeoutError, CliError) as fault:
            if must or _code(fault) != "CONFLICT":  # a conflict: it moved on meanwhile
                run.faults.append(f"{verb}: {fault}")
            return ""
        return str(answer["deploymentId"]) if answer["deploymentId"] != run.id else ""

    async def _insist(
        self, path: str, body: dict[str, Any], within: float, later: Callable[[CliError], bool] = lambda fault: False
    ) -> dict[str, Any]:
        """POST under one Idempotency-Key, and again while nobody answers or the refusal is one to repeat `later`.

        Raises CliError for any other refusal, TimeoutError.
        """
        key, last = f"chaos-{uuid.uuid4().hex}", "no answer"
        try:
            async with asyncio.timeout(within):
                while True:
                    try:
                        return dict(await self.live.api.call("POST", path, body=body, key=key))
                    except CliError as fault:
                        if not _passing(fault) and not later(fault):
                            raise
                        last = fault.message
                    await asyncio.sleep(LOOK_EVERY)
        except TimeoutError:
            raise TimeoutError(f"{path} was not taken within {within:.0f} s: {last}") from None

    def _of_a_run_that_ends(self, fault: CliError) -> bool:
        """A new deployment right after the last one's end may meet the workflow while it closes."""
        return fault.code == "CONFLICT" and any(one.id and one.id in fault.message and one.over for one in self.runs)


def _code(fault: Exception) -> str:
    return fault.code if isinstance(fault, CliError) else ""


def _passing(fault: CliError) -> bool:
    """A repeat helps: nobody answered, or a server behind the api was away."""
    return not isinstance(fault, ApiError) or fault.status in (502, 503, 504)


async def new_lane(live: Live) -> Lane:
    """A fresh plugin with two good versions and a broken one; the first serves."""

    def broken(source: str) -> str:
        return source.replace(
            ANSWER, f'if context.tenant.startswith("tenant-"):\n            raise ValueError("bad")\n        {ANSWER}'
        )

    lane = Lane(live, await live.new_plugin(*GOOD, BROKEN, code=broken))
    first = await live.deploy(lane.plugin, GOOD[0])
    assert first.status == "Completed", first.describe()
    lane.generation = (await live.route(lane.plugin)).generation
    return lane
