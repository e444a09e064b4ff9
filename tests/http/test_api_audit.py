"""The audit over HTTP: filters, export, verification, checkpoints and truncation."""

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from api.services import audit as audit_service
from api.services.audit import AuditService
from hotswap.config_trail import AuditSettings
from hotswap.domain.audit import ChainCheck, Head, Seal, SealedEntry, seal_of
from tests.http.site import API, Site, error_of, fields_of

LOGS = f"{API}/audit-logs"
KEY = "k" * 32


def keyed(site: Site, **more: Any) -> None:
    settings = AuditSettings(signing_key=SecretStr(KEY), **more)
    site.container.audit = AuditService(site.records.unit_of_work, settings)


async def report(site: Site, **query: Any) -> dict[str, Any]:
    answer = await site.admin.get(f"{LOGS}/verify", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def some(site: Site, count: int = 3) -> None:
    for number in range(count):
        await site.register(f"plugin-{number}")


async def test_entries_are_filtered_by_what_who_and_when(site: Site) -> None:
    await some(site)
    first = (await site.admin.get(LOGS)).json()["items"][-1]
    for query, total in (
        ({"entity": "plugin-1"}, 1),
        ({"entityType": "plugin"}, 3),
        ({"eventType": "plugin.registered", "user": "admin"}, 3),
        ({"user": "viewer"}, 0),
        ({"from": first["at"]}, 3),
        ({"to": first["at"]}, 0),
    ):
        assert (await site.admin.get(LOGS, params=query)).json()["total"] == total, query
    assert fields_of(error_of(await site.admin.get(LOGS, params={"from": "yesterday"}), 400, "VALIDATION_ERROR"))
    assert fields_of(error_of(await site.admin.get(LOGS, params={"form": first["at"]}), 400, "VALIDATION_ERROR"))


async def test_an_export_is_the_whole_chain_and_proves_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_service, "BATCH", 2)
    await some(site)
    answer = await site.admin.get(f"{LOGS}/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    *lines, last = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["entry"]["eventType"] for line in lines] == ["plugin.registered"] * 3 + ["audit.exported"]
    check = ChainCheck(Head())
    for line in lines:
        assert seal_of(line["previousHash"], line["content"]) == line["hash"]
        seal = Seal(position=line["position"], audit_id=0, previous_hash=line["previousHash"], hash=line["hash"])
        check.follow([SealedEntry(seal=seal, content=line["content"], entry=None)])
    assert check.faults == ()
    assert last == {"trailer": {"entries": 4, "head": check.head.model_dump(mode="json")}}
    filtered = (await site.admin.get(f"{LOGS}/export", params={"entity": "plugin-1"})).text.splitlines()
    assert len(filtered) == 2


async def test_what_was_changed_deleted_or_cut_off_is_found(site: Site) -> None:
    await some(site)
    sound = await report(site)
    assert (sound["intact"], sound["entries"], sound["complete"], sound["faults"]) == (True, 3, True, [])
    expect = {"expectPosition": sound["head"]["position"], "expectHash": sound["head"]["hash"]}
    assert (await report(site, **expect))["intact"]

    state = site.records.committed
    kept_entries, kept_seals = dict(state.audit), dict(state.seals)
    state.audit[2] = state.audit[2].model_copy(update={"user": "somebody else"})
    assert "position 2: its entry (row 2) was changed" in (await report(site))["faults"][0]

    state.audit = {key: entry for key, entry in kept_entries.items() if key != 2}
    assert "position 2: its entry (row 2) was deleted" in (await report(site))["faults"][0]
    state.seals = {key: seal for key, seal in kept_seals.items() if key != 2}
    assert "positions 2 to 2 are missing" in (await report(site))["faults"][0]

    state.audit = {key: entry for key, entry in kept_entries.items() if key != 3}
    state.seals = {key: seal for key, seal in kept_seals.items() if key != 3}
    assert (await report(site))["intact"], "nothing inside tells that the end was cut off"
    assert "cut off" in (await report(site, **expect))["faults"][0], "but a head that was kept elsewhere does"

    state.audit, state.seals = {**kept_entries, 9: kept_entries[1]}, kept_seals
    assert "1 entries have no seal" in (await report(site))["faults"][0]


async def test_a_long_chain_is_verified_in_parts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_service, "BATCH", 2)
    monkeypatch.setattr(audit_service, "MOST_VERIFIED", 2)
    await some(site, 5)
    first = await report(site)
    assert (first["complete"], first["head"]["position"]) == (False, 2)
    second = await report(site, after=2, hash=first["head"]["hash"])
    assert (second["intact"], second["complete"], second["first"]) == (True, False, 3)
    last = await report(site, after=4, hash=second["head"]["hash"])
    assert (last["intact"], last["complete"], last["head"]["position"]) == (True, True, 5)
    wrong = await report(site, after=2, hash="f" * 64)
    assert "position 3 does not follow" in wrong["faults"][0]
    assert "after" in fields_of(error_of(await site.admin.get(f"{LOGS}/verify?after=99"), 400, "VALIDATION_ERROR"))
    assert "expectHash" in fields_of(
        error_of(await site.admin.get(f"{LOGS}/verify?expectPosition=1"), 400, "VALIDATION_ERROR")
    )


async def test_nothing_is_signed_or_truncated_without_a_key(site: Site) -> None:
    await some(site)
    error = error_of(await site.admin.post(f"{LOGS}/checkpoints", json={"reason": "x"}), 409, "CONFLICT")
    assert "HOTSWAP_AUDIT__SIGNING_KEY" in error["message"]


async def test_truncation_leaves_a_chain_that_verifies_behind_a_signed_checkpoint(site: Site) -> None:
    keyed(site)
    await some(site)
    old = site.records.clock
    later = old() + timedelta(days=200)
    site.records.clock = lambda: later
    await site.register("young")
    young = {"reason": "yearly", "truncateBefore": later.isoformat()}
    error = error_of(await site.admin.post(f"{LOGS}/checkpoints", json=young), 400, "VALIDATION_ERROR")
    assert "younger than 90 days" in fields_of(error)["truncateBefore"]

    before = (later - timedelta(days=100)).isoformat()
    made = await site.admin.post(f"{LOGS}/checkpoints", json={"reason": "yearly", "truncateBefore": before})
    assert made.status_code == 201, made.text
    assert (made.json()["removed"], made.json()["more"]) == (3, False)
    assert made.json()["checkpoint"]["position"] == 3
    after = await report(site)
    assert (after["intact"], after["first"], after["entries"], after["checkpoints"]) == (True, 4, 2, 1)
    log = (await site.admin.get(LOGS)).json()["items"]
    assert [item["eventType"] for item in log] == ["audit.truncated", "plugin.registered"]
    assert log[0]["details"]["reason"] == "yearly"
    again = await site.admin.post(f"{LOGS}/checkpoints", json={"reason": "yearly", "truncateBefore": before})
    assert "no entry" in error_of(again, 409, "CONFLICT")["message"]

    state = site.records.committed
    kept = state.checkpoints[1]
    state.checkpoints[1] = kept.model_copy(update={"reason": "none of your business"})
    assert "wrong signature" in (await report(site))["faults"][0]
    state.checkpoints[1] = kept.model_copy(update={"key_id": "f" * 16})
    assert "which this api does not have" in (await report(site))["faults"][0]
    state.checkpoints = {}
    assert "positions 1 to 3 are missing" in (await report(site))["faults"][0]


async def test_checkpoints_are_a_chain_and_a_signed_place_cannot_be_written_anew(site: Site) -> None:
    keyed(site)
    await some(site)
    for _ in range(2):
        made = await site.admin.post(f"{LOGS}/checkpoints", json={"reason": "weekly"})
        assert (made.status_code, made.json()["removed"]) == (201, 0), made.text
    listed = (await site.admin.get(f"{LOGS}/checkpoints")).json()
    assert [item["position"] for item in listed["items"]] == [4, 3]
    state = site.records.committed
    kept = dict(state.checkpoints)
    del state.checkpoints[1]
    assert "one was deleted" in (await report(site))["faults"][0]
    state.checkpoints = kept
    # Somebody with the database writes the whole chain anew from the second entry on, seals and all.
    state.audit[2] = state.audit[2].model_copy(update={"user": "somebody else"})
    entries, state.seals, state.audit = list(state.audit.values()), {}, {}
    async with site.records.unit_of_work() as uow:
        for entry in entries:
            await uow.audit.append(entry)
        await uow.commit()
    found = await report(site)
    assert "position 3: the chain was written anew" in found["faults"][0]
    error = error_of(await site.admin.post(f"{LOGS}/checkpoints", json={"reason": "hide it"}), 409, "CONFLICT")
    assert "the chain is broken" in error["message"]
