"""Runbooks about rollouts and versions, followed to their end. For `make runbooks`."""

import shutil
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from hotswap.cli.client import API
from hotswap.cli.plugins import push_bundle, read_bundle
from hotswap.demo.rollout import Rollout
from hotswap.runtime.build import build_plugin, init_plugin
from tests.e2e.live import ENVIRONMENT, Live, eventually
from tests.e2e.test_main_job import FAILS_LIVE, RETURN
from tests.runbooks.conftest import Open
from tests.runbooks.faults import down, hung, restart
from tests.runbooks.page import ROOT, Page

pytestmark = pytest.mark.timeout(600)

WATCHED = {
    "steps": [30, 100],
    "evaluationPeriod": "PT1H",
    "evaluationInterval": "PT1S",
    "thresholds": {"minSample": 10},
}
JUDGED = {
    "steps": [50, 100],
    "evaluationPeriod": "PT2S",
    "evaluationInterval": "PT0.5S",
    "thresholds": {"minSample": 10},
}
DIES = 'if context.tenant.startswith("tenant-"):\n            __import__("os")._exit(3)\n        '
"""Tenants of the traffic generator kill its process; smoke tests and acme do not."""


async def canary(live: Live, plugin: str, **config: Any) -> Rollout:
    """2.0.0 at its first step, with nobody watching on."""
    rollout = await Rollout.start(live.api, live.body(plugin, "2.0.0", "Canary", **(config or WATCHED)))
    async with rollout:
        await rollout.until(lambda one: one.weight() == 30, "the first step", 60)
    return rollout


async def workflow(live: Live, plugin: str) -> WorkflowHandle[Any, Any]:
    client = await Client.connect(live.settings.temporal.address, namespace=live.settings.temporal.namespace)
    return client.get_workflow_handle(f"deployment/{ENVIRONMENT}/{plugin}")


def variables(plugin: str, **more: str) -> dict[str, str]:
    return {"PLUGIN": plugin, "ENVIRONMENT": ENVIRONMENT, "TENANT": "acme", **more}


async def test_freeze(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    held = await canary(live, plugin)
    try:
        async with reading("freeze", **variables(plugin, VERSION="2.0.0", ID=held.id)) as reader:
            await reader.follow("Look", "Act: stop everything", "Act: release", "Over when")
    except BaseException:  # the other tests share this system
        await live.api.call("POST", f"{API}/freezes/stop/lift", body={"reason": "the test is over"})
        raise


async def test_automatic_rollback(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0", code=lambda text: text.replace(RETURN, FAILS_LIVE + RETURN))
    await live.deploy(plugin, "1.0.0")
    async with live.traffic(plugin):
        rollout = await live.deploy(plugin, "2.0.0", "Canary", **JUDGED)
    assert rollout.status == "RolledBack"

    async def ship() -> None:
        await version_of(live, plugin, "2.0.1")

    known = variables(plugin, ID=rollout.id, BAD="2.0.0", MENDED="2.0.1") | {"TENANT": "tenant-1"}
    async with reading("automatic-rollback", **known) as reader:
        await reader.follow("Look", "Act", "Over when", **{"ship-the-mended-version": ship})


async def version_of(live: Live, plugin: str, version: str) -> None:
    """Another version of the plugin, in the registry."""
    folder = live._scratch / plugin / version
    init_plugin(folder, plugin)
    manifest = folder / "plugin.toml"
    manifest.write_text(manifest.read_text().replace('version = "0.1.0"', f'version = "{version}"'))
    built = build_plugin(folder, folder / "out.zip")
    await push_bundle(live.api, read_bundle(built.path), "")


async def test_deployment_failure_of_the_version(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0", code=lambda text: text.replace(RETURN, "return {}"))
    await live.deploy(plugin, "1.0.0")
    rollout = await live.deploy(plugin, "2.0.0")
    assert rollout.status == "RolledBack"
    assert (await live.route(plugin)).generation == 2, "no tenant had it"
    async with reading("deployment-failure", **variables(plugin, ID=rollout.id, MENDED="2.0.1")) as reader:
        source = reader.folder / "source"
        (live._scratch / plugin / "2.0.0").rename(source)

        async def mend() -> None:
            module, manifest = next(source.glob("*.py")), source / "plugin.toml"
            module.write_text(module.read_text().replace("return {}", RETURN))
            manifest.write_text(manifest.read_text().replace('version = "2.0.0"', 'version = "2.0.1"'))

        await reader.follow("Look", "Act: the version is at fault", "Over when", **{"mend-the-plugin": mend})


async def test_deployment_failure_of_the_way_back(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    rollout = await canary(live, plugin)
    async with down(live, "postgres") as mend:
        order = {"by": "on-call", "reason": "it is bad"}
        await (await workflow(live, plugin)).signal("abort", order)
        known = variables(plugin, ID=rollout.id, GOOD="2.0.0")
        async with reading("deployment-failure", **known) as reader:
            await reader.follow("Act: traffic does not come back", "Over when", **{"restart-database": mend})


async def test_stuck_for_a_person(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    rollout = await Rollout.start(live.api, live.body(plugin, "2.0.0", "Canary", **JUDGED | {"steps": [100]}))
    async with rollout:
        await rollout.until_status("Paused")
    async with reading("stuck-deployment", **variables(plugin, ID=rollout.id)) as reader:
        await reader.follow("Look", "Act: it waits for a person", "Over when")


async def test_stuck_by_a_broken_release(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0")
    before = live.stack._supervised["worker"].part.environment["PYTHONPATH"]
    await restart(live, "worker", PYTHONPATH=f"{broken_release(live)}:{before}")
    rollout = await Rollout.start(live.api, live.body(plugin, "1.0.0", "Direct"))

    async def fails() -> bool:
        raw = (await (await workflow(live, plugin)).describe()).raw_description
        return raw.pending_workflow_task.attempt > 1

    async def bring_back() -> None:
        await restart(live, "worker", PYTHONPATH=before)

    try:
        await eventually(fails, "workflow tasks fail", 60)
        async with reading("stuck-deployment", **variables(plugin, ID=rollout.id)) as reader:
            await reader.follow("Look", "Act: workflow tasks fail", "Over when", **{"release-before": bring_back})
    finally:
        await bring_back()


def broken_release(live: Live) -> str:
    """A folder with the workflows of a release that has a bug."""
    folder = live._scratch / "broken"
    shutil.copytree(ROOT / "workflows", folder / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
    module = folder / "workflows" / "deployment.py"
    text = module.read_text()
    start = "        state = self._state\n        if state.status is DeploymentStatus.PENDING:\n"
    assert start in text
    module.write_text(text.replace(start, f'        raise RuntimeError("a bug of this release")\n{start}'))
    return str(folder)


async def test_plugin_failures(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0", code=lambda text: text.replace(RETURN, DIES + RETURN))
    await live.deploy(plugin, "1.0.0")
    await live.deploy(plugin, "2.0.0", autoRollback=False)
    async with live.traffic(plugin) as traffic:

        async def crashes() -> bool:
            return any(host.crashes for node in await live.node_figures(plugin) for host in node.hosts)

        await eventually(crashes, "its hosts crash")
        async with reading("plugin-failures", **variables(plugin)) as reader:
            await reader.follow("Look", "Act", "Over when")

        async def back() -> bool:
            stable = (await live.route(plugin)).state.stable
            return stable is not None and stable.version == "1.0.0"

        await eventually(back, "the version before serves")
        await traffic.stop()


async def test_node_lost(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0")
    await live.deploy(plugin, "1.0.0")
    node = live.stack.info["nodes"][2]
    where = {"NODE_URL": node["routerUrl"], "NODE_ADMIN_URL": node["adminUrl"]}
    async with hung(live, node["id"]) as mend:

        async def seen() -> bool:
            return len(await live.node_figures(plugin)) == 2

        await eventually(seen, "the node is missed")
        async with reading("node-lost", **variables(plugin, **where)) as reader:
            await reader.follow("Look", "Act", "Over when", **{"replace-node": mend})


async def test_tutorial(live: Live, reading: Open) -> None:
    async with reading("tutorial", ROOT / "docs/tutorial.md") as reader:
        (reader.folder / ".hotswap").symlink_to(live.stack._data.root)
        await reader.follow(*Page(ROOT / "docs/tutorial.md").sections)
