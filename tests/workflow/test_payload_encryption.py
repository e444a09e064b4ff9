"""With payload keys nothing that Temporal stores of a rollout can be read, and everything goes on working, also old histories."""

import base64
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload, SearchAttributes

from hotswap import temporal
from hotswap.config import Settings
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest, Environment, Role
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.identity.key_material import decode_key
from hotswap.payloads import ENCODING, KEY_ID, key_id
from tests.http.site import make_site
from tests.workflow.world import World, direct, send, until

MARK = "plaintext-marker-7f3a"
READABLE = ("details[patch-data]", "header.fields[")
"""Names of changes in our workflow code, which Temporal's core writes by itself; and headers: trace ids, no content."""


def new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def with_keys(settings: Settings, *keys: str) -> TemporalSettings:
    return settings.temporal.model_copy(update={"payload_keys": SecretStr("\n".join(keys))})


async def world_with(settings: TemporalSettings, scratch: Path) -> World:
    world = World(await temporal.connect(settings), scratch)
    await world.fill()
    return world


def payloads_of(message: Message, path: str = "") -> Iterator[tuple[str, Payload]]:
    """Every payload in a protobuf message with where it is; search attributes, which are never encrypted, left out."""
    if isinstance(message, Payload):
        yield path, message
        return
    if isinstance(message, SearchAttributes):
        return
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        entry = field.message_type
        assert entry is not None
        if entry.GetOptions().map_entry:
            if entry.fields_by_name["value"].type == field.TYPE_MESSAGE:
                for key, one in value.items():
                    yield from payloads_of(one, f"{path}.{field.name}[{key}]")
        elif field.is_repeated:
            for one in value:
                yield from payloads_of(one, f"{path}.{field.name}")
        else:
            yield from payloads_of(value, f"{path}.{field.name}")


def approved_by(approver: str, progress: DeploymentProgress) -> bool:
    return any(one.approver == approver for one in progress.approvals)


async def test_a_whole_rollout_leaves_nothing_readable_in_its_history(settings: Settings, tmp_path: Path) -> None:
    given = with_keys(settings, new_key())
    world = await world_with(given, tmp_path)
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            await uow.nodes.register(world.node_record(node.node_id, Environment.STAGING))
        await uow.commit()
    world.nodes[0].fail_to_load = {"2.0.0"}
    async with world.working():
        first = world.request(direct(), version="1.0.0", environment=Environment.STAGING)
        await approved(world, first.model_copy(update={"initiated_by": MARK}))
        second = world.request(direct(), version="2.0.0", environment=Environment.STAGING)
        handle = await world.start(second.model_copy(update={"initiated_by": MARK}))
        await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        await send(handle, "approve", reason=MARK)
        ended = await handle.result()
    assert ended.status is DeploymentStatus.ROLLED_BACK
    assert "cannot be imported" in ended.outcome_reason, "the fault of a node reached the workflow, readable"

    stored: list[Payload] = []
    async for event in handle.fetch_history_events():
        text = event.SerializeToString()
        for word in (MARK, "cannot be imported", "activities/nodes.py"):
            assert word.encode() not in text, f"{word} in event {event.event_id}"
        for where, payload in payloads_of(event):
            if not any(part in where for part in READABLE):
                assert payload.metadata["encoding"] == ENCODING, f"{where} of event {event.event_id}: {payload.data!r}"
                stored.append(payload)
    assert len(stored) > 20
    described = await world.client.get_workflow_handle(handle.id).describe()
    assert all(payload.metadata["encoding"] == ENCODING for _, payload in payloads_of(described.raw_info.memo))
    read = await read_by_codec_server(given, stored, tmp_path)
    assert MARK in read
    assert "2.0.0 cannot be imported" in read
    assert "activities/nodes.py" in read, "the stack trace of the fault"


async def read_by_codec_server(settings: TemporalSettings, stored: list[Payload], scratch: Path) -> str:
    """As the Web UI asks: everything at once, to the api's route."""
    site = make_site(scratch)
    site.container.settings = site.container.settings.model_copy(update={"temporal": settings})
    body = {"payloads": [MessageToDict(payload) for payload in stored]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://api.test") as ui:
        answer = await ui.post(
            "/api/v1/codec/decode",
            json=body,
            headers={"Authorization": "Bearer token-of-admin", "X-Namespace": "hotswap"},
        )
    assert answer.status_code == 200, answer.text
    return " ".join(base64.b64decode(one["data"]).decode() for one in answer.json()["payloads"])


async def test_a_rollout_that_began_in_the_clear_ends_encrypted_and_outlives_a_rotation(
    settings: Settings, tmp_path: Path
) -> None:
    world = await world_with(settings.temporal, tmp_path)
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            await uow.nodes.register(world.node_record(node.node_id, Environment.PRODUCTION))
        await uow.commit()
    async with world.working():
        handle = await world.start(world.request(direct(), version="1.0.0", environment=Environment.PRODUCTION))
        await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
    first, second = new_key(), new_key()
    for keys, approver in (((first,), "ada"), ((second, first), "bob")):
        world.client = await temporal.connect(with_keys(settings, *keys))
        handle = world.client.get_workflow_handle(handle.id, result_type=DeploymentProgress)
        async with world.working():
            await send(handle, "approve", by=approver, roles=(Role.ADMIN,))
            ended = await until(handle, partial(approved_by, approver))
            if approver == "bob":
                ended = await handle.result()
    assert ended.status is DeploymentStatus.COMPLETED
    found = {
        payload.metadata.get(KEY_ID, b"").decode()
        async for event in handle.fetch_history_events()
        for _, payload in payloads_of(event)
    }
    assert {"", key_id(decode_key(first)), key_id(decode_key(second))} <= found, "all three ages are in one history"


async def approved(world: World, request: DeploymentRequest) -> DeploymentProgress:
    handle = await world.start(request)
    await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
    await send(handle, "approve", reason=MARK)
    return await handle.result()
