"""Test that Kubernetes and KubeRay accept every manifest, and that its fields are set on purpose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.unit.cluster.manifests import (
    KUBERNETES,
    OVERLAYS,
    PLAIN,
    REPOSITORY,
    built,
    cluster_spec,
    copied,
    crd_schema,
    documents,
    of_kind,
    pod_specs,
)

# The oldest Kubernetes that is still supported, and the newest that the schemas know.
KUBERNETES_VERSIONS = ("1.34", "1.37")

RAY_OBJECTS = {
    "base/raycluster.yaml": "RayCluster",
    "rayjob.yaml": "RayJob",
    "raycronjob.yaml": "RayCronJob",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(KUBERNETES))


def assert_valid(each: dict[str, Any]) -> None:
    """Raise unless the API server would accept this object."""
    if each["apiVersion"].startswith("ray.io/"):
        jsonschema.Draft202012Validator(crd_schema(each["kind"])).validate(copied(each))
        return

    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("path", PLAIN, ids=name_of)
def test_a_manifest_is_valid_and_has_no_unknown_field(path: Path) -> None:
    objects = documents(path)

    assert objects
    for each in objects:
        assert_valid(each)


@pytest.mark.parametrize("folder", OVERLAYS, ids=name_of)
def test_a_kustomization_builds_valid_objects(folder: Path) -> None:
    objects = built(folder)

    assert {each["kind"] for each in objects} == {"ServiceAccount", "RayCluster", "CronJob"}
    for each in objects:
        assert_valid(each)


def test_a_misspelt_field_is_found() -> None:
    job = copied(of_kind(documents(KUBERNETES / "rayjob.yaml"), "RayJob"))
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["tolerationz"] = []

    with pytest.raises(jsonschema.ValidationError, match="tolerationz"):
        assert_valid(job)

    cron = copied(of_kind(documents(KUBERNETES / "base/cronjob.yaml"), "CronJob"))
    cron["spec"]["concurrencypolicy"] = "Forbid"

    with pytest.raises(jsonschema.ValidationError, match="concurrencypolicy"):
        assert_valid(cron)


def test_the_three_ways_to_run_use_the_same_cluster() -> None:
    standing, *others = (
        cluster_spec(of_kind(documents(KUBERNETES / file), kind))
        for file, kind in RAY_OBJECTS.items()
    )

    assert all(other == standing for other in others)


def test_a_raycronjob_has_the_fields_that_there_are() -> None:
    spec = of_kind(documents(KUBERNETES / "raycronjob.yaml"), "RayCronJob")["spec"]

    assert set(spec) == {"schedule", "timeZone", "suspend", "jobTemplate"}
    assert "concurrencyPolicy" not in crd_schema("RayCronJob")["properties"]["spec"]["properties"]


@pytest.mark.parametrize(
    ("file", "kind"), [("rayjob.yaml", "RayJob"), ("raycronjob.yaml", "RayCronJob")]
)
def test_a_job_ends_and_cleans_up(file: str, kind: str) -> None:
    spec = of_kind(documents(KUBERNETES / file), kind)["spec"]
    spec = spec.get("jobTemplate", spec)

    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["submitterConfig"]["backoffLimit"] > 0
    assert spec["backoffLimit"] > 0
    hours = int(re.findall(r"--deadline (\d+)h", spec["entrypoint"])[0])
    assert hours * 3600 < spec["activeDeadlineSeconds"]
    assert spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    # KubeRay pastes the line into a shell command.
    assert not set(spec["entrypoint"]) & set("$`\"'\\;&|<>*?(){}")


def test_the_cronjob_lets_no_two_runs_overlap_and_tries_again_only_where_that_helps() -> None:
    spec = of_kind(documents(KUBERNETES / "base/cronjob.yaml"), "CronJob")["spec"]
    job = spec["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    never_again = [
        code
        for rule in job["podFailurePolicy"]["rules"]
        if rule["action"] == "FailJob"
        for code in rule["onExitCodes"]["values"]
    ]

    assert spec["concurrencyPolicy"] == "Forbid"
    # Or the API server refuses podFailurePolicy.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert never_again == [2, 3]
    hours = int(re.findall(r"--deadline=(\d+)h", " ".join(container["args"]))[0])
    assert hours * 3600 < job["activeDeadlineSeconds"]


@pytest.mark.parametrize(("file", "kind"), RAY_OBJECTS.items())
def test_spot_gpus_come_before_those_on_demand(file: str, kind: str) -> None:
    spec = cluster_spec(of_kind(documents(KUBERNETES / file), kind))
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}

    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"  # v1 does not read `priority`
    assert (
        groups["gpu-spot"]["priority"]
        > groups["gpu-on-demand"]["priority"]
        > groups["cpu"]["priority"]
    )
    assert all(group["minReplicas"] == 0 < group["maxReplicas"] for group in groups.values())
    assert all("nvidia.com/gpu" in str(groups[name]) for name in ("gpu-spot", "gpu-on-demand"))
    assert "nvidia.com/gpu" not in str(groups["cpu"])


@pytest.mark.parametrize("path", PLAIN, ids=name_of)
def test_the_grace_period_is_longer_than_ray_drains(path: Path) -> None:
    from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S as RAYS_OWN

    for pod in pod_specs(documents(path)):
        for container in pod["containers"]:
            if not container["name"].startswith("ray-") or container["name"] == "ray-job-submitter":
                continue
            env = {each["name"]: each.get("value") for each in container["env"]}
            drain = float(env.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", RAYS_OWN))
            grace = pod.get("terminationGracePeriodSeconds", 30)
            # Ten seconds more, in which Ray ends its processes.
            assert grace >= drain + 10, (
                f"{container['name']}: {grace} s of grace, {drain} s to drain"
            )
            assert grace > float(env.get("RAY_JOB_STOP_WAIT_TIME_S", 3))


@pytest.mark.parametrize("path", PLAIN, ids=name_of)
def test_no_pod_runs_as_root_or_writes_to_its_image(path: Path) -> None:
    for pod in pod_specs(documents(path)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/home/skinbatch"} <= set(mounted)
            assert set(mounted.values()) <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("path", PLAIN, ids=name_of)
def test_every_container_has_limits(path: Path) -> None:
    for pod in pod_specs(documents(path)):
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])


@pytest.mark.parametrize(("file", "kind"), RAY_OBJECTS.items())
def test_ray_has_shared_memory_for_its_object_store(file: str, kind: str) -> None:
    spec = cluster_spec(of_kind(documents(KUBERNETES / file), kind))

    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (mount,) = [
            each for each in pod["containers"][0]["volumeMounts"] if each["mountPath"] == "/dev/shm"
        ]
        (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
        assert int(group["rayStartParams"]["object-store-memory"]) < 1 << 30


@pytest.mark.parametrize("path", PLAIN, ids=name_of)
def test_secrets_are_named_and_never_written_down(path: Path) -> None:
    for pod in pod_specs(documents(path)):
        for container in pod["containers"]:
            for each in container.get("env", []):
                assert not re.search("SECRET|PASSWORD|ACCESS_KEY", each["name"])
                assert "TOKEN" not in each["name"] or "secretKeyRef" in each["valueFrom"]
            for source in container.get("envFrom", []):
                assert source["secretRef"]["name"] == "skinbatch-s3"


@pytest.mark.parametrize(("file", "kind"), RAY_OBJECTS.items())
def test_the_cluster_is_of_the_ray_that_the_image_has(file: str, kind: str) -> None:
    pinned = re.findall(r"^ray==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)

    assert [cluster_spec(of_kind(documents(KUBERNETES / file), kind))["rayVersion"]] == pinned


def test_the_rocksdb_overlay_keeps_the_heads_books_on_a_volume() -> None:
    spec = of_kind(built(KUBERNETES / "overlays/rocksdb"), "RayCluster")["spec"]

    assert spec["gcsFaultToleranceOptions"]["backend"] == "rocksdb"
    assert spec["gcsFaultToleranceOptions"]["storage"]["size"] == "10Gi"
    # May write to it.
    assert spec["headGroupSpec"]["template"]["spec"]["securityContext"]["fsGroup"] == 1000


def test_the_cpu_overlay_asks_for_no_gpu() -> None:
    objects = built(KUBERNETES / "overlays/cpu")
    spec = of_kind(objects, "RayCluster")["spec"]

    assert [group["groupName"] for group in spec["workerGroupSpecs"]] == ["cpu"]
    assert "nvidia.com/gpu" not in str(objects)
    images = {container["image"] for pod in pod_specs(objects) for container in pod["containers"]}
    assert images == {"registry.example.com/skinbatch:cpu"}
