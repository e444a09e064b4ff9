"""Sandbox sessions: take a place and start the workflow, queue executions, read results, end.

The record comes first (a place is taken, the request is kept), then the workflow; what it refuses is withdrawn again.
Neighbours: api.services.sandbox_gateway carries out, workflows.sandbox_session keeps the session.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import Any

from pydantic import ValidationError

from api.schemas.sandbox import ExecuteIn, ExecutionOut, ResultsQuery, SandboxIn, SandboxOut, SandboxQuery
from api.services.actor import Actor
from api.services.idempotency import Once, fingerprint
from api.services.plugins import entry
from api.services.rollouts import RolloutOver
from api.services.sandbox_gateway import Sandboxes
from hotswap.config import SandboxSettings, Settings
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput, SandboxUnavailable, Unavailable
from hotswap.domain.ids import derived_id, new_id
from hotswap.domain.lifecycle import PluginStatus, VersionStatus
from hotswap.domain.manifest import Method, Resources, field_faults
from hotswap.domain.registry import PluginVersion
from hotswap.domain.sandbox import (
    MAX_EXECUTIONS,
    MAX_REQUEST_BYTES,
    SandboxExecution,
    SandboxSession,
    SessionStatus,
    over_already,
    request_text,
)
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from hotswap.ports.sandbox_records import SandboxFilter
from hotswap.runtime.caps import above, capped
from hotswap.runtime.config_check import ConfigCheck
from workflows.messages import Command
from workflows.sandbox_messages import END, EXECUTE, ExecuteCommand

log = logging.getLogger(__name__)

CREATE, RUN = "sandbox.create", "sandbox.execute"
SHORTEST_LIFE = timedelta(seconds=1)
SHORTEST_EXECUTION = timedelta(milliseconds=1)
LOOK_FIRST, LOOK_MOST = 0.02, 0.25
"""Seconds between two looks at a result that somebody waits for: a look is one select by primary key."""


class SandboxService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, sandboxes: Sandboxes | None, settings: Settings) -> None:
        self._unit_of_work = unit_of_work
        self._reached = sandboxes
        self._settings = settings
        self._config_check = ConfigCheck()

    @property
    def _sandboxes(self) -> Sandboxes:
        if self._reached is None:
            raise Unavailable("this api has no way to reach sandboxes")
        return self._reached

    async def create(self, wanted: SandboxIn, actor: Actor, once: Once) -> SandboxOut:
        """Raises InvalidInput, NotFound, Conflict (no place is free: it names the oldest), Unavailable (a repeat helps)."""
        request_hash = fingerprint(wanted)
        sandbox_id = derived_id("sbx", actor.user, once.key) if once.key else new_id("sbx")
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, SandboxOut):
                return known
            session = await self._session(uow, wanted, actor, sandbox_id)
            made = await uow.sandboxes.open(session, self._settings.sandbox.max_instances)
            session = await uow.sandboxes.get(sandbox_id)
            await uow.commit()
        try:
            run_id = await self._sandboxes.start(session)
        except BaseException:
            if made:  # not when it was here before: then its workflow may run
                await asyncio.shield(self._discard(sandbox_id))
            raise
        session = session.model_copy(update={"run_id": run_id})
        answer = SandboxOut.of(session, self._settings.temporal, {})
        details = {
            "plugin": session.artifact.plugin,
            "version": session.artifact.version,
            "environment": session.environment,
            "expiresAt": session.expires_at.isoformat(),
        }
        try:
            async with self._unit_of_work() as uow:
                await uow.sandboxes.started(sandbox_id, run_id)
                await uow.audit.append(entry("sandbox.created", "sandbox", sandbox_id, actor, await uow.now(), details))
                await once.keep(uow, request_hash, 201, answer)
                await uow.commit()
        except Unavailable as fault:
            # It runs, and it will end by itself: to refuse now would be a lie.
            log.warning("sandbox %s runs, but that was not recorded: %s", sandbox_id, fault.message)
        return answer

    async def _session(self, uow: UnitOfWork, wanted: SandboxIn, actor: Actor, sandbox_id: str) -> SandboxSession:
        limits = self._settings.sandbox
        life = _bounded("ttl", wanted.ttl, SHORTEST_LIFE, limits.max_lifetime)
        timeout = _bounded("executionTimeout", wanted.execution_timeout, SHORTEST_EXECUTION, limits.timeout)
        plugin = await uow.plugins.get(wanted.plugin_id)
        version = await uow.versions.get(wanted.plugin_id, wanted.version)
        if plugin.status == PluginStatus.ARCHIVED or version.status == VersionStatus.ARCHIVED:
            raise Conflict(f"{plugin.name} {version.version} is Archived and runs nowhere any more")
        if limits.tier == "none" and wanted.environment is Environment.PRODUCTION:
            raise SandboxUnavailable(
                "sandbox tier 'none' is never accepted for Production; set HOTSWAP_SANDBOX__TIER=standard"
            )
        now = await uow.now()
        return SandboxSession(
            sandbox_id=sandbox_id,
            artifact=version.ref,
            environment=wanted.environment,
            resources=_resources(version, wanted.resources, limits),
            execution_timeout=timeout,
            tier=limits.tier,
            created_by=actor.user,
            created_at=now,
            expires_at=now + life,
        )

    async def _discard(self, sandbox_id: str) -> None:
        """Give the place back of what could not be started; where even that fails, it is free once its time is over."""
        try:
            async with self._unit_of_work() as uow:
                await uow.sandboxes.discard(sandbox_id)
                await uow.commit()
        except Unavailable as fault:
            log.warning("the place of %s, which was not started, is taken until it expires: %s", sandbox_id, fault)

    async def execute(self, sandbox_id: str, wanted: ExecuteIn, actor: Actor, once: Once) -> ExecutionOut:
        """Queue it; as it stands after `wait`, at most. Raises InvalidInput, NotFound, Conflict, Unavailable."""
        asked = wanted.model_dump(mode="json", exclude={"wait"})  # to wait longer is no other request
        request_hash = fingerprint({"sandbox": sandbox_id, **asked})
        execution_id = derived_id("exe", actor.user, once.key) if once.key else new_id("exe")
        async with self._unit_of_work() as uow:
            session = await uow.sandboxes.get(sandbox_id)
            if await once.first_answer(uow, request_hash, ExecutionOut):
                known = await uow.sandboxes.execution(sandbox_id, execution_id)
                return await self._after(known, wanted.wait)
            if session.status is not SessionStatus.ACTIVE:
                raise over_already(session)
            execution, request = await self._execution(uow, session, wanted, actor, execution_id)
            await uow.sandboxes.queue(execution, request, MAX_EXECUTIONS)
            await uow.commit()
        await self._ask(session, execution)
        try:
            async with self._unit_of_work() as uow:
                details = {"execution": execution_id, "method": execution.method, "tenant": execution.tenant}
                now = await uow.now()
                await uow.audit.append(entry("sandbox.execution.requested", "sandbox", sandbox_id, actor, now, details))
                await once.keep(uow, request_hash, 202, ExecutionOut.of(execution))
                await uow.commit()
        except Unavailable as fault:
            log.warning("execution %s was taken but not audited here: %s", execution_id, fault.message)
        return await self._after(execution, wanted.wait)

    async def _execution(
        self, uow: UnitOfWork, session: SandboxSession, wanted: ExecuteIn, actor: Actor, execution_id: str
    ) -> tuple[SandboxExecution, str]:
        version = await uow.versions.get(session.artifact.plugin, session.artifact.version)
        method = _method(version, wanted.method)
        timeout = _bounded("timeout", wanted.timeout, SHORTEST_EXECUTION, session.execution_timeout)
        for field, content in (("parameters", wanted.parameters), ("configuration", wanted.configuration)):
            if (size := len(json.dumps(content, separators=(",", ":")))) > MAX_REQUEST_BYTES:
                fault = f"is {size} bytes of JSON; at most {MAX_REQUEST_BYTES} are taken"
                raise InvalidInput(f"{field} {fault}", [FieldFault(field, fault)])
        if wanted.configuration is not None:
            await self._check_configuration(version, wanted.configuration)
        execution = SandboxExecution(
            execution_id=execution_id,
            sandbox_id=session.sandbox_id,
            method=method.name,
            idempotent=method.idempotent,
            tenant=wanted.tenant,
            timeout=timeout,
            requested_by=actor.user,
            queued_at=await uow.now(),
        )
        return execution, request_text(wanted.parameters, wanted.configuration)

    async def _check_configuration(self, version: PluginVersion, configuration: dict[str, Any]) -> None:
        """As a tenant's: no plugin has to expect what no tenant could store. Raises InvalidInput naming each fault."""
        manifest = version.manifest
        whole = {**manifest.config_defaults(), **configuration}
        if faults := await self._config_check.faults(manifest.configuration_schema, whole, manifest.version):
            named = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:3])
            raise InvalidInput(f"the configuration does not fit: {named}", faults)

    async def _ask(self, session: SandboxSession, execution: SandboxExecution) -> None:
        """Have the workflow take it; a refusal takes it off the record again."""
        command = ExecuteCommand(
            by=execution.requested_by,
            execution_id=execution.execution_id,
            method=execution.method,
            timeout=execution.timeout,
        )
        try:
            await self._sandboxes.command(session, EXECUTE, command, execution.execution_id)
        except Conflict as refusal:
            async with self._unit_of_work() as uow:
                await uow.sandboxes.withdraw(execution.execution_id)
                await uow.commit()
                now = await uow.sandboxes.get(session.sandbox_id)
            if isinstance(refusal, RolloutOver):
                raise over_already(now) if now.status is not SessionStatus.ACTIVE else _workflow_gone(now) from None
            raise

    async def _after(self, execution: SandboxExecution, patience: timedelta) -> ExecutionOut:
        """As it stands once it has finished, or once nobody waits any longer."""
        until, pause = monotonic() + patience.total_seconds(), LOOK_FIRST
        try:
            while not execution.over and (left := until - monotonic()) > 0:
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 2, LOOK_MOST)
                async with self._unit_of_work() as uow:
                    execution = await uow.sandboxes.execution(execution.sandbox_id, execution.execution_id)
        except Unavailable as fault:
            log.info("nobody can look at %s now: %s", execution.execution_id, fault.message)
        return ExecutionOut.of(execution)

    async def results(self, sandbox_id: str, query: ResultsQuery) -> tuple[Sequence[ExecutionOut], int]:
        """Newest first; with an execution's id that one alone, whole. Raises NotFound."""
        async with self._unit_of_work() as uow:
            await uow.sandboxes.get(sandbox_id)
            if query.execution_id is not None:
                found = [await uow.sandboxes.execution(sandbox_id, query.execution_id)]
                return [ExecutionOut.of(one) for one in found[query.offset :]], 1
            rows, total = await uow.sandboxes.executions(sandbox_id, query)
        return [ExecutionOut.of(row) for row in rows], total

    async def get(self, sandbox_id: str) -> SandboxOut:
        """Raises NotFound."""
        async with self._unit_of_work() as uow:
            session = await uow.sandboxes.get(sandbox_id)
            return SandboxOut.of(session, self._settings.temporal, await uow.sandboxes.counts(sandbox_id))

    async def list(self, query: SandboxQuery) -> tuple[list[SandboxOut], int]:
        """Newest first."""
        where = SandboxFilter(plugin=query.plugin_id, environment=query.environment, status=query.status)
        async with self._unit_of_work() as uow:
            rows, total = await uow.sandboxes.list(where, query)
        return [SandboxOut.of(row, self._settings.temporal) for row in rows], total

    async def end(self, sandbox_id: str, reason: str, actor: Actor) -> None:
        """Returns once nothing of it runs any more; one that has ended is left as it is. Raises NotFound, Unavailable."""
        async with self._unit_of_work() as uow:
            session = await uow.sandboxes.get(sandbox_id)
        if session.status is not SessionStatus.ACTIVE:
            return
        command = Command(by=actor.user, roles=actor.ordered_roles(), reason=reason)
        try:
            await self._sandboxes.command(session, END, command, None)
        except RolloutOver as gone:
            log.warning(
                "%s had no workflow any more (%s): ended on record alone", sandbox_id, gone.execution or "unknown"
            )
            async with self._unit_of_work() as uow:
                if await uow.sandboxes.close(
                    sandbox_id, SessionStatus.DELETED, f"deleted by {actor.user}; its workflow was gone"
                ):
                    now = await uow.now()
                    await uow.audit.append(
                        entry("sandbox.ended", "sandbox", sandbox_id, actor, now, {"reason": reason})
                    )
                await uow.commit()


def _bounded(field: str, asked: timedelta | None, least: timedelta, most: timedelta) -> timedelta:
    if asked is None:
        return most
    if least <= asked <= most:
        return asked
    message = f"must lie between {_seconds(least)} and {_seconds(most)}"
    raise InvalidInput(f"{field} {message}", [FieldFault(field, message)])


def _seconds(duration: timedelta) -> str:
    return f"PT{duration.total_seconds():g}S"


def _method(version: PluginVersion, name: str) -> Method:
    known = {method.name: method for method in version.manifest.methods}
    if name in known:
        return known[name]
    message = f"'{name}' is not a method of {version.plugin} {version.version}; it has {', '.join(list(known)[:20])}"
    raise InvalidInput(message, [FieldFault("method", message)])


def _resources(version: PluginVersion, asked: dict[str, Any], caps: SandboxSettings) -> Resources:
    """The manifest's as far as there is, with what was asked for in their place. Raises InvalidInput by key."""
    given = capped(version.manifest.resources, caps)
    try:
        found = Resources.model_validate({**given.model_dump(mode="json"), **asked})
    except ValidationError as fault:
        faults = [FieldFault(f"resources.{one.field}", one.message) for one in field_faults(fault)]
    else:
        faults = above(found, caps)
        if found.scratch_mb and caps.tier != "strong":
            message = f"needs sandbox tier strong; this platform is set to {caps.tier}"
            faults.append(FieldFault("resources.scratchMb", message))
    if faults:
        named = "; ".join(f"{one.field} {one.message}" for one in faults[:5])
        raise InvalidInput(f"this sandbox cannot be had: {named}", faults)
    return found


def _workflow_gone(session: SandboxSession) -> Conflict:
    return Conflict(
        f"the workflow of {session.sandbox_id} was ended in Temporal by hand: delete the sandbox and make another"
    )
