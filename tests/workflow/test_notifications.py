"""From what happens to what people are told: real workflows, a real receiver that fails, and nobody told twice."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.worker import Worker

from activities.notify import NotifyActivities
from hotswap.adapters.memory.record_state import KeptNotice
from hotswap.adapters.notification_channels import NotificationChannels
from hotswap.config_trail import NotificationSettings, WebhookSecret
from hotswap.domain.deployment import Environment
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.notices import Notice, NoticeKind
from hotswap.domain.notification_rules import (
    Delivery,
    DeliveryStatus,
    NotificationRule,
    StoredRule,
    WebhookTarget,
    delivery_id,
)
from hotswap.domain.registry import Page
from hotswap.ports.notifications import DeliveryFilter
from tests.contract.metrics_server import MetricsServer, Reply, Request
from tests.workflow.skipping import skip
from tests.workflow.world import NOW, World, direct, send, until
from workflows.catalog import WORKFLOW_RUNNER
from workflows.notify import NotificationDelivery
from workflows.notify_dispatch import NoticeDispatcher

KEY = "a-signing-key-of-the-platform"


@pytest.fixture
def receiver() -> Iterator[MetricsServer]:
    with MetricsServer().serving() as server:
        server.answer = lambda request: Reply()
        yield server


@asynccontextmanager
async def notifying(world: World, receiver: MetricsServer, per_minute: int = 60) -> AsyncIterator[NoticeDispatcher]:
    """A worker that delivers by way of real channels. Its dispatcher does nothing by itself: tests call route_once."""
    secret = WebhookSecret(name="hooks", host=receiver.host, signing_key=SecretStr(KEY))
    settings = NotificationSettings(allowed_hosts=(receiver.host,), secrets=(secret,), timeout=timedelta(seconds=20))
    channels = NotificationChannels(settings)
    notify = NotifyActivities(world.records.unit_of_work, channels)
    queue = f"notify-{world.name}"
    async with Worker(
        world.client,
        task_queue=queue,
        workflows=[NotificationDelivery],
        activities=[notify.deliver, notify.give_up_delivery],
        workflow_runner=WORKFLOW_RUNNER,
    ):
        yield NoticeDispatcher(world.records.unit_of_work, world.client, queue, per_minute, timedelta(days=30))
    await channels.close()


async def set_rule(world: World, receiver: MetricsServer, rule_id: str = "hook", **changes: Any) -> None:
    target = WebhookTarget(url=f"{receiver.url}/{rule_id}", secret="hooks")
    rule = NotificationRule(**({"rule_id": rule_id, "target": target} | changes))
    async with world.records.unit_of_work() as uow:
        await uow.notifications.set_rule(StoredRule(rule=rule, updated_by="admin", updated_at=NOW))
        await uow.commit()


async def announce(world: World, event_id: str, kind: NoticeKind = NoticeKind.TEST) -> Notice:
    """Ids are of the whole server, so a test's own name is in them."""
    notice = Notice(event_id=f"{event_id}-{world.name}", kind=kind, happened_at=NOW, fields={"by": "ada"})
    async with world.records.unit_of_work() as uow:
        await uow.notifications.announce(notice)
        await uow.commit()
    return notice


async def logged(world: World) -> list[Delivery]:
    async with world.records.unit_of_work() as uow:
        return list((await uow.notifications.deliveries(DeliveryFilter(), Page(limit=100)))[0])


async def eventually(world: World, holds: Callable[[list[Delivery]], bool]) -> list[Delivery]:
    async with asyncio.timeout(60):
        while not holds(found := await logged(world)):
            await asyncio.sleep(0.05)
    return found


def finished(deliveries: list[Delivery]) -> bool:
    return all(one.status is not DeliveryStatus.PENDING for one in deliveries)


def told(receiver: MetricsServer) -> list[str]:
    return [json.loads(request.body)["event"] for request in receiver.requests]


async def test_a_rollouts_life_is_told_and_a_receiver_that_fails_is_tried_again(
    world: World, receiver: MetricsServer
) -> None:
    answers = [500, 503]
    receiver.answer = lambda request: Reply(answers.pop(0) if answers else 200)
    await set_rule(world, receiver)
    await set_rule(world, receiver, "production-only", environments=(Environment.PRODUCTION,))
    async with notifying(world, receiver) as dispatcher:
        async with world.working():
            done = await world.deploy(world.request(direct()))
        assert done.status is DeploymentStatus.COMPLETED
        assert await dispatcher.route_once() == 2
        assert await dispatcher.route_once() == 0
        deliveries = await eventually(world, finished)
    assert {one.kind: one.status for one in deliveries} == {
        NoticeKind.DEPLOYMENT_STARTED: DeliveryStatus.DELIVERED,
        NoticeKind.DEPLOYMENT_COMPLETED: DeliveryStatus.DELIVERED,
    }
    assert sum(one.attempts for one in deliveries) == 4
    assert len(receiver.requests) == 4
    assert len({request.headers["idempotency-key"] for request in receiver.requests}) == 2
    assert {request.path for request in receiver.requests} == {"/hook"}


async def test_what_needs_a_person_is_told(world: World, receiver: MetricsServer) -> None:
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            await uow.nodes.register(world.node_record(node.node_id, Environment.STAGING))
        await uow.commit()
    await set_rule(world, receiver, events=(NoticeKind.APPROVAL_NEEDED, NoticeKind.DEPLOYMENT_REJECTED))
    async with notifying(world, receiver) as dispatcher:
        async with world.working():
            handle = await world.start(world.request(direct(), version="1.0.0", environment=Environment.STAGING))
            asked = await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
            assert asked.approval_expires_at is not None
            await send(handle, "reject", reason="not today")
            await handle.result()
        await dispatcher.route_once()
        await eventually(world, lambda deliveries: len(deliveries) == 2 and finished(deliveries))
    assert sorted(told(receiver)) == ["approval.needed", "deployment.rejected"]
    needed = next(json.loads(one.body) for one in receiver.requests if b"approval.needed" in one.body)
    assert needed["fields"]["planHash"] == asked.plan_hash
    assert needed["fields"]["expiresAt"] == f"{asked.approval_expires_at:%Y-%m-%d %H:%M} UTC"


async def test_two_workers_and_a_repeat_tell_once(world: World, receiver: MetricsServer) -> None:
    await set_rule(world, receiver)
    notice = await announce(world, "e")
    async with notifying(world, receiver) as dispatcher:
        await asyncio.gather(*(dispatcher.route_once() for _ in range(4)))
        await eventually(world, finished)
        # A worker that died after it had started the delivery and before it said so routes it once more.
        world.records.committed.notices[notice.event_id] = KeptNotice(notice, NOW, routed=False)
        assert await dispatcher.route_once() == 1
        handle = world.client.get_workflow_handle(f"notification/{delivery_id(notice.event_id, 'hook')}")
        await handle.result()
    assert len(receiver.requests) == 1


async def test_what_the_receiver_refuses_for_good_is_on_record_and_not_repeated(
    world: World, receiver: MetricsServer
) -> None:
    receiver.answer = lambda request: Reply(410, b"gone for good")
    await set_rule(world, receiver)
    await announce(world, "e")
    async with notifying(world, receiver) as dispatcher:
        await dispatcher.route_once()
        (delivery,) = await eventually(world, finished)
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.FAILED, 1)
    assert "answered 410: gone for good" in delivery.last_error


async def test_a_rule_that_was_deleted_meanwhile_tells_nobody(world: World, receiver: MetricsServer) -> None:
    await set_rule(world, receiver)
    notice = await announce(world, "e")
    async with notifying(world, receiver) as dispatcher:
        answered: list[Request] = []

        def delete_then_fail(request: Request) -> Reply:
            answered.append(request)
            del world.records.committed.notification_rules["hook"]
            return Reply(500)

        receiver.answer = delete_then_fail
        await dispatcher.route_once()
        (delivery,) = await eventually(world, finished)
    assert (delivery.status, len(answered)) == (DeliveryStatus.FAILED, 1)
    assert "'hook' does not exist" in delivery.last_error
    assert notice.event_id == delivery.event_id


async def test_more_than_a_rule_may_send_wait_their_turn_and_none_is_lost(
    world: World, receiver: MetricsServer
) -> None:
    await set_rule(world, receiver)
    for number in range(5):
        await announce(world, f"e{number}")
    async with notifying(world, receiver, per_minute=2) as dispatcher:
        assert await dispatcher.route_once() == 5
        deliveries = await eventually(
            world, lambda found: sum(one.status is DeliveryStatus.DELIVERED for one in found) == 2
        )
        assert len(deliveries) == 5
        delays = [
            (await world.client.get_workflow_handle(f"notification/{one.delivery_id}").describe())
            for one in deliveries
            if one.status is DeliveryStatus.PENDING
        ]
        assert len(delays) == 3, "started, for later"
        for one in delays:
            await world.client.get_workflow_handle(one.id).terminate()
    assert len(receiver.requests) == 2


async def test_no_history_holds_a_text_or_a_secret(
    world: World, receiver: MetricsServer, temporal_client: Client
) -> None:
    await set_rule(world, receiver, body="marker-body {by}")
    notice = await announce(world, "e")
    answers = [Reply(500, b"marker-answer"), Reply(400, b"marker-answer")]
    receiver.answer = lambda request: answers.pop(0)
    async with notifying(world, receiver) as dispatcher:
        await dispatcher.route_once()
        await eventually(world, finished)
        handle = temporal_client.get_workflow_handle(f"notification/{delivery_id(notice.event_id, 'hook')}")
        await handle.result()
        history = (await handle.fetch_history()).to_json()
    for secret in (KEY, "marker-body", "marker-answer", receiver.host):
        assert secret not in history


async def test_a_day_of_silence_is_given_up_and_no_longer(skipping: World, receiver: MetricsServer) -> None:
    receiver.answer = lambda request: Reply(503)
    await set_rule(skipping, receiver)
    await announce(skipping, "e")
    async with notifying(skipping, receiver) as dispatcher:
        await dispatcher.route_once()
        await skip(skipping, timedelta(hours=25))
        (delivery,) = await eventually(skipping, finished)
    assert delivery.status is DeliveryStatus.FAILED
    assert 40 < delivery.attempts < 80
    assert "answered 503" in delivery.last_error
