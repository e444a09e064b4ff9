"""One plugin of an author's machine in a real host: built, unpacked and shut in as a node does it, with settings of choice.

Neighbours: hotswap.cli.plugin_test is its face (`hotswap plugin test`), hotswap_plugin.testing the one for an author's own
tests; hotswap.runtime.trial does the like on the platform, for versions that were uploaded.
"""

import asyncio
import json
import platform
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from jsonschema.validators import Draft202012Validator
from packaging.specifiers import SpecifierSet
from referencing import Registry

from hotswap.domain.errors import FieldFault, HostFailed, InvalidInput
from hotswap.domain.manifest import Manifest
from hotswap.domain.permissions import SECRETS_READ
from hotswap.ports.hosts import HostSpec
from hotswap.ports.sandbox import SmokeResult
from hotswap.ports.tenant_settings import MAX_SETTINGS_BYTES, TenantSettings
from hotswap.runtime.build import build_plugin
from hotswap.runtime.bundle import unpack
from hotswap.runtime.egress import EgressPolicy
from hotswap.runtime.handle import ZygoteHost
from hotswap.runtime.launcher import ZygoteLauncher
from hotswap.runtime.sandbox import Tier
from hotswap.runtime.smoke import run_smoke_test, schema_check_by

TENANT = "local"
_BUNDLE = "bundle"
_MAX_MEMORY_MB = 8192
"""The most that a manifest can ask for: this machine's author decides, no node's settings do."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the plugin finds. cpu_seconds: hold it to the manifest's limit over its whole life, as a trial does."""

    tier: Tier = "standard"
    config: Mapping[str, Any] | None = None
    secrets: Mapping[str, str] | None = None
    egress: EgressPolicy | None = None
    limit_cpu: bool = False


class Workbench:
    """A live host. Belongs to the event loop it was opened in."""

    def __init__(self, manifest: Manifest, host: ZygoteHost, launcher: ZygoteLauncher, settings: "_Settings") -> None:
        self.manifest = manifest
        self.host = host
        self._launcher = launcher
        self._settings = settings

    def configure(self, config: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None) -> None:
        """Replace what every tenant has, from the next call on. Raises InvalidInput."""
        self._settings.put(config, secrets)

    async def call(self, method: str, parameters: Mapping[str, Any], tenant: str, timeout: timedelta) -> Any:
        """The method's result. Raises PluginError, HostFailed (with its limit), NotFound."""
        return json.loads(await self.host.invoke(method, tenant, json.dumps(parameters).encode(), timeout))

    async def smoke(self, tenant: str, timeout: timedelta) -> AsyncIterator[tuple[SmokeResult, str]]:
        """Each smoke test's result as it comes, with the limit that was hit, if one was; ends early when the host does."""
        check = schema_check_by(self._launcher)
        for test in self.manifest.smoke_tests:
            begun = perf_counter()
            found = await run_smoke_test(self.host, test, tenant, timeout, check)
            milliseconds = (perf_counter() - begun) * 1000
            result = SmokeResult(method=test.method, passed=not found.why, duration_ms=milliseconds, detail=found.why)
            yield result, found.limit
            if not self.host.alive:
                return


@asynccontextmanager
async def open_workbench(source: Path, given: Given) -> AsyncIterator[Workbench]:
    """Build `source` if it is a folder, unpack it into a directory of its own, start it. Nothing is left behind.

    Raises InvalidInput, ManifestInvalid, BundleRejected (its input), SandboxUnavailable (this machine), HostFailed.
    """
    with tempfile.TemporaryDirectory(prefix="hotswap-workbench-") as scratch:
        manifest = await _to_its_end(asyncio.create_task(asyncio.to_thread(_unpack, source, Path(scratch))))
        _check_python(manifest)
        settings = _Settings(manifest)
        settings.put(given.config, given.secrets)
        launcher = ZygoteLauncher(given.tier, _MAX_MEMORY_MB, tenants=settings, egress=given.egress)
        try:
            await launcher.start()  # apart, so that the load time is the plugin's own
            cpu = manifest.resources.cpu_seconds if given.limit_cpu else None
            host = await launcher.launch(HostSpec.of(manifest, Path(scratch) / _BUNDLE), cpu_seconds=cpu)
            yield Workbench(manifest, host, launcher, settings)
        finally:
            await asyncio.shield(launcher.close())


async def _to_its_end(unpacking: "asyncio.Task[Manifest]") -> Manifest:
    """Await it; who is cancelled waits until its thread is done, which would write into a folder that is being removed."""
    try:
        return await asyncio.shield(unpacking)
    except asyncio.CancelledError:
        await asyncio.wait({unpacking})
        raise


def _unpack(source: Path, scratch: Path) -> Manifest:
    if not source.exists():
        raise InvalidInput(f"there is no {source}", [FieldFault("source", "name a plugin's folder or its zip")])
    scratch.chmod(0o755)  # a host's own user must get at its bundle, as on a node
    archive = source
    if source.is_dir():
        archive = scratch / "plugin.zip"
        build_plugin(source, archive)
    return unpack(archive, scratch / _BUNDLE)


def _check_python(manifest: Manifest) -> None:
    python = platform.python_version()
    if not SpecifierSet(manifest.requires_python).contains(python, prereleases=True):
        raise HostFailed(f"requires-python {manifest.requires_python} excludes this Python {python}", "LOAD_FAILED")


class _Settings:
    """A TenantSettingsProvider that gives every tenant the same."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._version = 0
        self._settings: TenantSettings | None = None

    def put(self, config: Mapping[str, Any] | None, secrets: Mapping[str, str] | None) -> None:
        """Raises InvalidInput naming what the manifest does not allow."""
        if secrets and SECRETS_READ not in self._manifest.required_permissions:
            remedy = f"add '{SECRETS_READ}' to requiredPermissions, or give none"
            raise InvalidInput("the plugin may not read secrets", [FieldFault("secrets", remedy)])
        if config is not None and (faults := _config_faults(self._manifest, config)):
            raise InvalidInput("the configuration does not fit the manifest's configurationSchema", faults)
        if max(len(json.dumps(dict(part or {}))) for part in (config, secrets)) > MAX_SETTINGS_BYTES:
            raise InvalidInput(f"the configuration or the secrets have over {MAX_SETTINGS_BYTES} bytes")
        self._version += 1
        self._settings = TenantSettings(self._version, dict(config or {}), dict(secrets or {}))

    def current(self, tenant: str, plugin: str) -> TenantSettings | None:
        del tenant, plugin
        return self._settings

    async def ensure(self, plugin: str) -> None:
        """It is known."""

    async def refresh(self) -> None:
        """It is known."""


def _config_faults(manifest: Manifest, config: Mapping[str, Any]) -> Sequence[FieldFault]:
    registry: Registry[Any] = Registry()  # empty: a $ref to elsewhere is a fault, never fetched
    validator = Draft202012Validator(manifest.configuration_schema, registry=registry)
    whole = {**manifest.config_defaults(), **config}
    return [
        FieldFault(".".join(["config", *map(str, fault.absolute_path)]), fault.message[:300])
        for fault in validator.iter_errors(whole)
    ]
