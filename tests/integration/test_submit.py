"""Test that `jobs/submit.py` gives a scheduler the exit code of the command that ran in the cluster."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from tests.ray_cluster import RayCluster, free_ports
from tests.unit.cluster.manifests import REPOSITORY

SUBMIT = [sys.executable, str(REPOSITORY / "jobs/submit.py")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    env = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_JOB_STOP_WAIT_TIME_S": "30"}
    with RayCluster(tmp_path_factory.mktemp("home"), auth="token", more=env) as running:
        yield running


def client_of(cluster: RayCluster) -> dict[str, str]:
    """Return the environment of a pod that submits."""
    return {**cluster.env, "RAY_API_SERVER_ADDRESS": cluster.dashboard}


def submit(
    cluster: RayCluster, cwd: Path, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SUBMIT, *arguments],
        env={**client_of(cluster), **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
    )


def start(cluster: RayCluster, cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SUBMIT, *arguments],
        env=client_of(cluster),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(program: str) -> list[str]:
    return ["--", sys.executable, "-c", program]


@pytest.fixture
def client(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> JobSubmissionClient:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, cluster.env[name])
    return JobSubmissionClient(
        cluster.dashboard, headers={"Authorization": f"Bearer {cluster.env['RAY_AUTH_TOKEN']}"}
    )


@pytest.mark.parametrize("code", [0, 2, 4, 6, 7, 130])
def test_the_exit_code_of_the_command_is_the_submitters(
    code: int, cluster: RayCluster, tmp_path: Path
) -> None:
    done = submit(
        cluster,
        tmp_path,
        *python(f"import sys; print('{{\"exit_code\": {code}}}'); sys.exit({code})"),
    )

    assert done.returncode == code, done.stderr
    assert f'{{"exit_code": {code}}}' in done.stdout.splitlines()


def test_a_command_that_is_killed_ends_as_in_a_shell(cluster: RayCluster, tmp_path: Path) -> None:
    done = submit(cluster, tmp_path, *python("import os; os.kill(os.getpid(), 9)"))

    assert done.returncode == 128 + 9


def test_arguments_arrive_as_they_are(cluster: RayCluster, tmp_path: Path) -> None:
    program = "import sys; print(sys.argv[1:])"
    done = submit(cluster, tmp_path, *python(program), "a b", "$HOME", "it's", "--exclude=*.png")

    assert str(["a b", "$HOME", "it's", "--exclude=*.png"]) in done.stdout.splitlines()


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the submitter ended without printing {text!r}")


# Prints a line on SIGTERM, as a run does, which writes its record before it ends.
ORDERLY = (
    "import signal, sys, time\n"
    "def end(*_): time.sleep(5); print('books closed', flush=True); sys.exit(130)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "print('at work', flush=True)\n"
    "time.sleep(300)"
)


def test_sigterm_stops_the_run_and_waits_for_its_end(
    cluster: RayCluster, client: JobSubmissionClient, tmp_path: Path
) -> None:
    process = start(cluster, tmp_path, "--name=to-stop", *python(ORDERLY))
    wait_for_line(process, "at work")

    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    assert "books closed" in rest
    assert client.get_job_status("to-stop-1") == JobStatus.STOPPED


def test_sigterm_ends_the_wait_for_a_head(cluster: RayCluster, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"--address=http://127.0.0.1:{port}"
    # The first process of a container: it ignores a signal that it has no handler for.
    program = (
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        f"sys.argv = [{SUBMIT[1]!r}, {address!r}, '--wait=300', '--', 'true']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=client_of(cluster),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_line(process, "ready")

    # It is sent again and again, because nothing shows when the handler is in place.
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    _, errors = process.communicate()

    assert process.returncode == 130, errors
    assert "interrupted before the run was submitted" in errors


@pytest.mark.slow
def test_a_second_submitter_follows_the_run_of_one_that_was_lost(
    cluster: RayCluster, client: JobSubmissionClient, tmp_path: Path
) -> None:
    flag = tmp_path / "go-on"
    program = (
        "import os, sys, time\n"
        "print('at work', flush=True)\n"
        f"while not os.path.exists({str(flag)!r}): time.sleep(0.1)\n"
        "sys.exit(6)"
    )
    lost = start(cluster, tmp_path, "--name=night", *python(program))
    wait_for_line(lost, "at work")
    lost.kill()
    lost.communicate()

    second = start(cluster, tmp_path, "--name=night", *python(program))
    wait_for_line(second, "at work")
    flag.touch()
    second.communicate(timeout=60)
    assert second.returncode == 6

    third = submit(cluster, tmp_path, "--name=night", *python(program))
    assert third.returncode == 6
    runs = {
        job.submission_id
        for job in client.list_jobs()
        if str(job.submission_id).startswith("night-")
    }
    assert runs == {"night-1", "night-2"}


def test_a_cluster_that_is_not_there_is_named_and_worth_another_try(
    cluster: RayCluster, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    done = submit(cluster, tmp_path, "--wait=2", *python("pass"), RAY_API_SERVER_ADDRESS=address)

    assert done.returncode == 4
    assert address in done.stderr
    assert "RAY_API_SERVER_ADDRESS" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_token_is_wrong_use(cluster: RayCluster, tmp_path: Path) -> None:
    done = submit(cluster, tmp_path, *python("pass"), RAY_AUTH_TOKEN="0" * 64)

    assert done.returncode == 2
    assert "denies access" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_head_that_is_lost_ends_the_submitter_within_its_patience(tmp_path: Path) -> None:
    with RayCluster(tmp_path) as cluster:
        process = start(
            cluster,
            tmp_path,
            "--patience=5",
            *python("import time; print('at work', flush=True); time.sleep(300)"),
        )
        wait_for_line(process, "at work")
        cluster.kill_head()
        began = time.monotonic()
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 4
    assert time.monotonic() - began < 30
    assert "the same command resumes" in errors
