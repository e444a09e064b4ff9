"""The commands on approvals, the audit and notifications against a small api; and exports checked without one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotswap.cli.export_check import check_export
from hotswap.cli.faults import UsageFault
from hotswap.domain.audit import GENESIS, seal_of
from tests.unit.cli_fake_api import DEPLOYMENT_ID, Asked, FakeApi, Run, listing, refusal

LOGS = "GET /api/v1/audit-logs"
APPROVAL = {
    "id": DEPLOYMENT_ID,
    "kind": "deployment",
    "plugin": "phone",
    "version": "2.0.0",
    "environment": "Production",
    "strategy": "Canary",
    "digest": "d" * 64,
    "planHash": "p" * 64,
    "initiatedBy": "dana\x1b[31m",
    "missing": "1 more approval, by an Admin",
    "approvals": [{"approver": "ada"}],
    "expiresAt": "2026-02-02T12:00:00Z",
    "mine": True,
    "whyNot": "",
}


def test_approvals_are_listed(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /api/v1/approvals", listing(APPROVAL))
    assert run("approvals", "list", "--mine", "-e", "production") == 0
    asked = api.last("GET /api/v1/approvals").query
    assert (asked["mine"], asked["environment"]) == ("true", "Production")
    cells = capsys.readouterr().out.strip().split("\t")
    assert cells == [
        DEPLOYMENT_ID,
        "phone 2.0.0",
        "Production",
        "dana [31m",
        "1 more approval, by an Admin",
        "ada",
        "2026-02-02T12:00:00Z",
        "yours",
    ]


def test_an_approval_is_bound_to_the_plan_that_was_shown(api: FakeApi, run: Run) -> None:
    api.on("GET /api/v1/approvals", listing(APPROVAL))
    path = f"POST /api/v1/approvals/{DEPLOYMENT_ID}/approve"
    api.on(path, (200, {"id": DEPLOYMENT_ID, "status": "InProgress", "message": "approved"}))
    assert run("approvals", "approve", DEPLOYMENT_ID[:10], "-m", "read it") == 0
    assert api.last(path).json() == {"reason": "read it", "planHash": "p" * 64}
    assert run("approvals", "approve", "dep_ffff") == 2
    api.on(path, refusal(409, "CONFLICT", "the plan is another one: read the plan again"))
    assert run("approvals", "approve", DEPLOYMENT_ID) == 1


def test_a_gate_of_a_pipeline_has_no_plan(api: FakeApi, run: Run) -> None:
    gate_id = "pip_" + "0" * 32 + ".2"
    api.on("GET /api/v1/approvals", listing({**APPROVAL, "id": gate_id, "kind": "pipeline", "planHash": ""}))
    path = f"POST /api/v1/approvals/{gate_id}/approve"
    api.on(path, (200, {"id": gate_id, "status": "InProgress", "message": "approved"}))
    assert run("approvals", "approve", "pip_0") == 0
    assert api.last(path).json() == {"reason": ""}


def test_a_rejection_needs_a_reason(api: FakeApi, run: Run) -> None:
    assert run("approvals", "reject", DEPLOYMENT_ID) == 2
    assert api.asked == []


def test_audit_entries_are_listed_with_every_filter(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {
        "at": "2026-01-31T12:00:00Z",
        "user": "dana",
        "eventType": "plugin.changed",
        "entityId": "phone",
        "details": {"reason": "typo"},
        "address": "10.0.0.7",
    }
    api.on(LOGS, listing(entry))
    assert run("audit", "list", "--user", "dana", "--event", "plugin.changed", "--from", "2026-01-01T00:00Z") == 0
    asked = api.last(LOGS).query
    assert (asked["user"], asked["eventType"], asked["from"]) == ("dana", "plugin.changed", "2026-01-01T00:00Z")
    assert capsys.readouterr().out.strip() == "2026-01-31T12:00:00Z\tdana\tplugin.changed\tphone\ttypo\t10.0.0.7"


def test_verification_goes_on_until_the_end_and_a_broken_chain_is_exit_code_1(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(first: int, position: int, complete: bool, *faults: str) -> tuple[int, Any]:
        head = {"position": position, "hash": "a" * 64}
        report = {"entries": 2, "first": first, "head": head, "complete": complete, "faults": list(faults)}
        return 200, report | {"intact": not faults, "checkpoints": 0}

    api.on(f"{LOGS}/verify", part(1, 2, False), part(3, 4, True))
    assert run("audit", "verify", "--expect", f"1:{'b' * 64}") == 0
    assert capsys.readouterr().out == f"intact: 4 entries, head 4:{'a' * 64}\n"
    first, second = (asked.query for asked in api.asked)
    assert (first["expectPosition"], first["expectHash"]) == ("1", "b" * 64)
    assert (second["after"], second["hash"]) == ("2", "a" * 64)
    api.on(f"{LOGS}/verify", part(1, 2, False, "position 2: its entry was changed"), part(3, 4, True))
    assert run("audit", "verify") == 1
    assert "position 2" in capsys.readouterr().out
    assert run("audit", "verify", "--expect", "7") == 2


def test_a_truncation_is_repeated_until_nothing_old_is_left(api: FakeApi, run: Run) -> None:
    made = {"position": 9, "hash": "a" * 64, "keyId": "k"}
    path = "POST /api/v1/audit-logs/checkpoints"
    api.on(
        path,
        (201, {"checkpoint": made, "removed": 20_000, "more": True}),
        (201, {"checkpoint": made, "removed": 3, "more": False}),
    )
    assert run("audit", "checkpoint") == 2
    assert run("audit", "checkpoint", "-m", "yearly", "--truncate-before", "2025-01-01T00:00:00Z") == 0
    assert api.count(path) == 2
    assert api.last(path).json() == {"reason": "yearly", "truncateBefore": "2025-01-01T00:00:00Z"}


def exported(*users: str, trailer: bool = True) -> list[dict[str, Any]]:
    """Lines as the api writes them over PostgreSQL."""
    lines: list[dict[str, Any]] = []
    previous = GENESIS
    for position, user in enumerate(users, start=1):
        content = json.dumps([1, position, "e", "t", "i", user, {"b": 1}, "tr", "::1", 1_767_268_800_000_001])
        sealed = seal_of(previous, content)
        entry = {"eventType": "e", "entityType": "t", "entityId": "i", "user": user, "details": {"b": 1}}
        entry |= {"traceId": "tr", "address": "::1", "at": "2026-01-01T12:00:00.000001Z"}
        lines.append(
            {"position": position, "previousHash": previous, "hash": sealed, "content": content, "entry": entry}
        )
        previous = sealed
    if trailer:
        lines.append({"trailer": {"entries": len(users), "head": {"position": len(users), "hash": previous}}})
    return lines


def written(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_an_export_is_written_whole_or_not_at_all(
    api: FakeApi, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stream(lines: list[dict[str, Any]]) -> Callable[[Asked], Any]:
        return lambda asked: [json.dumps(line) + "\n" for line in lines]

    target = tmp_path / "audit.ndjson"
    api.routes[f"{LOGS}/export"] = stream(exported("ada", "bob", trailer=False))
    assert run("audit", "export", "-o", str(target)) == 1
    assert list(tmp_path.glob("*audit*")) == []
    api.routes[f"{LOGS}/export"] = stream(exported("ada", "bob"))
    assert run("audit", "export", "-o", str(target), "--user", "ada") == 0
    assert api.last(f"{LOGS}/export").query == {"user": "ada"}
    assert len(target.read_text().splitlines()) == 3
    capsys.readouterr()
    assert run("audit", "verify", "--file", str(target)) == 0
    assert "intact: 2 entries" in capsys.readouterr().out


def test_an_export_that_was_changed_is_found_without_the_api(tmp_path: Path) -> None:
    sound = exported("ada", "bob", "cyd")
    assert check_export(written(tmp_path / "a", sound), None, False)["intact"]

    def faults(lines: list[dict[str, Any]], **more: Any) -> list[str]:
        report = check_export(written(tmp_path / "b", lines), more.get("known"), more.get("filtered", False))
        assert report["intact"] == (not report["faults"])
        return list(report["faults"])

    shown = json.loads(json.dumps(sound))
    shown[1]["entry"]["user"] = "somebody else"
    assert faults(shown) == ["position 2: what is shown is not what was sealed: user"]
    sealed = json.loads(json.dumps(sound))
    sealed[1]["content"] = sealed[1]["content"].replace("bob", "bot")
    assert "was changed after it was sealed" in faults(sealed)[0]
    assert "positions 2 to 2 are missing" in faults([sound[0], *sound[2:]])[0]
    assert faults([sound[0], sound[2], {"trailer": {"entries": 2}}], filtered=True) == []
    assert "cut off" in faults(sound[:-1])[0]
    assert "3 entries were exported, 2 are in the file" in faults([*sound[:2], sound[3]])[0]
    assert "was written anew" in faults(sound, known=(2, "f" * 64))[0]
    assert "position 9 is not in the file" in faults(sound, known=(9, "f" * 64))[0]
    for broken in ("not json\n", "[]\n", '{"position": 1}\n'):
        (tmp_path / "c").write_text(broken)
        with pytest.raises(UsageFault, match="line 1"):
            check_export(tmp_path / "c", None, False)


def test_rules_are_set_listed_tested_and_deleted(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"ruleId": "oncall", "target": {"kind": "email", "to": ["a@b.test"]}, "enabled": True}
    rule |= {"events": ["deployment.failed"], "environments": ["Production"], "plugins": []}
    api.on("PUT /api/v1/notifications/rules/oncall", (201, {"rule": rule}))
    typed = ("--email", "a@b.test", "--event", "deployment.failed", "-e", "production", "--subject", "{plugin}")
    assert run("notifications", "set", "oncall", *typed) == 0
    sent = api.last("PUT /api/v1/notifications/rules/oncall").json()
    assert (sent["target"], sent["environments"]) == ({"kind": "email", "to": ["a@b.test"]}, ["Production"])
    assert (sent["events"], sent["subject"], sent["enabled"]) == (["deployment.failed"], "{plugin}", True)
    capsys.readouterr()
    api.on("GET /api/v1/notifications/rules", listing({"rule": rule}))
    assert run("notifications", "rules") == 0
    assert capsys.readouterr().out == "oncall\temail\ta@b.test\tdeployment.failed\tProduction\tall plugins\ton\n"
    api.on("POST /api/v1/notifications/rules/oncall/test", (202, {"deliveryId": "ndl_1", "eventId": "ntc_1"}))
    assert run("notifications", "test", "oncall") == 0
    api.on("DELETE /api/v1/notifications/rules/oncall", (204, None))
    assert run("notifications", "delete", "oncall") == 0
    delivery: dict[str, Any] = {
        "createdAt": "2026-01-31T12:00:00Z",
        "ruleId": "oncall",
        "kind": "test",
        "target": "a@b.test",
    }
    delivery |= {"status": "Failed", "attempts": 3, "lastError": "answered 500"}
    api.on("GET /api/v1/notifications/deliveries", listing(delivery))
    assert run("notifications", "log", "--failed", "--rule", "oncall") == 0
    assert api.last("GET /api/v1/notifications/deliveries").query["status"] == "Failed"
    assert "answered 500" in capsys.readouterr().out


@pytest.mark.parametrize(
    "typed",
    [
        ("oncall",),
        ("oncall", "--webhook", "https://hooks.test/in"),
        ("oncall", "--slack", "a", "--email", "a@b.test"),
        ("../plugins", "--slack", "a"),
    ],
)
def test_a_rule_without_one_target_or_with_a_strange_name_asks_nobody(
    api: FakeApi, run: Run, typed: tuple[str, ...]
) -> None:
    assert run("notifications", "set", *typed) == 2
    assert api.asked == []
