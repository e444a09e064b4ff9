"""Tenants' configuration and secrets on their way into a host: over the channel, replaced live, never anywhere else."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hotswap.adapters.memory.tenant_settings import MemoryTenantSettings
from hotswap.domain.errors import PluginError
from hotswap.domain.permissions import SECRETS_READ
from hotswap.runtime import tenant_ledger
from hotswap.runtime.handle import ZygoteHost
from tests.integration.host_lab import SOON, ask, launched, spec_of_source, until

SECRET = "s3cret-of-acme/Zm9v"

SOURCE = """
    import asyncio, copy, json, logging, os, pickle, sys
    from hotswap_plugin import get_logger
    log = get_logger("made")
    class Plugin:
        def settings(self, parameters, context):
            return [context.config, dict(context.secrets), context.settings_version]
        def config(self, parameters, context):
            return context.config
        async def slow(self, parameters, context):
            before = context.config["n"]
            await asyncio.sleep(0.3)
            return [before, context.config["n"]]
        def change(self, parameters, context):
            faults = []
            for attempt in (
                lambda: context.config.update(a=1), lambda: context.config["deep"].clear(),
                lambda: context.config["deep"]["list"].append(1), lambda: context.secrets.__setitem__("key", "x"),
                lambda: setattr(context, "config", {}),
            ):
                try:
                    attempt()
                except (TypeError, AttributeError) as fault:
                    faults.append(type(fault).__name__)
            mine = copy.deepcopy(context.config)
            mine["deep"]["list"] = [1]
            return len(faults)
        def shown(self, parameters, context):
            try:
                pickle.dumps(context.secrets)
                return "pickled"
            except TypeError:
                return repr(context) + repr(context.secrets) + str(context.secrets) + f"{context.secrets!r}"
        def leak(self, parameters, context):
            secret = context.secrets["key"]
            print("printed", secret)
            print(json.dumps({"key": secret}))
            log.warning("logged %s", secret)
            os.write(2, f"raw {secret}\\n".encode())
            try:
                raise KeyError(secret)
            except KeyError:
                log.exception("with a traceback")
            raise RuntimeError(f"refused with {secret} at " + "x" * 1975 + secret)
        def elsewhere(self, parameters, context):
            return [dict(os.environ), sys.argv]
"""


@asynccontextmanager
async def made(
    folder: Path, tenants: MemoryTenantSettings, *permissions: str, **defaults: Any
) -> AsyncIterator[ZygoteHost]:
    spec = spec_of_source(folder, SOURCE, permissions=permissions, config_defaults=defaults)
    async with launched(spec, tenants=tenants) as host:
        yield host


async def by(host: ZygoteHost, tenant: str, method: str, timeout: timedelta = SOON) -> Any:
    return json.loads(await host.invoke(method, tenant, b"{}", timeout))


async def test_each_tenant_has_its_own_and_a_change_holds_from_the_next_call(tmp_path: Path) -> None:
    tenants = MemoryTenantSettings()
    tenants.put("acme", "made", {"region": "eu"}, {"key": SECRET})
    tenants.put("acme", "another", {"region": "mars"})
    async with made(tmp_path, tenants, SECRETS_READ, region="us", size=3) as host:
        config, secrets, version = await by(host, "acme", "settings")
        assert (config, secrets) == ({"region": "eu", "size": 3}, {"key": SECRET})
        assert await by(host, "globex", "settings") == [{"region": "us", "size": 3}, {}, 0]
        tenants.put("acme", "made", {"size": 4}, {"key": "rotated"})
        config, secrets, newer = await by(host, "acme", "settings")
        assert (config, secrets) == ({"region": "us", "size": 4}, {"key": "rotated"})
        assert newer != version
        tenants.remove("acme", "made")
        assert await by(host, "acme", "settings") == [{"region": "us", "size": 3}, {}, 0]


async def test_a_call_keeps_what_it_began_with(tmp_path: Path) -> None:
    tenants = MemoryTenantSettings()
    tenants.put("acme", "made", {"n": 1})
    async with made(tmp_path, tenants) as host:
        answers: list[Any] = []
        host.submit("slow", "acme", b"{}", 60.0, lambda reply: answers.append(json.loads(reply.body)))
        tenants.put("acme", "made", {"n": 2})
        assert await by(host, "acme", "config") == {"n": 2}
        await until(lambda: bool(answers))
        assert answers == [[1, 1]]


async def test_without_the_permission_secrets_are_neither_sent_nor_named(tmp_path: Path) -> None:
    tenants = MemoryTenantSettings()
    tenants.put("acme", "made", {"a": 1}, {"key": SECRET})
    async with made(tmp_path, tenants) as host:
        assert await by(host, "acme", "config") == {"a": 1}
        with pytest.raises(PluginError, match=r"requiredPermissions: secrets\.read") as caught:
            await by(host, "acme", "settings")
        assert caught.value.kind == "PermissionError"
        assert host._ledger is not None
        tenants.put("acme", "made", {"a": 2}, {"key": SECRET})
        assert SECRET.encode() not in host._ledger.before_call("acme")
    async with made(tmp_path, tenants, SECRETS_READ) as host:
        assert host._ledger is not None
        assert SECRET.encode() in host._ledger.before_call("acme")
        assert host._ledger.before_call("acme") == b""


async def test_settings_cannot_be_changed_and_do_not_print(tmp_path: Path) -> None:
    tenants = MemoryTenantSettings()
    tenants.put("acme", "made", {"deep": {"list": []}}, {"key": SECRET})
    async with made(tmp_path, tenants, SECRETS_READ) as host:
        assert await by(host, "acme", "change") == 5
        assert (await by(host, "acme", "settings"))[0] == {"deep": {"list": []}}
        shown = await by(host, "acme", "shown")
        assert SECRET not in shown
        assert "<Secrets: key>" in shown


async def test_a_secret_that_is_leaked_by_accident_is_masked_in_logs_and_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tenants = MemoryTenantSettings()
    tenants.put("acme", "made", {}, {"key": SECRET})
    async with made(tmp_path, tenants, SECRETS_READ) as host:
        with pytest.raises(PluginError, match=r"^refused with \*\*\* at x") as caught:
            await by(host, "acme", "leak")
        assert SECRET[:8] not in caught.value.message  # also not the beginning, where the message was cut
        await until(lambda: sum("***" in message for message in caplog.messages) >= 5)
        environment, arguments = await by(host, "acme", "elsewhere")
        assert SECRET not in json.dumps([environment, arguments])
    assert SECRET not in caplog.text
    bound = next(record for record in caplog.records if record.getMessage() == "made: logged ***")
    assert (bound.levelname, bound.__dict__["tenant"], bound.__dict__["plugin"]) == ("WARNING", "acme", "made")


async def test_what_a_host_holds_is_bounded_and_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_ledger, "MAX_HELD_BYTES", 1000)
    tenants = MemoryTenantSettings()
    for number in range(20):
        tenants.put(f"t-{number}", "made", {"number": number, "more": "x" * 100})
    async with made(tmp_path, tenants) as host:
        for _ in range(2):
            for number in range(20):
                assert (await by(host, f"t-{number}", "config"))["number"] == number
        assert host._ledger is not None
        assert len(host._ledger._held) == len(host._ledger._sizes) < 10
        assert host._ledger._bytes == sum(host._ledger._sizes.values()) <= 1000


async def test_a_host_of_no_provider_has_the_defaults(tmp_path: Path) -> None:
    async with launched(spec_of_source(tmp_path, SOURCE, config_defaults={"a": 1})) as host:
        assert await ask(host, "config") == {"a": 1}
