"""k8s/: what it renders, held against the schemas of several Kubernetes versions, our own code, and restricted Pod Security.

No cluster runs here. Renders with tests.deploy.kustomize, and compares that with kubectl's own where kubectl is at hand.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from hotswap.config import NodeSettings, load_settings
from hotswap.domain.deployment import Environment
from hotswap.node.orders import ORDERS_GRACE
from hotswap.node.succession import drain_grace
from hotswap.temporal import SEARCH_ATTRIBUTES
from tests.deploy.files import ROOT, unknown_settings
from tests.deploy.kustomize import Manifest, containers, pod_specs, render

K8S = ROOT / "k8s"
VERSIONS = ("1.30", "1.34", "1.37")
"""From the first in which preStop can sleep to the newest whose schema the package has."""
NOT_OF_KUBERNETES = {"ServiceMonitor"}
SECRET_KEYS = {
    "postgres-url", "redis-url", "minio-access-key", "minio-secret-key", "node-admin-token", "key-encryption-key",
    "tenant-wrapping-keys", "audit-signing-key", "temporal-payload-keys",
}  # fmt: skip
"""What docs/deploy.md tells to put into hotswap-secrets."""


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The production overlay with the strong tier switched on, as its comment says."""
    copied = tmp_path_factory.mktemp("k8s") / "k8s"
    shutil.copytree(K8S, copied)
    overlay = copied / "overlays/production/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("  # - ../../components/strong", "  - ../../components/strong"))
    return overlay.parent


@pytest.fixture(params=["development", "production", "strong"])
def overlay(request: pytest.FixtureRequest, strong: Path) -> Path:
    return strong if request.param == "strong" else K8S / "overlays" / request.param


@pytest.fixture
def manifests(overlay: Path) -> list[Manifest]:
    return render(overlay)


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] in kinds]


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    return of_kind(manifests, "Deployment", "StatefulSet", "Job")


def component(manifest: Manifest) -> str:
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def pods_of(manifests: list[Manifest], selector: dict[str, str]) -> list[Manifest]:
    return [each for each in workloads(manifests) if matches(selector, each["spec"]["template"]["metadata"]["labels"])]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_is_one_of_kubernetes(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in NOT_OF_KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_are_strict(manifests: list[Manifest]) -> None:
    wrong = of_kind(manifests, "StatefulSet")[0] | {"spec": {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_kubectl_renders_the_same(overlay: Path, manifests: list[Manifest]) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here: the renderer of these tests is not compared with kustomize itself")
    done = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, timeout=120, check=True)
    theirs = list(yaml.safe_load_all(re.sub(r"(hotswap-settings)-[a-z0-9]{10}\b", r"\1", done.stdout)))

    def by_identity(all_of: list[Manifest]) -> dict[tuple[str, str], Manifest]:
        for each in all_of:
            if each["kind"] == "StatefulSet":  # kustomize writes out what a claim is
                for claim in each["spec"]["volumeClaimTemplates"]:
                    claim.pop("apiVersion", None), claim.pop("kind", None)
            for container in containers(each):  # order says nothing: names are unique
                container["env"] = sorted(container["env"], key=lambda one: str(one["name"]))
        return {(each["kind"], each["metadata"]["name"]): each for each in all_of}

    assert by_identity(theirs) == by_identity(manifests)


def test_restricted_pod_security_holds(manifests: list[Manifest]) -> None:
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    found = 0
    for manifest in workloads(manifests):
        for pod in pod_specs(manifest):
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
            security = pod["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] >= 10_000
            assert security["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
            assert security.get("appArmorProfile", {"type": "RuntimeDefault"})["type"] in (
                "RuntimeDefault",
                "Localhost",
            )
            assert {kind for volume in pod["volumes"] for kind in volume} <= {"name", "secret", "emptyDir"}
            assert pod["automountServiceAccountToken"] is False
            assert pod["enableServiceLinks"] is False, "HOTSWAP_API_PORT and its like would be set by Kubernetes"
        for container in containers(manifest):
            found += 1
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert re.fullmatch(r"registry\.example\.com/hotswap:\d+\.\d+\.\d+", container["image"])
            assert container["command"][:4] == ["tini", "--", "python", "-m"]
            writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert "/tmp" in writable
    assert found >= 4


def test_every_selector_finds_its_pods_and_every_name_is_there(manifests: list[Manifest]) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    services = {each["metadata"]["name"]: each for each in of_kind(manifests, "Service")}
    for manifest in workloads(manifests):
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        pod = manifest["spec"]["template"]["spec"]
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        if manifest["kind"] != "Job":
            selector = manifest["spec"]["selector"]["matchLabels"]
            assert pods_of(manifests, selector) == [manifest], "a workload selects its own pods and no other's"
            for constraint in pod["topologySpreadConstraints"]:
                assert matches(constraint["labelSelector"]["matchLabels"], labels)
        if manifest["kind"] == "StatefulSet":
            governing = services[manifest["spec"]["serviceName"]]
            assert governing["spec"]["clusterIP"] == "None"
            assert pods_of(manifests, governing["spec"]["selector"]) == [manifest]
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in names
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if "httpGet" in container.get(probe, {}):
                    assert container[probe]["httpGet"]["port"] in ports
    for service in services.values():
        behind = pods_of(manifests, service["spec"]["selector"])
        assert len(behind) == 1, service["metadata"]["name"]
        named = {port["name"] for container in containers(behind[0]) for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        assert len(pods_of(manifests, budget["spec"]["selector"]["matchLabels"])) == 1
    for ingress in of_kind(manifests, "Ingress"):
        hosts = {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]}
        for rule in ingress["spec"]["rules"]:
            assert rule["host"] in hosts
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]["spec"]["ports"]}
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in names
        (scaled,) = [
            each for each in manifests if each["metadata"]["name"] == target["name"] and each["kind"] == target["kind"]
        ]
        assert "replicas" not in scaled["spec"], "an apply would undo what the autoscaler decided"
    for monitor in of_kind(manifests, "ServiceMonitor"):
        hit = [
            each
            for each in services.values()
            if matches(monitor["spec"]["selector"]["matchLabels"], each["metadata"]["labels"])
        ]
        assert hit, monitor["metadata"]["name"]
        for service in hit:
            assert {one["port"] for one in monitor["spec"]["endpoints"]} <= {
                one["name"] for one in service["spec"]["ports"]
            }


def test_secrets_come_by_reference_as_files_and_each_part_gets_only_what_it_needs(manifests: list[Manifest]) -> None:
    assert of_kind(manifests, "Secret") == []
    given: dict[str, set[str]] = {}
    for manifest in workloads(manifests):
        for pod in pod_specs(manifest):
            items = {
                item["key"]
                for volume in pod["volumes"]
                if "secret" in volume
                for item in volume["secret"]["items"]
                if volume["secret"]["secretName"] == "hotswap-secrets"
            }
            assert items <= SECRET_KEYS
            given.setdefault(component(manifest), set()).update(items)
        for container in containers(manifest):
            mounted = {
                value["value"].rpartition("/")[2]
                for value in container["env"]
                if value["name"].endswith("_FILE") or value["name"] == "HOTSWAP_KEYS__PATH"
            }
            assert mounted == items, "every mounted secret is read, every read one mounted"
    assert given["migrate"] == {"postgres-url"}
    assert "node-admin-token" in given["node"] & given["worker"]
    assert "key-encryption-key" not in given["node"] | given["worker"], "only the api signs"
    assert "tenant-wrapping-keys" in given["api"] & given["node"] - given["worker"], "who seals and who hands over"
    assert "temporal-payload-keys" in given["api"] & given["node"] & given["worker"], "all read each other's payloads"
    assert set().union(*given.values()) == SECRET_KEYS


def variables(manifest: Manifest, manifests: list[Manifest], secrets: Path) -> Iterator[tuple[str, str]]:
    """What a container of ours finds in its environment; files of secrets are written for it."""
    (container,) = containers(manifest)
    for source in container.get("envFrom", []):
        (settings,) = [
            each
            for each in of_kind(manifests, "ConfigMap")
            if each["metadata"]["name"] == source["configMapRef"]["name"]
        ]
        yield from settings["data"].items()
    samples = {
        "postgres-url": "postgresql://hotswap:p@db:5432/hotswap",
        "redis-url": "redis://:p@redis:6379/0",
        "key-encryption-key": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "audit-signing-key": "5d" * 32,
        "temporal-payload-keys": "7c" * 32,
    }
    for one in container["env"]:
        if one["name"].endswith("_FILE"):
            file = secrets / one["value"].rpartition("/")[2]
            file.write_text(samples.get(file.name, "a-secret"))
            yield one["name"], str(file)
        elif "valueFrom" in one:
            yield (
                one["name"],
                {"metadata.name": f"{manifest['metadata']['name']}-0", "status.podIP": "10.1.2.3"}[
                    one["valueFrom"]["fieldRef"]["fieldPath"]
                ],
            )
        else:
            yield one["name"], one["value"]


def test_hotswap_starts_with_these_settings(
    manifests: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    image = dict(re.findall(r"(HOTSWAP_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    for manifest in workloads(manifests):
        for name in [key for key in os.environ if key.startswith("HOTSWAP_")]:
            monkeypatch.delenv(name)
        given = image | dict(variables(manifest, manifests, tmp_path))
        assert not unknown_settings(set(given))
        if component(manifest) == "migrate":
            continue
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        (container,) = containers(manifest)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        if component(manifest) == "node":
            assert ports == {"router": settings.node.router_port, "admin": settings.node.admin_port}
            suffix = manifest["metadata"]["name"].removeprefix("hotswap-node-")
            assert settings.node.environment is Environment(suffix.capitalize())
            assert settings.node.advertise_host == "10.1.2.3"
        if component(manifest) == "api":
            assert ports == {"http": settings.api.port}
        if component(manifest) == "worker":
            assert settings.temporal.metrics_address == f"0.0.0.0:{ports['metrics']}"
            assert settings.temporal.build_id == "auto"
        expected = "strong" if "strong" in request.node.callspec.id else "standard"
        if component(manifest) in ("node", "worker"):
            assert settings.sandbox.tier == expected


def test_a_pod_has_the_time_to_drain(manifests: list[Manifest]) -> None:
    for manifest in of_kind(manifests, "StatefulSet"):
        pod = manifest["spec"]["template"]["spec"]
        asleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        node = NodeSettings()
        work = (node.drain_delay + ORDERS_GRACE + node.drain_idle + drain_grace(node)).total_seconds()
        assert pod["terminationGracePeriodSeconds"] >= asleep + work + 15
    (api,) = [each for each in of_kind(manifests, "Deployment") if component(each) == "api"]
    pod = api["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] + 10


def test_the_strong_tier_asks_for_what_it_needs(strong: Path) -> None:
    for manifest in workloads(render(strong)):
        pod = manifest["spec"]["template"]["spec"]
        wanted = component(manifest) in ("node", "worker")
        assert (pod.get("hostUsers") is False) == wanted
        assert (pod["securityContext"]["seccompProfile"]["type"] == "Localhost") == wanted


def test_traffic_is_denied_unless_a_policy_says_otherwise(manifests: list[Manifest]) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(manifests, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ports: dict[str, set[int]] = {}
    for manifest in workloads(manifests):
        listens = {port["containerPort"] for each in containers(manifest) for port in each.get("ports", [])}
        ports.setdefault(component(manifest), set()).update(listens)
    for name, spec in policies.items():
        selector = spec["podSelector"].get("matchLabels", {})
        assert pods_of(manifests, selector), name
        if "app.kubernetes.io/component" in selector:
            allowed = {port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]}
            assert allowed == ports[selector["app.kubernetes.io/component"]], f"{name}: what listens is let in"
        for rule in spec.get("ingress", []) + spec.get("egress", []):
            assert rule.get("from") or rule.get("to"), f"{name}: an empty peer list means the whole world"
            assert rule["ports"]
            for peer in rule.get("to", []):
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    aimed = pods_of(manifests, peer["podSelector"]["matchLabels"])
                    open_there = {
                        one["containerPort"] for each in aimed for c in containers(each) for one in c["ports"]
                    }
                    assert {port["port"] for port in rule["ports"]} <= open_there
                if "ipBlock" in peer:
                    closed = [IPv4Network(network) for network in peer["ipBlock"]["except"]]
                    for private in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.169.254/32"):
                        assert any(IPv4Network(private).subnet_of(network) for network in closed)
    settings: dict[str, Any] = next(iter(of_kind(manifests, "ConfigMap")))["data"]
    reachable = {port["port"] for rule in policies["hotswap-dependencies"]["egress"] for port in rule["ports"]}
    for name in ("HOTSWAP_MINIO__ENDPOINT", "HOTSWAP_TEMPORAL__ADDRESS", "HOTSWAP_TELEMETRY__OTLP_ENDPOINT"):
        assert int(settings[name].rpartition(":")[2]) in reachable, name
    assert {5432, 6379} <= reachable


def test_no_file_of_k8s_is_left_out() -> None:
    used = {K8S / "components/strong/seccomp-additions.json", K8S / ".checkov.yaml"}
    for file in K8S.rglob("kustomization.yaml"):
        spec = yaml.safe_load(file.read_text())
        used.add(file)
        used |= {(file.parent / name).resolve() for name in spec.get("resources", [])}
        used |= {file.parent / name for each in spec.get("configMapGenerator", []) for name in each.get("envs", [])}
    assert {path for path in K8S.rglob("*") if path.is_file()} <= used


def test_the_guide_names_the_same_secrets_and_search_attributes() -> None:
    guide = (ROOT / "docs/deploy.md").read_text()
    assert set(re.findall(r"--from-(?:file|literal)=([a-z-]+)", guide)) == SECRET_KEYS
    temporal = (ROOT / "docs/temporal.md").read_text()
    assert set(re.findall(r"\bHotSwap[A-Z]\w+(?=[ ;])", temporal)) == {key.name for key in SEARCH_ATTRIBUTES}
    assert not unknown_settings(set(re.findall(r"\bHOTSWAP_[A-Z_]+[A-Z]", guide)) - {"HOTSWAP_PUBLISH"})
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:k8s|dashboards|deploy|tests)/[\w/.-]+)`", guide))
