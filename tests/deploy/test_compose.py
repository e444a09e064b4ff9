"""docker-compose.temporal.yml: its schema, every reference in it and in the files it mounts, and what no service may be.

No Docker runs here: nothing in this file starts a container.
"""

import importlib.resources
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deploy.compose import make_env
from hotswap.config import Settings, load_settings
from hotswap.node.agent import check_settings
from hotswap.temporal import SEARCH_ATTRIBUTES
from tests.deploy.files import ROOT, document, unknown_settings

COMPOSE = document(ROOT / "docker-compose.temporal.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENV = dict(line.split("=", 1) for line in make_env.lines() if not line.startswith("#"))
JOBS = {"migrate", "bucket", "temporal-schema", "temporal-namespace"}
OURS = {name for name, service in SERVICES.items() if "build" in service}
NO_PROGRAM_INSIDE = {"otel-collector"}
"""Images that hold one static binary: no check can run in them."""


def resolved(text: str) -> str:
    """As Compose does it. KeyError for a required variable that make_env does not write."""

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        return (ENV[name] if default is None else ENV.get(name, default)).strip("'")

    return re.sub(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*)|:\?[^}]+)\}", value, text).replace("$$", "$")


def environment(name: str) -> dict[str, str]:
    return {key: resolved(value) for key, value in SERVICES[name].get("environment", {}).items()}


def address(target: str) -> tuple[str, str]:
    host, _, port = target.rpartition(":")
    return host, port


def test_it_fits_the_schema_of_compose() -> None:
    schema = json.loads(
        (importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text()
    )
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [f"{list(fault.path)}: {fault.message}" for fault in validator.iter_errors(COMPOSE)] == []
    assert list(validator.iter_errors(COMPOSE | {"services": {"a": {"imagee": "b"}}})), "the schema is not strict"


def test_every_name_it_uses_is_defined() -> None:
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}, which is not there"
            if other in JOBS:
                assert how["condition"] == "service_completed_successfully", f"{name} -> {other}"
            else:
                assert how["condition"] == "service_healthy", f"{name} -> {other}"
                assert "test" in SERVICES[other]["healthcheck"] or other in OURS
            assert set(SERVICES[other]["networks"]) & set(service["networks"]), f"{name} cannot reach {other}"
        for mount in service.get("volumes", []):
            source, target, *mode = mount.split(":")
            assert target.startswith("/"), mount
            if source.startswith("./"):
                assert (ROOT / source).exists(), mount
                assert mode == ["ro"], mount
            else:
                assert source in COMPOSE["volumes"], mount
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) == {source for source in used if not source.startswith("./")}
    assert set(COMPOSE["networks"]) == {name for service in SERVICES.values() for name in service["networks"]}


def test_nobody_waits_in_a_circle() -> None:
    done: set[str] = set()
    while ready := {
        name for name in SERVICES if name not in done and set(SERVICES[name].get("depends_on", {})) <= done
    }:
        done |= ready
    assert done == set(SERVICES)


def test_two_services_never_publish_one_port_and_consoles_stay_on_loopback() -> None:
    published = [resolved(port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert len({port.split(":")[1] for port in published}) == len(published)
    assert {port.split(":")[0] for port in published} == {"127.0.0.1"}, "with what make_env writes"
    for name in ("temporal-ui", "jaeger", "prometheus"):
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"]), f"{name} has no login"
    for name in ("postgres", "redis", "object-store", "temporal"):
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_pinned_bounded_confined_and_watched(name: str) -> None:
    service = SERVICES[name]
    image = service["image"]
    tag = image.rpartition(":")[2]
    assert re.search(r"\d+\.\d+|RELEASE\.\d{4}-", tag), f"{image}: not pinned"
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= set(limits)
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert not any("docker.sock" in mount for mount in service.get("volumes", []))
    if name != "postgres":  # its entry point changes the data directory's owner, then its own user
        assert service["cap_drop"] == ["ALL"]
    if name not in JOBS | NO_PROGRAM_INSIDE and name != "worker":  # the worker's check is the image's own
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    if name in OURS:
        assert service["read_only"] is True
        assert any(mount.startswith("/tmp") for mount in service["tmpfs"])


def test_every_password_is_asked_for_and_made() -> None:
    text = (ROOT / "docker-compose.temporal.yml").read_text()
    required = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    optional = set(re.findall(r"\$\{([A-Z_]+):-", text))
    assert optional == {"HOTSWAP_PUBLISH"}, "nothing else has a default"
    assert required | optional == set(ENV), "make_env writes what is used, nothing else"
    assert not re.search(r"\$[A-Za-z{](?!REDIS_PASSWORD)[A-Z_]*\b(?<!:)\}", text), "every variable has :? or :-"
    for name in SERVICES:
        for key, value in SERVICES[name].get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|_PWD|ACCESS_KEY|ENCRYPTION_KEY|CLI_AUTH$", key):
                assert "${" in value, f"{name}: {key} is written out"
    values = [ENV[name] for name in make_env.PASSWORDS]
    assert len(set(values)) == len(values)
    assert all(len(value) >= 32 for value in values)
    assert make_env.lines() != make_env.lines()


def test_the_passwords_file_is_its_owners_alone_and_never_written_twice(tmp_path: Path) -> None:
    target = tmp_path / ".env"
    command = [sys.executable, str(ROOT / "deploy/compose/make_env.py"), str(target)]
    old = os.umask(0)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    finally:
        os.umask(old)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    written = target.read_text()
    again = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert again.returncode == 1
    assert "remove the volumes" in again.stderr
    assert target.read_text() == written
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", sorted(OURS))
def test_hotswap_starts_with_these_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(name)
    assert not unknown_settings(set(given))
    if name == "migrate":
        assert set(given) == {"HOTSWAP_POSTGRES__URL"}
        return
    for variable in [key for key in os.environ if key.startswith("HOTSWAP_")]:
        monkeypatch.delenv(variable)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    settings = load_settings()
    assert settings.temporal.namespace == environment("temporal-namespace")["TEMPORAL_NAMESPACE"]
    assert settings.minio.bucket == environment("bucket")["BUCKET"]
    if name.startswith("node"):
        assert settings.node.advertise_host == name, "others reach a node under its service's name"
        check_settings(settings)
    networks = set(SERVICES[name]["networks"])
    for target in (
        settings.temporal.address,
        settings.minio.endpoint,
        settings.postgres.url.get_secret_value().split("@")[1].split("/")[0],
        settings.redis.url.get_secret_value().split("@")[1].split("/")[0],
        settings.telemetry.otlp_endpoint.removeprefix("http://"),
    ):
        host, _ = address(target)
        assert set(SERVICES[host]["networks"]) & networks, f"{name} cannot reach {host}"


def test_the_collector_listens_where_spans_are_sent_and_by_their_protocol() -> None:
    collector = document(ROOT / "deploy/compose/otel-collector.yaml")
    _, port = address(environment("worker")["HOTSWAP_TELEMETRY__OTLP_ENDPOINT"].removeprefix("http://"))
    assert address(collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"])[1] == port
    assert "otlp" in collector["service"]["pipelines"]["traces"]["receivers"]


def test_nodes_are_one_of_a_kind_and_drain_before_they_are_killed() -> None:
    nodes = [name for name in OURS if name.startswith("node-")]
    assert len({environment(name)["HOTSWAP_NODE__ID"] for name in nodes}) == len(nodes) == 3
    assert len({mount for name in nodes for mount in SERVICES[name]["volumes"]}) == len(nodes)
    for name in nodes:
        # hotswap.node.agent: 1 s for orders, 5 s for what is on its way, 35 s for what runs; the rest ends hosts.
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 50


def test_prometheus_asks_who_is_there_and_can_be_reached() -> None:
    config = document(ROOT / "deploy/compose/prometheus.yaml")
    networks = set(SERVICES["prometheus"]["networks"])
    hosts = set()
    for job in config["scrape_configs"]:
        for target in (each for group in job["static_configs"] for each in group["targets"]):
            host, port = address(target)
            if host == "localhost":
                continue
            hosts.add(host)
            assert set(SERVICES[host]["networks"]) & networks, f"{host} is out of Prometheus' reach"
            if host.startswith("node-"):
                assert port == "8091"
    assert OURS - {"migrate"} <= hosts
    assert environment("worker")["HOTSWAP_TEMPORAL__METRICS_ADDRESS"].endswith(":9464")
    assert "rules:/etc/prometheus/rules" in " ".join(SERVICES["prometheus"]["volumes"])


def test_spans_find_their_way() -> None:
    collector = document(ROOT / "deploy/compose/otel-collector.yaml")
    jaeger = document(ROOT / "deploy/compose/jaeger.yaml")
    _, port = address(environment("api")["HOTSWAP_TELEMETRY__OTLP_ENDPOINT"])
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(f":{port}")
    host, port = address(collector["exporters"]["otlp/jaeger"]["endpoint"])
    assert host in SERVICES
    assert jaeger["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(f":{port}")
    for config in (collector, jaeger):
        for pipeline in config["service"]["pipelines"].values():
            for kind in ("receivers", "processors", "exporters"):
                assert set(pipeline[kind]) <= set(config[kind]), kind
        assert set(config["service"]["extensions"]) == set(config["extensions"])


def test_the_set_up_scripts_are_sound_and_know_every_search_attribute() -> None:
    scripts = sorted((ROOT / "deploy/compose").rglob("*.sh"))
    assert len(scripts) == 4
    for script in scripts:
        subprocess.run([shutil.which("sh") or "/bin/sh", "-n", script], check=True, timeout=60)
        assert "set -eu" in script.read_text()
    namespace = (ROOT / "deploy/compose/temporal/namespace.sh").read_text()
    assert set(re.findall(r"HotSwap[A-Z]\w+", namespace)) == {key.name for key in SEARCH_ATTRIBUTES}
    policy = json.loads((ROOT / "deploy/compose/bucket-policy.json").read_text())
    resources = {resource for statement in policy["Statement"] for resource in statement["Resource"]}
    bucket = environment("bucket")["BUCKET"]
    assert resources == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}
    assert not any("*" in action for statement in policy["Statement"] for action in statement["Action"])


def test_the_namespace_script_works_on_a_real_server_and_may_be_repeated(settings: Settings) -> None:
    given = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/tmp"),
        "TEMPORAL_ADDRESS": settings.temporal.address,
        "TEMPORAL_NAMESPACE": f"compose-{secrets.token_hex(4)}",
        "RETENTION": environment("temporal-namespace")["RETENTION"],
    }
    script = ROOT / "deploy/compose/temporal/namespace.sh"
    for _ in range(2):
        done = subprocess.run(["/bin/sh", script], env=given, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run(
        ["temporal", "operator", "search-attribute", "list", "--namespace", given["TEMPORAL_NAMESPACE"]],
        env=given, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert {key.name for key in SEARCH_ATTRIBUTES} <= set(listed.stdout.split())
