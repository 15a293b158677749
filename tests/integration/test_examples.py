"""Test that every file in `examples/` works as described."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import skinbatch
from tests.pictures import picture
from tests.ray_cluster import BIN, RayCluster, bare_environment
from tests.unit.cluster.manifests import REPOSITORY

EXAMPLES = REPOSITORY / "examples"

AIRFLOW = "apache-airflow==3.3.2"


@pytest.fixture
def two_photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture(0).save(folder / "0.png")
    (folder / "empty.png").touch()
    return folder


def statuses(dest: Path) -> dict[str, str]:
    table = skinbatch.open(dest).images()
    return dict(zip(table["image_id"].to_pylist(), table["status"].to_pylist(), strict=True))


BOTH = {"0.png": "ok", "empty.png": "empty"}


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(two_photos: Path) -> None:
    where = two_photos.parent
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "notebook.py")],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=280,
    )

    assert done.returncode == 0, done.stderr
    assert "2 photos: {'empty': 1, 'ok': 1}" in done.stdout
    assert statuses(where / "scored") == BOTH
    assert (where / "worst.png").stat().st_size > 0


def test_the_crontab_has_a_line_that_scores_what_is_new(two_photos: Path, tmp_path: Path) -> None:
    lines = (EXAMPLES / "nightly.crontab").read_text().splitlines()
    (line,) = [line for line in lines if re.match(r"[\d*]", line)]
    minute, hour, *days, command = line.split(maxsplit=5)
    assert (minute, hour, days) == ("0", "1", ["*", "*", "*"])
    assert "%" not in command  # cron would take it for the end of the line

    command = command.replace("/data", str(tmp_path))
    env = bare_environment(tmp_path)
    for _ in ("tonight", "tomorrow"):
        # More photos failed than the default allows: 3, as cron would report it.
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 3, done.stderr

    assert statuses(tmp_path / "scored") == BOTH
    results = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [result["exit_code"] for result in results] == [3, 3]
    assert [result["scored"] for result in results] == [2, 0]


@pytest.mark.slow
def test_the_cluster_job_ends_with_the_exit_code_of_the_run(
    two_photos: Path, tmp_path: Path
) -> None:
    with RayCluster(tmp_path) as cluster:
        done = subprocess.run(
            [str(EXAMPLES / "cluster_job.sh"), str(two_photos), str(tmp_path / "scored")],
            env={**cluster.env, "RAY_API_SERVER_ADDRESS": cluster.dashboard},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )

    assert done.returncode == 3, done.stdout + done.stderr
    assert statuses(tmp_path / "scored") == BOTH


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_airflow_takes_the_dag_and_tells_failures_apart(two_photos: Path, tmp_path: Path) -> None:
    # Airflow pins other versions than we do, so it gets an environment of its own.
    venv.create(tmp_path / "venv", with_pip=True)
    airflow = tmp_path / "venv/bin/airflow"
    subprocess.run(
        [str(tmp_path / "venv/bin/pip"), "install", "-q", AIRFLOW], check=True, capture_output=True
    )
    shutil.copytree(EXAMPLES, tmp_path / "dags", ignore=shutil.ignore_patterns("notebook.py"))
    env = bare_environment(tmp_path) | {
        "PATH": f"{airflow.parent}{os.pathsep}{BIN}{os.pathsep}{os.defpath}",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
    }
    for command in (["db", "migrate"], ["dags", "reserialize"]):
        subprocess.run([str(airflow), *command], env=env, check=True, capture_output=True)

    def states(photos: Path, scores: Path) -> list[str]:
        params = json.dumps({"photos": str(photos), "scores": str(scores)})
        run = subprocess.run(
            [str(airflow), "dags", "test", "skinbatch_nightly", "--conf", params],
            env=env, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        return re.findall(r"new_state=(\w+)", run.stdout + run.stderr)

    (two_photos / "empty.png").unlink()
    assert states(two_photos, tmp_path / "scored") == ["success"]
    assert statuses(tmp_path / "scored") == {"0.png": "ok"}
    # Wrong use fails at once: a retry would be `up_for_retry`.
    assert states(tmp_path / "no-such-folder", tmp_path / "scored-2") == ["failed"]
