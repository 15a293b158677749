"""Run the entry points in `cluster/` as Kubernetes does, on a cluster started with `ray start --head`."""

from __future__ import annotations

import io
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from tests.conftest import S3Server
from tests.pictures import picture
from tests.ray_cluster import RayCluster
from tests.unit.cluster.manifests import KUBERNETES, REPOSITORY, documents, of_kind

SUBMIT = [sys.executable, str(REPOSITORY / "jobs/submit.py")]

# The addresses in the manifests that their users replace.
SOURCE, DEST = "s3://my-photos", "s3://my-scores"
# Four workers are four copies of the models, which is more than a machine for tests has memory for.
WORKERS, ONE_WORKER = "--workers 4", "--workers 1"


@pytest.fixture(scope="module")
def cluster(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Start a cluster whose pods get the store's address and keys from the environment, as from the Secret."""
    secret = {
        "AWS_ENDPOINT_URL": str(s3.settings.endpoint_url),
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    home = tmp_path_factory.mktemp("home")
    with RayCluster(home, auth="token", more={**secret, **token}) as running:
        yield running


def put_photo(s3: S3Server, bucket: str, number: int) -> None:
    photo = io.BytesIO()
    picture(number).save(photo, "PNG")
    s3.client.put_object(Bucket=bucket, Key=f"{number}.png", Body=photo.getvalue())


def run(
    command: list[str], cluster: RayCluster, cwd: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**cluster.env, **env}, cwd=cwd, capture_output=True, text=True, timeout=280
    )


def result_in(log: str) -> dict[str, Any]:
    """Return the line of JSON that a run ends with."""
    lines = [line for line in log.splitlines() if line.startswith("{")]
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def statuses(s3: S3Server, dest: str) -> dict[str, str]:
    table = skinbatch.open(dest, storage=s3.settings).images()
    return dict(zip(table["image_id"].to_pylist(), table["status"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("rayjob.yaml", "RayJob"),
        pytest.param("raycronjob.yaml", "RayCronJob", marks=pytest.mark.slow),
    ],
)
def test_the_entry_point_of_a_rayjob_scores_a_bucket(
    file: str, kind: str, cluster: RayCluster, s3: S3Server, tmp_path: Path
) -> None:
    spec = of_kind(documents(KUBERNETES / file), kind)["spec"]
    entrypoint = spec.get("jobTemplate", spec)["entrypoint"]
    photos, scores = s3.bucket(), s3.bucket()
    put_photo(s3, photos, 0)
    entrypoint = entrypoint.replace(SOURCE, f"s3://{photos}").replace(DEST, f"s3://{scores}")
    assert WORKERS in entrypoint
    entrypoint = entrypoint.replace(WORKERS, ONE_WORKER)

    # KubeRay's submitter pastes the entry point into a line of bash, behind `--`.
    line = f"ray job submit --address {cluster.dashboard} -- {entrypoint} ;"
    job = run(["bash", "-ce", line], cluster, tmp_path)

    assert job.returncode == 0, job.stdout + job.stderr
    assert result_in(job.stdout)["exit_code"] == 0
    assert statuses(s3, f"s3://{scores}") == {"0.png": "ok"}
    assert skinbatch.verify(f"s3://{scores}", storage=s3.settings).differences == []


def nightly(cluster: RayCluster, source: str, dest: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of the CronJob's pod, with the values that Kubernetes fills in."""
    spec = of_kind(documents(KUBERNETES / "base/cronjob.yaml"), "CronJob")["spec"]
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "python"
    script = container["command"][1].replace("/opt/skinbatch", str(REPOSITORY))

    env = {each["name"]: each.get("value", "") for each in container["env"]}
    assert set(env) == {"RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RUN_NAME"}
    env["RAY_API_SERVER_ADDRESS"] = cluster.dashboard
    env["RAY_AUTH_TOKEN"] = cluster.env["RAY_AUTH_TOKEN"]
    env["RUN_NAME"] = "skinbatch-nightly-29411100"

    given = {SOURCE: source, DEST: dest, WORKERS.replace(" ", "="): ONE_WORKER.replace(" ", "=")}
    assert given.keys() < set(container["args"])
    arguments = [given.get(each, each) for each in container["args"]]
    return [sys.executable, script, *container["command"][2:], *arguments], env


@pytest.mark.slow
def test_the_nightly_job_scores_what_is_new(
    cluster: RayCluster, s3: S3Server, tmp_path: Path
) -> None:
    photos, scores = s3.bucket(), s3.bucket()
    command, env = nightly(cluster, f"s3://{photos}", f"s3://{scores}")

    put_photo(s3, photos, 0)
    first = run(command, cluster, tmp_path, **env)
    assert first.returncode == 0, first.stdout + first.stderr
    assert statuses(s3, f"s3://{scores}") == {"0.png": "ok"}

    put_photo(s3, photos, 1)
    second = run(command, cluster, tmp_path, **env)
    assert second.returncode == 0, second.stdout + second.stderr
    assert statuses(s3, f"s3://{scores}") == {"0.png": "ok", "1.png": "ok"}

    third = run(command, cluster, tmp_path, **env)
    assert third.returncode == 0
    assert result_in(third.stdout)["exit_code"] == 0
    ids = [
        line.split()[2]
        for line in (first.stderr + second.stderr + third.stderr).splitlines()
        if "submit:" in line
    ]
    assert ids == [f"{env['RUN_NAME']}-{attempt}" for attempt in (1, 2, 3)]
