"""Sandbox sessions on the live system: real calls, a worker killed in the middle, and nothing left of any of it."""

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from hotswap.cli.client import API
from hotswap.cli.plugins import push_bundle, read_bundle
from hotswap.runtime.build import build_plugin, init_plugin
from tests.e2e.live import Live, eventually

METHODS = """

    def once(self, parameters, context):
        time.sleep(parameters["seconds"])
        return "once"

    def again(self, parameters, context):
        time.sleep(parameters["seconds"])
        return "again"

    def eat(self, parameters, context):
        print("hungry")
        return len(bytearray(2**31))
"""


@pytest.fixture(scope="module")
async def plugin(live: Live, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With a method that is declared idempotent, and others that are not."""
    folder = tmp_path_factory.mktemp("plugin") / "caller"
    name = f"caller-{live.stack.info['supervisorPid']}"
    init_plugin(folder, name)
    manifest, module = folder / "plugin.toml", next(folder.glob("*.py"))
    more = "".join(
        f'\n[[methods]]\nname = "{method}"\nidempotent = {declared}\n'
        for method, declared in (("once", "false"), ("again", "true"), ("eat", "false"))
    )
    manifest.write_text(manifest.read_text().replace("\n# What one process", f"{more}\n# What one process"))
    module.write_text(module.read_text().replace("from typing", "import time\nfrom typing").rstrip() + METHODS)
    built = await asyncio.to_thread(build_plugin, folder, folder / "out.zip")
    await push_bundle(live.api, read_bundle(built.path), "")
    return name


class Sandbox:
    def __init__(self, live: Live, sandbox_id: str) -> None:
        self._live = live
        self.id = sandbox_id

    @classmethod
    async def create(cls, live: Live, plugin: str, **more: Any) -> "Sandbox":
        body = {"pluginId": plugin, "version": "0.1.0", **more}
        return cls(live, (await live.api.call("POST", f"{API}/sandbox/create", body=body))["sandboxId"])

    async def execute(self, method: str, wait: str = "PT30S", **parameters: Any) -> dict[str, Any]:
        body = {"method": method, "parameters": parameters, "wait": wait}
        done: dict[str, Any] = await self._live.api.call("POST", f"{API}/sandbox/{self.id}/execute", body=body)
        return done

    async def result(self, execution_id: str) -> dict[str, Any]:
        page = await self._live.api.call("GET", f"{API}/sandbox/{self.id}/results", executionId=execution_id)
        found: dict[str, Any] = page["items"][0]
        return found

    async def reached(self, execution_id: str, *statuses: str) -> dict[str, Any]:
        async def there() -> bool:
            return (await self.result(execution_id))["status"] in statuses

        await eventually(there, f"{execution_id} is {' or '.join(statuses)}", 90)
        return await self.result(execution_id)

    async def status(self) -> str:
        return str((await self._live.api.call("GET", f"{API}/sandbox/{self.id}"))["status"])

    async def delete(self) -> None:
        await self._live.api.call("DELETE", f"{API}/sandbox/{self.id}")


def living() -> dict[int, tuple[int, str]]:
    """Every process that is no zombie: its parent and its name."""
    found: dict[int, tuple[int, str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            head, _, tail = stat.read_text("ascii", "replace").rpartition(")")
            if tail.split()[0] != "Z":
                found[int(stat.parent.name)] = (int(tail.split()[1]), head.partition("(")[2])
    return found


def descendants(pid: int) -> dict[int, str]:
    """Living processes below `pid`, with their names."""
    parents = living()
    found: dict[int, str] = {}
    while more := {one for one, (parent, _) in parents.items() if parent in {pid, *found}} - set(found):
        found |= {one: parents[one][1] for one in more}
    return found


def hosts(pid: int) -> set[int]:
    return {one for one, name in descendants(pid).items() if "zygote" not in name}


async def no_host_is_left(live: Live) -> None:
    async def none() -> bool:
        return not hosts(live.stack.pid("worker"))

    await eventually(none, "no host is left")


def on_disk(live: Live) -> list[str]:
    """What is under the worker's work directory. A process's own scratch is named alike for all; whole bundles are kept
    on purpose."""
    root = live.settings.work_dir
    kept = {path for path in (root / "bundles").glob("*") if not path.name.startswith(".") and path.is_dir()}
    names = [str(path.relative_to(root)) for path in root.rglob("*") if not {path, *path.parents} & kept]
    return sorted(re.sub(r"^worker/\d+-[^/]+", "worker/(its own)", name) for name in names)


async def test_a_call_and_a_call_over_its_limit(live: Live, plugin: str) -> None:
    sandbox = await Sandbox.create(live, plugin, resources={"memoryMb": 128})
    done = await sandbox.execute("greet", name="Ada")
    assert (done["status"], done["output"], done["tier"]) == ("Succeeded", {"greeting": "Hello, Ada!"}, "standard")
    eaten = await sandbox.execute("eat")
    assert (eaten["status"], eaten["limit"], eaten["logs"]) == ("Failed", "MEMORY_LIMIT", "hungry\n")
    await sandbox.delete()
    await sandbox.delete()
    assert await sandbox.status() == "Deleted"
    await no_host_is_left(live)


@pytest.mark.timeout(240)
async def test_a_session_outlives_its_worker_and_says_what_became_of_the_execution(live: Live, plugin: str) -> None:
    strict, patient = await Sandbox.create(live, plugin), await Sandbox.create(live, plugin)
    assert (await strict.execute("greet", name="Ada"))["status"] == "Succeeded"
    before = on_disk(live)
    once = await strict.execute("once", wait="PT0S", seconds=120)
    again = await patient.execute("again", wait="PT0S", seconds=5)
    for sandbox, execution in ((strict, once), (patient, again)):
        await sandbox.reached(execution["executionId"], "Running")

    async def both_run() -> bool:
        return len(hosts(live.stack.pid("worker"))) >= 2

    await eventually(both_run, "two hosts run")  # on record as Running a moment before they are forked
    family = set(descendants(live.stack.pid("worker")))
    killed = live.stack.kill("worker")
    await live.stack.restarted("worker", killed)

    lost = await strict.reached(once["executionId"], "Lost")
    assert lost["limit"] == "DIED"
    assert "the worker that ran it died" in lost["exitReason"]
    assert "'once' is not declared idempotent" in lost["exitReason"]
    repeated = await patient.reached(again["executionId"], "Succeeded")
    assert (repeated["output"], repeated["attempts"]) == ("again", 2)
    assert (await strict.execute("greet", name="Bob"))["output"] == {"greeting": "Hello, Bob!"}
    assert not family & set(living()), "hosts and zygotes died with their worker"

    # A delete in the middle of an execution leaves no process either.
    running = await strict.execute("once", wait="PT0S", seconds=120)
    await strict.reached(running["executionId"], "Running")
    await asyncio.gather(strict.delete(), patient.delete())
    assert (await strict.result(running["executionId"]))["status"] == "Cancelled"
    await no_host_is_left(live)
    assert on_disk(live) == before
