"""Isolated processes for one purpose: a trial (load a version, run its smoke tests) or one call of a sandbox session.

Port of hotswap.runtime. Neighbours: activities.trial and activities.sandbox order, hotswap.domain.sandbox keeps.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from hotswap.domain.base import BoundedText, Model, TenantId
from hotswap.domain.deployment import Environment
from hotswap.domain.manifest import Resources
from hotswap.domain.routes import ArtifactRef


class SmokeResult(Model):
    method: str
    passed: bool
    duration_ms: float
    detail: BoundedText = ""


class TrialReport(Model):
    """What happened in the sandbox. `limit` names the limit that was hit, if one was."""

    passed: bool
    sandbox_tier: str
    load_ms: float = 0.0
    duration_ms: float = 0.0
    peak_memory_bytes: int = 0
    smoke_tests: tuple[SmokeResult, ...] = Field(default=(), max_length=100)
    limit: str = ""
    detail: BoundedText = ""


class TrialRunner(Protocol):
    async def run_trial(self, archive: Path, timeout: timedelta) -> TrialReport:
        """Unpack the (already verified) archive safely and try it.

        A plugin's failure is a report with passed=False, never an exception. Raises BundleRejected or
        ManifestInvalid for a bad archive, SandboxUnavailable when the isolation cannot be proven.
        Leaves no process and no directory behind, also when cancelled.
        """
        ...


class SandboxCall(Model):
    """One method of one version, called once in a process of its own. `parameters` is a JSON object as text.

    `configuration` is what the plugin is told as its tenant's; None = the manifest's defaults. There are no secrets.
    """

    ref: ArtifactRef
    environment: Environment
    resources: Resources
    method: str
    tenant: TenantId
    parameters: str
    configuration: dict[str, Any] | None = None
    timeout: timedelta


class CallReport(Model):
    """What the call came to. `output` is the result as JSON text, `logs` what the plugin printed, both bounded."""

    succeeded: bool
    sandbox_tier: str
    output: str | None = None
    limit: str = ""
    error_kind: BoundedText = ""
    reason: BoundedText = ""
    logs: str = ""
    load_ms: float = 0.0
    duration_ms: float = 0.0
    peak_memory_bytes: int = 0


class SandboxCaller(Protocol):
    @property
    def sandbox_tier(self) -> str: ...

    async def prepare(self, ref: ArtifactRef) -> None:
        """Have the version unpacked here, so that a call begins at once. No code of the plugin runs.

        Raises ArtifactMissing, ArtifactCorrupt, ArtifactTooLarge, BundleRejected, ManifestInvalid (repeats cannot help),
        Unavailable (a repeat may help).
        """
        ...

    async def call(self, order: SandboxCall) -> CallReport:
        """Fork, isolate, load, call, end. The plugin's failure is a report, never an exception.

        Raises as `prepare` does, and SandboxUnavailable when the isolation cannot be proven or does not do for the
        environment. Leaves no process and no directory behind, also when cancelled.
        """
        ...
