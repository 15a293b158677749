"""Test that both engines give the same tables, and Ray's own matters: dead actors, clusters, jobs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.engines.pool import Finished, PoolEvent, UnitProgress, WorkerReady
from skinbatch.errors import UsageError
from skinbatch.scoring.assignment import Assignment, ScoringContext, UnitDone
from skinbatch.types import WorkUnit
from tests.faces import comparable, counts, face, jpeg, png, tar_bytes, write_tree
from tests.ray_cluster import RayCluster, bare_environment, home_with_token

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = {f"{n % 3}/{n:02}.jpg": jpeg(face(n % 6, n % 5, n)) for n in range(30)}
    members = {f"{n}.png": png(face(n, 1, 50 + n)) for n in range(4)}
    return write_tree(
        tmp_path_factory.mktemp("engines") / "photos",
        {**photos, "bad.jpg": b"", "cut.jpg": jpeg(face(1, 1))[:700], "s.tar": tar_bytes(members)},
    )


@pytest.fixture(scope="module")
def local_out(tree: Path, fake_pack: str) -> Path:
    out = tree.parent / "local"
    skinbatch.score(tree, out, pack=fake_pack, engine="local", max_failures=0.5)
    return out


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """Start one embedded Ray for the tests that do not need one of their own."""
    from skinbatch.engines import ray_engine

    engine = ray_engine.RayEngine(parse_config({"engine": {"name": "ray"}}).engine)
    yield
    engine.close()


def test_local_and_ray_give_the_same_tables(
    tree: Path, local_out: Path, fake_pack: str, session: None, tmp_path: Path
) -> None:
    report = skinbatch.score(
        tree, tmp_path / "out", pack=fake_pack, engine="ray", workers=2, max_failures=0.5
    )
    assert (report.exit_code, report.rows, dict(report.statuses)) == (
        0,
        36,
        {"ok": 34, "empty": 1, "truncated": 1},
    )
    for ours, theirs in zip(comparable(tmp_path / "out"), comparable(local_out), strict=True):
        assert ours.equals(theirs)
    assert skinbatch.verify(tmp_path / "out").differences == []
    again = skinbatch.score(
        tree, tmp_path / "out", pack=fake_pack, engine="ray", workers=2, max_failures=0.5
    )
    assert (again.exit_code, again.nothing_to_do) == (0, True)


def test_a_killed_actor_costs_nothing(fake_pack: str, session: None, tmp_path: Path) -> None:
    tree = write_tree(
        tmp_path / "photos", {f"{n:03}.png": png(face(n % 7, 0, n % 100)) for n in range(120)}
    )
    killed: list[int] = []
    done = threading.Event()

    def kill_one() -> None:
        """Kill the only actor as soon as it has committed a unit."""
        while not killed and not done.wait(0.02):
            if any((tmp_path / "out/_skinbatch/receipts").rglob("*.json")):
                for process in psutil.Process().children(recursive=True):
                    if process.name().startswith("ray::_Actor"):
                        killed.append(process.pid)
                        process.send_signal(signal.SIGKILL)
                        return

    watcher = threading.Thread(target=kill_one)
    watcher.start()
    settings = parse_config({"engine": {"batch_size": 1}})  # so that there is time
    report = skinbatch.score(
        tree, tmp_path / "out", pack=fake_pack, engine="ray", workers=1, config=settings
    )
    done.set()
    watcher.join()
    assert killed
    assert (report.exit_code, report.rows, dict(report.statuses)) == (0, 120, {"ok": 120})
    assert counts(tmp_path / "out") == {f"{n:03}.png": (n % 7, n % 7, 0) for n in range(120)}
    assert skinbatch.verify(tmp_path / "out").differences == []


def test_an_answer_about_the_unit_before_is_no_progress_of_the_next_one(
    session: None, tmp_path: Path
) -> None:
    from skinbatch.engines.ray_pool import RayPool

    class Prompted:
        """End a unit, and answer a question, when a file of its name appears."""

        def __init__(self, context: ScoringContext) -> None:
            self.questions = 0

        def node(self) -> tuple[str, tuple[str, str]]:
            return "", ("CPU", "here")

        def score(self, assignment: Assignment) -> UnitDone:
            self.wait_for(assignment.unit.unit_id)
            return UnitDone(None)

        def progress(self) -> UnitProgress:
            self.questions += 1
            self.wait_for("answers")
            return UnitProgress(photos=100 * self.questions)

        def wait_for(self, name: str) -> None:
            while not (tmp_path / name).exists():
                time.sleep(0.01)

    def wait_for(kind: type[PoolEvent]) -> None:
        until = time.monotonic() + 60
        while not any(isinstance(event, kind) for event in pool.wait(0.1)):
            assert time.monotonic() < until

    context = ScoringContext("0" * 12, str(tmp_path), parse_config({}), (), (), {})
    pool = RayPool(context, 1, 0.1, 0, actor=Prompted)
    try:
        wait_for(WorkerReady)
        pool.submit(0, Assignment(WorkUnit("first"), ""))
        pool.progress()
        (tmp_path / "first").touch()
        wait_for(Finished)
        pool.submit(0, Assignment(WorkUnit("second"), ""))
        (tmp_path / "answers").touch()
        until = time.monotonic() + 60
        while not (photos := pool.progress()[0].photos):
            assert time.monotonic() < until
            pool.wait(0.1)
        assert photos == 200
    finally:
        pool.close()


def test_more_than_the_cluster_has_is_wrong_use(
    fake_pack: str, session: None, tree: Path, tmp_path: Path
) -> None:
    for settings in ({"gpus_per_worker": 64.0}, {"cpus_per_worker": 4000.0}):
        with pytest.raises(UsageError, match="per_worker = "):
            skinbatch.score(
                tree, tmp_path / "out", pack=fake_pack, config=parse_config({"engine": settings})
            )
    assert not (tmp_path / "out/_skinbatch").exists()


def run(
    command: list[str], env: dict[str, str], cwd: Path, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.slow
def test_the_command_runs_where_ray_has_never_run_before(
    tree: Path, local_out: Path, fake_pack: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "skinbatch", "score", str(tree), str(tmp_path / "out")]
    options = ["--pack", fake_pack, "--workers", "1", "--max-failures", "0.5", "--json"]
    env = bare_environment(tmp_path)
    # The first run finds no token of Ray's, the second run finds the first one's.
    for _ in range(2):
        done = run([*command, *options], env, tmp_path)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nothing_to_do"]
    for ours, theirs in zip(comparable(tmp_path / "out"), comparable(local_out), strict=True):
        assert ours.equals(theirs)


@pytest.mark.slow
def test_a_program_that_has_imported_ray_before_runs_where_ray_has_run_before(
    tree: Path, fake_pack: str, tmp_path: Path
) -> None:
    home_with_token(tmp_path)
    program = (
        "import sys, ray, skinbatch\n"
        "tree, out, pack = sys.argv[1:]\n"
        "report = skinbatch.score(tree, out, pack=pack, workers=1, max_failures=0.5)\n"
        "sys.exit(report.exit_code)"
    )
    command = [sys.executable, "-c", program, str(tree), str(tmp_path / "out"), fake_pack]
    done = run(command, bare_environment(tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_job_entry_runs_under_ray_job_submit(
    tree: Path, local_out: Path, fake_pack: str, tmp_path: Path
) -> None:
    script = [sys.executable, str(ROOT / "jobs/score.py"), str(tree), str(tmp_path / "out")]
    options = ["--pack", fake_pack, "--max-failures", "0.5", "--json"]
    with RayCluster(home_with_token(tmp_path), auth="token") as cluster:
        submit = ["ray", "job", "submit", "--address", cluster.dashboard, "--"]
        job = run([*submit, *script, *options], cluster.env, tmp_path)
    assert job.returncode == 0, job.stdout + job.stderr
    for ours, theirs in zip(comparable(tmp_path / "out"), comparable(local_out), strict=True):
        assert ours.equals(theirs)
    assert skinbatch.verify(tmp_path / "out").differences == []
