"""Record the histories of all scenarios anew: `python -m tests.replay.record [NAME ...]`.

Only after a change that running deployments cannot replay (then they needed `workflow.patched` too). Review the diff.
"""

import asyncio
import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from hotswap import temporal
from tests.replay.scenarios import SCENARIOS
from tests.workflow.world import World

HISTORIES = Path(__file__).parent / "histories"


def without_machine(part: Any) -> Any:
    """The history without what only says where it was recorded: stack traces, host names, process ids."""
    if isinstance(part, dict):
        return {key: without_machine(value) for key, value in part.items() if key not in ("stackTrace", "identity")}
    if isinstance(part, list):
        return [without_machine(item) for item in part]
    return part


async def record(names: list[str]) -> None:
    server = str(Path(sys.executable).with_name("temporal"))
    knobs = ("history.transferProcessorMaxPollRPS=1000", "history.timerProcessorMaxPollRPS=1000")
    extra = [part for knob in knobs for part in ("--dynamic-config-value", knob)]
    async with await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter, dev_server_existing_path=server, dev_server_extra_args=extra
    ) as environment:
        await temporal.ensure_search_attributes(environment.client)
        for name in names:
            with tempfile.TemporaryDirectory() as scratch:
                world = World(environment.client, Path(scratch), name=f"replay-{name}"[:60])
                await world.fill()
                async with world.working():
                    await world.serve_first_version()
                    handle = await SCENARIOS[name](world)
                    with suppress(WorkflowFailureError):
                        await handle.result()
                history = await environment.client.get_workflow_handle(
                    handle.id, run_id=handle.first_execution_run_id
                ).fetch_history()
                document = without_machine(json.loads(history.to_json()))
                text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
                (HISTORIES / f"{name}.json").write_text(text + "\n", encoding="utf-8")
                print(f"{name}: {len(history.events)} events")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1:] or list(SCENARIOS)))
