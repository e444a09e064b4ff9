"""The part of kustomize that k8s/ uses, in Python: tests need no kubectl. An unknown field is an error, not a guess.

Differs from kustomize in one thing: generated ConfigMaps keep their plain name. test_kubernetes compares the two where
kubectl is at hand.
"""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.files import document, documents

Manifest = dict[str, Any]
_KNOWN = {
    "apiVersion", "kind", "namespace", "nameSuffix", "resources", "components", "labels", "configMapGenerator",
    "patches", "images", "replicas",
}  # fmt: skip
_MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


def render(folder: Path) -> list[Manifest]:
    return _build(folder, [])


def _build(folder: Path, found: list[Manifest]) -> list[Manifest]:
    """`found`: what a component is applied to; empty for everything else."""
    spec = document(folder / "kustomization.yaml")
    assert set(spec) <= _KNOWN, f"{folder}: this renderer does not know {set(spec) - _KNOWN}"
    for name in spec.get("resources", []):
        path = (folder / name).resolve()
        found += _build(path, []) if path.is_dir() else copy.deepcopy(documents(path))
    for generator in spec.get("configMapGenerator", []):
        _generate(folder, generator, found)
    for name in spec.get("components", []):
        _build((folder / name).resolve(), found)
    for patch in spec.get("patches", []):
        hit = [each for each in found if _targets(patch["target"], each)]
        assert hit, f"{folder}: a patch has no target: {patch['target']}"
        for each in hit:
            body = yaml.safe_load(patch["patch"])
            _merge(each, {key: value for key, value in body.items() if key != "metadata"})
    for replicas in spec.get("replicas", []):
        (one,) = [each for each in found if "replicas" in each.get("spec", {}) and _name(each) == replicas["name"]]
        one["spec"]["replicas"] = replicas["count"]
    for change in spec.get("labels", []):
        for each in found:
            _label(each, change["pairs"], change.get("includeSelectors", False))
    if suffix := spec.get("nameSuffix"):
        for each in found:
            each["metadata"]["name"] += suffix
            if each["kind"] == "StatefulSet":
                each["spec"]["serviceName"] += suffix
    for image in spec.get("images", []):
        for container in (container for each in found for container in containers(each)):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    if namespace := spec.get("namespace"):
        for each in found:
            if each["kind"] != "Namespace":
                each["metadata"]["namespace"] = namespace
    identities = [(each["kind"], _name(each)) for each in found]
    assert len(set(identities)) == len(identities), f"{folder}: one name twice in {identities}"
    return found


def pod_specs(manifest: Manifest) -> Iterator[Manifest]:
    if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
        yield manifest["spec"]["template"]["spec"]


def containers(manifest: Manifest) -> Iterator[Manifest]:
    for pod in pod_specs(manifest):
        yield from pod.get("initContainers", [])
        yield from pod["containers"]


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def _generate(folder: Path, generator: Manifest, found: list[Manifest]) -> None:
    assert set(generator) <= {"name", "envs", "literals", "behavior"}
    lines = list(generator.get("literals", []))
    for name in generator.get("envs", []):
        lines += [line for line in (folder / name).read_text().splitlines() if line and not line.startswith("#")]
    data = dict(line.split("=", 1) for line in lines)
    if generator.get("behavior") == "merge":
        (one,) = [each for each in found if each["kind"] == "ConfigMap" and _name(each) == generator["name"]]
        one["data"].update(data)
    else:
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})


def _targets(target: Manifest, manifest: Manifest) -> bool:
    assert set(target) <= {"kind", "name", "labelSelector"}
    if "labelSelector" in target:
        key, _, value = target["labelSelector"].partition("=")
        if manifest["metadata"].get("labels", {}).get(key) != value:
            return False
    return manifest["kind"] == target["kind"] and bool(re.fullmatch(target.get("name", ".*"), _name(manifest)))


def _merge(base: Manifest, patch: Manifest) -> None:
    """Kubernetes' strategic merge, for the lists that _MERGE_KEYS names; any other list is replaced."""
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        elif key in _MERGE_KEYS and isinstance(base.get(key), list):
            by = _MERGE_KEYS[key]
            for item in value:
                same = [each for each in base[key] if each[by] == item[by]]
                if same:
                    _merge(same[0], item)
                else:
                    base[key].append(item)
        else:
            base[key] = value


def _label(manifest: Manifest, pairs: dict[str, str], selectors: bool) -> None:
    def add(holder: Manifest, key: str = "labels") -> None:
        holder.setdefault(key, {}).update(pairs)

    add(manifest["metadata"])
    if not selectors:
        return
    spec = manifest["spec"]
    changes: dict[str, Callable[[], None]] = {
        "Service": lambda: add(spec, "selector"),
        "PodDisruptionBudget": lambda: add(spec["selector"], "matchLabels"),
    }
    if manifest["kind"] in ("Deployment", "StatefulSet"):
        add(spec["selector"], "matchLabels")
        add(spec["template"]["metadata"])
        for constraint in spec["template"]["spec"].get("topologySpreadConstraints", []):
            add(constraint["labelSelector"], "matchLabels")
        for claim in spec.get("volumeClaimTemplates", []):
            add(claim["metadata"])
    else:
        changes[manifest["kind"]]()
