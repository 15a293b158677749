"""Test Ray as people have it: clusters with and without a token, job servers, read-only homes, nodes to come."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from tests.faces import face, png, write_tree
from tests.ray_cluster import BIN, RayCluster, bare_environment, home_with_token

COMMAND = [sys.executable, "-m", "skinbatch", "score"]


def run(
    command: list[str], env: dict[str, str], cwd: Path, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(
        tmp_path_factory.mktemp("ray") / "photos", {f"{n}.png": png(face(n)) for n in range(6)}
    )


@pytest.fixture(scope="module")
def open_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Start a cluster without a token, as most are, with two CPUs and no GPU."""
    with RayCluster(tmp_path_factory.mktemp("home")) as cluster:
        yield cluster


def test_a_token_at_home_is_not_forced_on_a_cluster_that_has_none(
    tree: Path, fake_pack: str, open_cluster: RayCluster, tmp_path: Path
) -> None:
    env = bare_environment(home_with_token(tmp_path / "home"))
    options = ["--pack", fake_pack, "--ray-address", open_cluster.address, "--json"]
    done = run([*COMMAND, str(tree), str(tmp_path / "out"), *options], env, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 6


def test_a_cluster_that_demands_a_token_gets_the_right_one_and_another_is_refused(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    home = home_with_token(tmp_path / "home")
    with RayCluster(home, auth="token") as cluster:
        command = [
            *COMMAND,
            str(tree),
            str(tmp_path / "out"),
            "--pack",
            fake_pack,
            "--ray-address",
            cluster.address,
        ]
        done = run(command, bare_environment(home), tmp_path)
        assert done.returncode == 0, done.stderr
        (tree / "new.png").write_bytes(png(face(1, 1)))
        try:
            for other in (home_with_token(tmp_path / "other"), tmp_path):
                done = run(command, bare_environment(other), tmp_path)
                assert done.returncode == 2
                assert "demands a token" in done.stderr and "Traceback" not in done.stderr
        finally:
            (tree / "new.png").unlink()


def test_embedded_ray_runs_where_the_home_cannot_be_written(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    env = bare_environment(Path("/proc"))
    done = run(
        [*COMMAND, str(tree), str(tmp_path / "out"), "--pack", fake_pack, "--workers", "1"],
        env,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_the_address_of_a_job_server_is_told_from_that_of_a_cluster(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    env = bare_environment(tmp_path)
    command = [*COMMAND, str(tree), str(tmp_path / "out"), "--pack", fake_pack]
    done = run(command, env | {"RAY_ADDRESS": "http://head:8265"}, tmp_path)
    assert done.returncode == 2
    assert (
        "RAY_ADDRESS is http://head:8265" in done.stderr
        and "--ray-address head:6379" in done.stderr
    )
    done = run([*command, "--ray-address", "https://head:8265"], env, tmp_path)
    assert done.returncode == 2
    assert "ray job submit --address https://head:8265" in done.stderr
    assert not (tmp_path / "out/_skinbatch").exists()


@pytest.mark.parametrize(
    ("address", "code"),
    [("127.0.0.1:1", 4), ("head.invalid:6379", 4), ("127.0.0.1:port", 2), ("127.0.0.1:70000", 2)],
)
def test_a_head_that_is_not_up_is_an_outage_and_a_malformed_address_wrong_use(
    address: str, code: int, tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    command = [
        *COMMAND,
        str(tree),
        str(tmp_path / "out"),
        "--pack",
        fake_pack,
        "--ray-address",
        address,
        "--json",
    ]
    done = run(command, bare_environment(tmp_path), tmp_path)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["exit_code"]) == (code, code), done.stderr
    assert address in answer["message"] and "Traceback" not in done.stderr
    assert ("run the same command again" in answer["message"]) == (code == 4)


def test_a_temporary_folder_too_long_for_sockets_names_the_way_out(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    env = bare_environment(tmp_path) | {"TMPDIR": str(long)}
    done = run([*COMMAND, str(tree), str(tmp_path / "out"), "--pack", fake_pack], env, tmp_path)
    assert done.returncode == 2
    assert "RAY_TMPDIR" in done.stderr and "--engine local" in done.stderr


@pytest.mark.slow
def test_the_job_line_works_as_pasted_from_any_directory(
    tree: Path, fake_pack: str, open_cluster: RayCluster, tmp_path: Path
) -> None:
    env = open_cluster.env
    out = tmp_path / "out"
    submit = ["ray", "job", "submit", "--address", open_cluster.dashboard]
    line = [
        "--",
        "python",
        "-m",
        "skinbatch",
        "score",
        str(tree),
        str(out),
        "--pack",
        fake_pack,
        "--workers",
        "1",
        "--json",
    ]
    done = run([*submit, *line], env, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"exit_code": 0' in done.stdout
    assert skinbatch.verify(out).differences == []

    # Files that the command names travel in the working directory; RAY_ADDRESS names the job server.
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "night.toml").write_text("[engine]\nworkers = 1\n")
    submit = ["ray", "job", "submit", "--working-dir", str(folder)]
    done = run(
        [*submit, *line, "--config", "night.toml"],
        env | {"RAY_ADDRESS": open_cluster.dashboard},
        tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"nothing_to_do": true' in done.stdout


def test_a_gpu_run_on_a_cluster_without_one_ends_with_what_is_missing(
    tree: Path, fake_pack: str, open_cluster: RayCluster, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[engine]\nstart_timeout_s = 3.0\n")
    options = [
        "--pack",
        fake_pack,
        "--ray-address",
        open_cluster.address,
        "--config",
        str(settings),
    ]
    started = time.monotonic()
    done = run(
        [*COMMAND, str(tree), str(tmp_path / "out"), *options, "--device", "gpu"],
        open_cluster.env,
        tmp_path,
    )
    assert done.returncode == 4
    assert (
        "no node of the cluster has that (at most 2 CPUs)" in done.stderr and "1 GPU" in done.stderr
    )
    assert time.monotonic() - started < 60


def test_a_pack_that_a_node_cannot_see_is_named_with_the_node(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(fake_pack, pack)
    # The node has a file system of its own, in which an empty folder lies over the pack's.
    hidden = ("unshare", "--mount", "sh", "-ec", f'mount -t tmpfs none "{pack}"; exec "$@"', "sh")
    if subprocess.run([*hidden, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")

    with RayCluster(tmp_path, program=(*hidden, str(BIN / "ray"))) as cluster:
        options = ["--pack", str(pack), "--ray-address", cluster.address]
        done = run([*COMMAND, str(tree), str(tmp_path / "out"), *options], cluster.env, tmp_path)

    assert done.returncode == 2
    assert f"{pack}/pack.toml: not seen on node " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_plan_on_a_cluster_scores_its_sample_there_and_leaves_no_trace(
    tree: Path, fake_pack: str, open_cluster: RayCluster, tmp_path: Path
) -> None:
    env = bare_environment(tmp_path / "home")
    (tmp_path / "home").mkdir()
    out = tmp_path / "out"
    options = ["--pack", fake_pack, "--ray-address", open_cluster.address, "--json"]
    command = [*COMMAND[:-1], "plan", str(tree), str(out), *options, "--workers", "50"]
    done = run(command, env, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["left"], found["workers"], found["sample"]["photos"]) == (6, 50, 6)
    assert 1 <= found["sample"]["workers"] <= 2
    assert found["seconds"]["value"] > 0
    assert not out.exists()


@pytest.mark.slow
def test_a_gpu_run_waits_for_the_node_that_joins(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    # A busy machine may take a minute to join.
    settings.write_text("[engine]\nstart_timeout_s = 200.0\n")
    with RayCluster(tmp_path) as cluster:
        options = [
            "--pack",
            fake_pack,
            "--ray-address",
            cluster.address,
            "--device",
            "gpu",
            "--json",
        ]
        options += ["--config", str(settings)]
        scoring = subprocess.Popen(
            [*COMMAND, str(tree), str(tmp_path / "out"), *options],
            env=cluster.env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert scoring.stderr is not None
        before = list(takewhile(lambda line: not line.startswith("note: "), scoring.stderr))
        assert scoring.poll() is None, before
        cluster.add_node("--num-gpus=1", "--num-cpus=1")
        out, err = scoring.communicate(timeout=200)
        assert scoring.returncode == 0, err
        assert json.loads(out)["rows"] == 6
        # Ray was told of a GPU that does not exist. The run must say that the worker computes without one.
        assert "torch cannot use one" in err


@pytest.mark.slow
def test_a_head_that_is_lost_ends_the_run_within_a_minute(fake_pack: str, tmp_path: Path) -> None:
    tree = write_tree(
        tmp_path / "photos", {f"{n:04}.png": png(face(n % 7, 0, n % 100)) for n in range(1200)}
    )
    settings = tmp_path / "settings.toml"
    settings.write_text("[engine]\nbatch_size = 1\nworkers = 1\n")
    out = tmp_path / "out"
    with RayCluster(tmp_path) as cluster:
        options = [
            "--pack",
            fake_pack,
            "--ray-address",
            cluster.address,
            "--config",
            str(settings),
            "--json",
        ]
        scoring = subprocess.Popen(
            [*COMMAND, str(tree), str(out), *options],
            env=cluster.env,
            stdout=subprocess.PIPE,
            text=True,
        )
        while not any(out.rglob("_skinbatch/receipts/*/*/*.json")):
            assert scoring.poll() is None
            time.sleep(0.1)
        cluster.kill_head()
        killed = time.monotonic()
        said, _ = scoring.communicate(timeout=120)
        assert time.monotonic() - killed < 60
        assert scoring.returncode == 4
        assert "the head of the Ray cluster" in json.loads(said)["message"]
    report = skinbatch.score(tree, out, pack=fake_pack, engine="local")
    assert (report.exit_code, report.rows) == (0, 1200)


@pytest.mark.slow
def test_another_version_of_ray_is_named(tree: Path, fake_pack: str, tmp_path: Path) -> None:
    program = "import ray; ray.__version__ = '2.57.0'; from ray.scripts.scripts import main; main()"
    with RayCluster(tmp_path, program=(sys.executable, "-c", program)) as cluster:
        command = [
            *COMMAND,
            str(tree),
            str(tmp_path / "out"),
            "--pack",
            fake_pack,
            "--ray-address",
            cluster.address,
        ]
        done = run(command, cluster.env, tmp_path)
        assert done.returncode == 2
        assert "runs Ray 2.57.0" in done.stderr and "Traceback" not in done.stderr


def autoscaler_settings(address: str) -> dict[str, Any]:
    """Configure an autoscaler that adds at most one node, on this machine, which claims to have a GPU."""
    none: list[str] = []
    commands = (
        "initialization",
        "setup",
        "head_setup",
        "worker_setup",
        "head_start_ray",
        "worker_start_ray",
    )
    return {
        "cluster_name": "fake",
        "max_workers": 1,
        "provider": {"type": "fake_multinode", "gcs_address": address},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 1,
            },
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 1,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": none,
        "file_mounts_sync_continuously": False,
        "rsync_exclude": none,
        "rsync_filter": none,
        **{f"{name}_commands": none for name in commands},
    }


@pytest.mark.slow
def test_auto_takes_the_gpu_that_the_autoscaler_may_add(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    config = tmp_path / "ray_bootstrap_config.yaml"  # where `ray up` puts it on the head
    more = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    cluster = RayCluster(tmp_path, options=[f"--autoscaling-config={config}"], more=more)
    config.write_text(json.dumps(autoscaler_settings(cluster.address)))
    with cluster:
        options = ["--pack", fake_pack, "--ray-address", cluster.address, "--json"]
        done = run([*COMMAND, str(tree), str(tmp_path / "out"), *options], cluster.env, tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"] == 6
        # Only the added node has one.
        assert "Ray gives the worker a GPU there" in done.stderr
