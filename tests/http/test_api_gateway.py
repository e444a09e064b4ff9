"""The rollout gateway against a real Temporal server: starts, holders, commands, refusals, silence."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, format_trace_id, use_span
from temporalio import workflow
from temporalio.client import Client
from temporalio.contrib.opentelemetry import create_tracer_provider
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from api.services.rollout_gateway import RolloutGateway
from api.services.rollouts import Handle, RolloutOver
from hotswap import temporal
from hotswap.config import Settings
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest, DirectConfig, Environment, Role
from hotswap.domain.errors import Conflict, DeploymentRunning, Forbidden, HotSwapError, InvalidInput, Unavailable
from hotswap.domain.ids import new_id
from workflows.messages import Command, CommandResult

ORDER = Command(by="somebody", roles=(Role.ADMIN,), reason="because")


@workflow.defn(name="DirectDeployment")
class Obedient:
    """The messages of a deployment and none of its work."""

    @workflow.init
    def __init__(self, request: DeploymentRequest) -> None:
        self.request = request
        self.obeyed = 0
        self.over = False
        self.again = False

    @workflow.run
    async def run(self, request: DeploymentRequest) -> None:
        await workflow.wait_condition(lambda: self.over or self.again)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self.again:
            workflow.continue_as_new(request)

    @workflow.update
    async def linger(self) -> None:
        """Ended for everybody who asks, and not closed yet."""
        workflow.upsert_search_attributes([temporal.STATUS.value_set("Completed")])

    @workflow.query
    def status(self) -> DeploymentProgress:
        asked = self.request
        return DeploymentProgress(
            deployment_id=asked.deployment_id,
            plugin=asked.plugin,
            environment=asked.environment,
            strategy=asked.strategy,
            to_version=asked.version,
            initiated_by=asked.initiated_by,
            requested_at=asked.requested_at,
            sequence=self.obeyed,
        )

    def _obey(self, message: str) -> CommandResult:
        self.obeyed += 1
        return CommandResult(deployment_id=self.request.deployment_id, status="InProgress", message=message)

    @workflow.update
    async def pause(self, command: Command) -> CommandResult:
        return self._obey(f"{command.by}: {self.obeyed}")

    @pause.validator
    def _check_pause(self, command: Command) -> None:
        if command.reason.startswith("refuse:"):
            kind = command.reason.removeprefix("refuse:")
            raise ApplicationError(f"not now ({kind})", type=kind, non_retryable=True)

    @workflow.update
    async def abort(self, command: Command) -> CommandResult:
        self.over = True
        return self._obey("over")

    @workflow.update
    async def resume(self, command: Command) -> CommandResult:
        self.again = True
        return self._obey("again")


@pytest.fixture
def temporal_settings(settings: Settings, unique: Callable[[str], str]) -> TemporalSettings:
    """A task queue of this test's own: polled only when it says so."""
    return settings.temporal.model_copy(update={"task_queue": unique("gateway")})


@pytest.fixture
def gateway(temporal_settings: TemporalSettings) -> RolloutGateway:
    return RolloutGateway(temporal_settings, command_timeout=timedelta(seconds=5))


@pytest.fixture
def request_of(unique: Callable[[str], str]) -> Callable[..., DeploymentRequest]:
    plugin = unique("plugin")

    def make(**more: str) -> DeploymentRequest:
        fields = {"deployment_id": new_id("dep"), "plugin": plugin, "version": "1.0.0", **more}
        return DeploymentRequest(
            **fields,
            environment=Environment.STAGING,
            config=DirectConfig(),
            initiated_by="somebody",
            requested_at=datetime.now(UTC),
        )

    return make


@asynccontextmanager
async def polled(client: Client, queue: str) -> AsyncIterator[None]:
    async with Worker(client, task_queue=queue, workflows=[Obedient], workflow_runner=UnsandboxedWorkflowRunner()):
        yield


async def end(client: Client, handle: Handle) -> None:
    await client.get_workflow_handle(handle.workflow_id).terminate()


async def test_a_start_waits_for_one_that_has_ended_to_leave_its_place(
    gateway: RolloutGateway,
    temporal_client: Client,
    temporal_settings: TemporalSettings,
    request_of: Callable[..., DeploymentRequest],
) -> None:
    async with polled(temporal_client, temporal_settings.task_queue):
        first = await gateway.start(request_of())
        with pytest.raises(DeploymentRunning):
            await gateway.start(request_of())
        await temporal_client.get_workflow_handle(first.workflow_id).execute_update("linger")
        next_one = asyncio.create_task(gateway.start(request_of()))
        done, _ = await asyncio.wait({next_one}, timeout=0.3)
        assert not done, "neither refused nor started while the place is taken"
        await gateway.command(first, "abort", ORDER, None)
        second = await next_one
        assert second.run_id != first.run_id
        await end(temporal_client, second)


async def test_a_start_is_readable_in_the_web_ui(
    gateway: RolloutGateway, temporal_client: Client, request_of: Callable[..., DeploymentRequest]
) -> None:
    request = request_of(rollback_of="dep_before")
    handle = await gateway.start(request)
    told = await temporal_client.get_workflow_handle(handle.workflow_id).describe()
    assert handle.workflow_id == f"deployment/Staging/{request.plugin}"
    assert (told.run_id, told.workflow_type) == (handle.run_id, "DirectDeployment")
    attributes = told.typed_search_attributes
    assert [attributes.get(key) for key in temporal.SEARCH_ATTRIBUTES] == [
        request.plugin,
        "1.0.0",
        "Staging",
        "Direct",
        "Pending",
        request.deployment_id,
        None,  # no stage of a pipeline
    ]
    assert await told.memo_value("deploymentId") == request.deployment_id
    assert await told.static_summary() == f"{request.plugin} 1.0.0 -> Staging by Direct"
    details = await told.static_details()
    assert details is not None
    assert "dep_before" in details
    await end(temporal_client, handle)


async def test_the_requests_trace_goes_on_in_the_workflow(
    gateway: RolloutGateway,
    temporal_client: Client,
    request_of: Callable[..., DeploymentRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", create_tracer_provider(shutdown_on_exit=False))  # as an api has
    parent = SpanContext(trace_id=0xA5 << 96 | 7, span_id=7, is_remote=False, trace_flags=TraceFlags(1))
    with use_span(NonRecordingSpan(parent)):
        handle = await gateway.start(request_of())
    history = await temporal_client.get_workflow_handle(handle.workflow_id).fetch_history()
    headers = history.events[0].workflow_execution_started_event_attributes.header.fields
    assert any(format_trace_id(parent.trace_id).encode() in payload.data for payload in headers.values())
    await end(temporal_client, handle)


async def test_a_second_start_names_the_holder_and_a_repeat_of_the_first_finds_it(
    gateway: RolloutGateway, temporal_client: Client, request_of: Callable[..., DeploymentRequest]
) -> None:
    first = request_of()
    handle = await gateway.start(first)
    with pytest.raises(DeploymentRunning) as refused:
        await gateway.start(request_of())
    assert refused.value.holder == first.deployment_id
    assert await gateway.start(first) == handle
    await end(temporal_client, handle)
    second = await gateway.start(request_of())
    assert second.run_id != handle.run_id
    await end(temporal_client, second)


async def test_of_twenty_starts_at_once_one_runs(
    gateway: RolloutGateway, temporal_client: Client, request_of: Callable[..., DeploymentRequest]
) -> None:
    answers = await asyncio.gather(*(gateway.start(request_of()) for _ in range(20)), return_exceptions=True)
    handles = [answer for answer in answers if isinstance(answer, Handle)]
    assert len(handles) == 1
    assert all(isinstance(answer, DeploymentRunning) for answer in answers if answer not in handles)
    await end(temporal_client, handles[0])


async def test_a_command_is_obeyed_once_for_one_update_id(
    gateway: RolloutGateway,
    temporal_client: Client,
    temporal_settings: TemporalSettings,
    request_of: Callable[..., DeploymentRequest],
) -> None:
    request = request_of()
    async with polled(temporal_client, temporal_settings.task_queue):
        handle = await gateway.start(request)
        first = await gateway.command(handle, "pause", ORDER, "pause:somebody:k")
        again = await gateway.command(handle, "pause", ORDER, "pause:somebody:k")
        other = await gateway.command(handle, "pause", ORDER, None)
        assert (first, other.message) == (again, "somebody: 1")
        told = await gateway.status(handle)
        assert told is not None
        assert (told.deployment_id, told.sequence) == (request.deployment_id, 2)
    await end(temporal_client, handle)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("Conflict", Conflict), ("Forbidden", Forbidden), ("InvalidInput", InvalidInput), ("Anything", Conflict)],
)
async def test_a_validators_refusal_keeps_its_words(
    gateway: RolloutGateway,
    temporal_client: Client,
    temporal_settings: TemporalSettings,
    request_of: Callable[..., DeploymentRequest],
    kind: str,
    error: type[HotSwapError],
) -> None:
    async with polled(temporal_client, temporal_settings.task_queue):
        handle = await gateway.start(request_of())
        with pytest.raises(error) as refused:
            await gateway.command(handle, "pause", ORDER.model_copy(update={"reason": f"refuse:{kind}"}), None)
        assert type(refused.value) is error
        assert refused.value.message == f"not now ({kind})"
    await end(temporal_client, handle)


async def test_a_command_reaches_the_run_that_continues_the_deployment(
    gateway: RolloutGateway,
    temporal_client: Client,
    temporal_settings: TemporalSettings,
    request_of: Callable[..., DeploymentRequest],
) -> None:
    async with polled(temporal_client, temporal_settings.task_queue):
        handle = await gateway.start(request_of())
        await gateway.command(handle, "resume", ORDER, None)
        assert (await gateway.command(handle, "pause", ORDER, None)).message == "somebody: 0"
        told = await temporal_client.get_workflow_handle(handle.workflow_id).describe()
        assert told.run_id != handle.run_id
        with pytest.raises(DeploymentRunning):
            await gateway.start(request_of())
    await end(temporal_client, handle)


async def test_a_command_to_an_ended_deployment_never_reaches_its_successor(
    gateway: RolloutGateway,
    temporal_client: Client,
    temporal_settings: TemporalSettings,
    request_of: Callable[..., DeploymentRequest],
) -> None:
    async with polled(temporal_client, temporal_settings.task_queue):
        ended = await gateway.start(request_of())
        await gateway.command(ended, "abort", ORDER, None)
        await temporal_client.get_workflow_handle(ended.workflow_id).result()
        with pytest.raises(RolloutOver) as over:
            await gateway.command(ended, "pause", ORDER, None)
        assert over.value.execution == "Completed"
        successor = await gateway.start(request_of())
        with pytest.raises(RolloutOver):
            await gateway.command(ended, "abort", ORDER, None)
        told = await gateway.status(successor)
        assert told is not None
        assert told.sequence == 0
    await end(temporal_client, successor)


async def test_a_deployment_that_temporal_never_saw_is_over(gateway: RolloutGateway) -> None:
    with pytest.raises(RolloutOver) as over:
        await gateway.command(
            Handle("deployment/QA/ghost", "7d2d8ae8-7a1c-4a8e-a5a4-0d5f4b9e8b11"), "pause", ORDER, None
        )
    assert over.value.execution == ""


async def test_without_a_worker_a_command_ends_in_time_and_says_what_to_do(
    temporal_settings: TemporalSettings, temporal_client: Client, request_of: Callable[..., DeploymentRequest]
) -> None:
    gateway = RolloutGateway(temporal_settings, command_timeout=timedelta(milliseconds=300))
    handle = await gateway.start(request_of())
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="Idempotency-Key"):
            await gateway.command(handle, "pause", ORDER, "k")
        assert await gateway.status(handle) is None
    await end(temporal_client, handle)


async def test_temporal_may_come_later(temporal_settings: TemporalSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.services.rollout_gateway.CONNECT_PAUSE", 0.0)
    there = False
    tries = 0

    async def connect(settings: TemporalSettings) -> Client:
        nonlocal tries
        tries += 1
        return await temporal.connect(settings if there else settings.model_copy(update={"address": "127.0.0.1:1"}))

    prepared: list[str] = []

    async def prepare(client: Client) -> None:
        prepared.append(client.namespace)

    # Without them the first start is refused, when no worker was there to register them.
    monkeypatch.setattr(temporal, "ensure_search_attributes", prepare)
    gateway = RolloutGateway(temporal_settings, connect)
    with pytest.raises(Unavailable):
        await gateway.ready()
    there = True
    await asyncio.gather(*(gateway.ready() for _ in range(5)))
    assert (tries, prepared) == (2, [temporal_settings.namespace])


async def test_an_outage_is_told_at_once_to_those_who_come_next(temporal_settings: TemporalSettings) -> None:
    tries = 0

    async def connect(settings: TemporalSettings) -> Client:
        nonlocal tries
        tries += 1
        raise Unavailable("Temporal does not answer")

    gateway = RolloutGateway(temporal_settings, connect)
    answers = await asyncio.gather(*(gateway.ready() for _ in range(10)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert tries == 1


async def test_a_queued_start_waits_in_a_workflow_of_its_own_and_a_repeat_finds_it(
    gateway: RolloutGateway, temporal_client: Client, request_of: Callable[..., DeploymentRequest]
) -> None:
    first, second = request_of(), request_of()
    handles = [await gateway.enqueue(request) for request in (first, second)]
    assert [handle.workflow_id for handle in handles] == [
        f"queued/Staging/{request.plugin}/{request.deployment_id}" for request in (first, second)
    ]
    assert await gateway.enqueue(first) == handles[0]
    told = await temporal_client.get_workflow_handle(handles[0].workflow_id).describe()
    assert (told.workflow_type, told.typed_search_attributes.get(temporal.DEPLOYMENT)) == (
        "QueuedDeployment",
        first.deployment_id,
    )
    for handle in handles:
        await end(temporal_client, handle)
    assert await gateway.enqueue(first) == handles[0], "also when it is over: never twice"
