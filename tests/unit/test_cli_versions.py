"""`hotswap plugin approve, deprecate, adoption, sign, dependencies, validate, retention...` against a small api."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hotswap.cli.main import app
from hotswap.runtime import signing
from tests.http.bundles import bundle, sha256
from tests.unit.cli_fake_api import FakeApi, fake_api, listing, refusal

VERSION = "/api/v1/plugins/greeter/versions/1.0.0"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as made:
        yield made


def run(api: FakeApi, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["plugin", *arguments, "--url", api.url, "--token", "t"])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "greeter-1.0.0.zip"
    path.write_bytes(bundle("greeter"))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    made = CliRunner().invoke(app, ["plugin", "keygen", str(tmp_path / "acme.pem"), "--json"])
    document = json.loads(made.stdout)
    assert signing.key_id_of(signing.read_public(Path(document["public"]))) == document["keyId"]
    return Path(document["private"])


@pytest.mark.parametrize("name", ["submit", "approve", "deprecate", "reinstate", "archive"])
def test_a_move_is_sent_with_its_reason_under_a_key(api: FakeApi, name: str) -> None:
    api.on(f"POST {VERSION}/{name}", (200, {"status": "Done"}))
    reason = ["-m", "use 2.x"] if name in ("deprecate", "reinstate", "archive") else []
    done = run(api, name, "greeter", "1.0.0", *reason)
    assert (done.exit_code, done.stdout) == (0, "greeter 1.0.0 is Done\n")
    asked = api.last(f"POST {VERSION}/{name}")
    assert asked.headers["idempotency-key"].startswith(name)
    assert (asked.json() if reason else asked.body) == ({"reason": "use 2.x"} if reason else b"")


def test_a_refused_move_is_told_with_its_field(api: FakeApi) -> None:
    details = [{"field": "reason", "message": "is required; say why"}]
    api.on(f"POST {VERSION}/deprecate", refusal(400, "VALIDATION_ERROR", "reason: is required", details))
    done = run(api, "deprecate", "greeter", "1.0.0")
    assert done.exit_code == 2
    assert "say why" in done.stderr


def test_adoption_is_a_row_for_each_environment(api: FakeApi) -> None:
    place = {
        "environment": "QA",
        "role": "Candidate",
        "weightPercent": 30.0,
        "knownTenants": 4,
        "pinnedTenants": 1,
        "generation": 7,
    }
    document = {"environments": [place], "tenants": ["acme"], "tenantCount": 4}
    api.on(f"GET {VERSION}/adoption", (200, document))
    assert run(api, "adoption", "greeter", "1.0.0").stdout == "QA\tCandidate\t30 %\t4\t1\t7\n"
    assert json.loads(run(api, "adoption", "greeter", "1.0.0", "--json").stdout) == document


def test_validation_is_the_exit_code_and_says_what_to_do_first(api: FakeApi) -> None:
    path = "/api/v1/plugins/reports/validate-dependencies"
    problem = {"kind": "Missing", "message": "reports 3.0.0 needs billing ^2", "chain": ["reports 3.0.0", "billing ^2"]}
    found: dict[str, Any] = {
        "valid": False,
        "problems": [problem],
        "warnings": [],
        "suggestion": "deploy billing 2.1.0 first",
    }
    api.on(f"POST {path}", (200, found))
    done = run(api, "validate", "reports", "3.0.0", "-e", "qa")
    assert (done.exit_code, done.stdout.split("\t")[0]) == (1, "Missing")
    assert "deploy billing 2.1.0 first" in done.stderr
    assert api.last(f"POST {path}").json() == {"version": "3.0.0", "environment": "QA"}
    api.on(f"POST {path}", (200, {**found, "valid": True, "problems": [], "suggestion": ""}))
    assert run(api, "validate", "reports", "3.0.0", "-e", "qa").stdout == "reports 3.0.0 fits QA\n"


def test_dependencies_are_drawn_under_what_needs_them(api: FakeApi) -> None:
    def need(name: str, serves: list[str], satisfied: bool | None, *inner: Any, kind: str = "Plugin") -> dict[str, Any]:
        return {
            "name": name, "versionConstraint": "^2", "type": kind, "optional": False, "serves": serves,
            "satisfied": satisfied, "dependencies": list(inner),
        }  # fmt: skip

    tree = [need("billing", ["2.1.0"], True, need("tax", [], False)), need("idna", [], None, kind="Package")]
    place = {"environment": "QA", "serves": "3.0.0", "satisfied": False, "dependencies": tree, "dependents": []}
    api.on("GET /api/v1/plugins/reports/dependencies", (200, {"environments": [place]}))
    done = run(api, "dependencies", "reports", "-e", "qa", "--version", "3.0.0")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "QA\tbilling\t^2\t2.1.0\tok",
        "QA\t  tax\t^2\t–\tMISSING",
        "QA\tidna\t^2\t–\t– (package)",
    ]
    asked = api.last("GET /api/v1/plugins/reports/dependencies")
    assert asked.query == {"version": "3.0.0", "environment": "QA"}


@pytest.mark.parametrize(
    ("arguments", "what"), [([], "GET /api/v1/retention"), (["--apply"], "POST /api/v1/retention/sweep")]
)
def test_retention_removes_only_when_it_is_told_to(api: FakeApi, arguments: list[str], what: str) -> None:
    removed = {"plugin": "greeter", "version": "0.9.0", "sizeBytes": 2048}
    kept = {"plugin": "greeter", "version": "1.0.0", "reasons": ["QA has it loaded"]}
    api.on(what, (200, {"removed": [removed], "kept": [kept], "freedBytes": 2048, "uploads": 3}))
    done = run(api, "retention", *arguments)
    assert done.exit_code == 0, done.stderr
    verb = "removed" if arguments else "would go"
    assert done.stdout.splitlines() == [
        f"{verb}\tgreeter\t0.9.0\t2.0 KiB\t",
        "stays\tgreeter\t1.0.0\t\tQA has it loaded",
    ]
    assert f"2.0 KiB and 3 unfinished uploads {verb}" in done.stderr


def test_signing_needs_no_api_and_attaching_does(api: FakeApi, archive: Path, key: Path) -> None:
    done = CliRunner().invoke(app, ["plugin", "sign", str(archive), "--key", str(key), "--json"])
    made = json.loads(done.stdout)
    assert made["digest"] == sha256(archive.read_bytes())
    assert made["signature"] == signing.sign(signing.read_private(key), made["digest"]).value
    api.on(f"POST {VERSION}/sign", (200, {"status": "Approved"}))
    assert run(api, "sign", str(archive), "--key", str(key), "--attach").exit_code == 0
    assert api.last(f"POST {VERSION}/sign").json() == {"keyId": made["keyId"], "signature": made["signature"]}


def test_a_file_that_is_no_key_is_told_plainly(api: FakeApi, archive: Path) -> None:
    done = run(api, "sign", str(archive), "--key", str(archive))
    assert done.exit_code == 2
    assert "holds no private key in PEM" in done.stderr
    assert run(api, "sign", str(archive), "--key", "/no/such/file").exit_code == 1


def test_a_pipe_is_no_zip_and_is_not_waited_for(api: FakeApi, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "one.zip")
    told = run(api, "push", str(tmp_path / "one.zip"))
    assert told.exit_code == 2
    assert "is not a regular file" in told.output


def test_a_push_signs_and_goes_past_an_api_that_finds_it_too_large(api: FakeApi, archive: Path, key: Path) -> None:
    """The fake plays the object store too."""
    upload = "upl_" + "0" * 32
    missing = refusal(404, "NOT_FOUND", "no")
    api.on("GET /api/v1/plugins/greeter", (200, {}))
    api.on(f"GET {VERSION}", missing)
    api.on("POST /api/v1/plugins/greeter/versions", refusal(413, "PAYLOAD_TOO_LARGE", "too large"))
    place = {"uploadId": upload, "url": f"{api.url}/store", "fields": {"key": "uploads/x", "policy": "p"}}
    api.on("POST /api/v1/plugins/greeter/versions/presigned", (201, place))
    api.on("POST /store", (200, {}))
    api.on("POST /api/v1/plugins/greeter/versions/complete", (201, {"version": "1.0.0"}))
    done = run(api, "push", str(archive), "--sign-key", str(key), "--draft")
    assert done.exit_code == 0, done.stderr
    content = archive.read_bytes()
    begun = api.last("POST /api/v1/plugins/greeter/versions/presigned").json()
    assert begun == {"version": "1.0.0", "digest": sha256(content), "sizeBytes": len(content)}
    form = api.last("POST /store")
    assert content in form.body
    assert form.body.index(b'name="policy"') < form.body.index(b'name="file"')
    assert "authorization" not in form.headers  # our token is not the object store's business
    told = api.last("POST /api/v1/plugins/greeter/versions/complete").json()
    signature = signing.sign(signing.read_private(key), sha256(content))
    assert (told["uploadId"], told["signature"], told["keyId"]) == (upload, signature.value, signature.key_id)
    assert told["draft"] is True


def test_keys_are_trusted_listed_and_distrusted(api: FakeApi, key: Path) -> None:
    public = signing.read_public(key)
    key_id = signing.key_id_of(public)
    item: dict[str, Any] = {
        "keyId": key_id, "publisher": "acme", "plugins": [], "revokedAt": None, "revokeReason": "", "trusted": True,
        "registeredAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    api.on("POST /api/v1/publisher-keys", (201, item))
    assert run(api, "trust", "acme", "--key", str(key), "--only", "greeter").exit_code == 0
    sent = api.last("POST /api/v1/publisher-keys")
    assert sent.json() == {"publisher": "acme", "publicKey": public, "plugins": ["greeter"]}
    assert b"PRIVATE" not in sent.body
    gone = {**item, "revokedAt": "2026-01-02T00:00:00Z", "revokeReason": "leaked"}
    api.on("GET /api/v1/publisher-keys", listing(item, gone))
    assert [row.split("\t")[3] for row in run(api, "keys").stdout.splitlines()] == ["counts", "revoked: leaked"]
    api.on(f"POST /api/v1/publisher-keys/{key_id}/revoke", (200, gone))
    assert run(api, "distrust", key_id, "-m", "leaked", "--force").exit_code == 0
    assert api.last(f"POST /api/v1/publisher-keys/{key_id}/revoke").json() == {"reason": "leaked", "force": True}


@pytest.mark.parametrize("name", ["deprecate", "reinstate"])
def test_without_a_version_the_plugin_itself_is_meant(api: FakeApi, name: str) -> None:
    path = f"POST /api/v1/plugins/greeter/{name}"
    api.on(path, (200, {"name": "greeter", "status": "Deprecated"}))
    done = run(api, name, "greeter", "-m", "use exporter")
    assert (done.exit_code, done.stdout) == (0, "greeter is Deprecated\n")
    assert api.last(path).json() == {"reason": "use exporter"}
