"""Test drivers that are killed or interrupted while Ray works for them.

These are whole commands, each with an embedded Ray of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skinbatch.runs import layout
from tests.faces import rows
from tests.faults.bench import differences, same_rows
from tests.faults.fault import ENVIRONMENT, ROLE, Fault, Faults, state_of
from tests.faults.trial import SETTINGS
from tests.faults.zygote import ROOT

pytestmark = pytest.mark.slow

Start = Callable[[], "subprocess.Popen[str]"]
RUN_S = 120


@pytest.fixture
def start(archive: Path, fake_pack: str, faults: Faults, tmp_path: Path) -> Iterator[Start]:
    """Start `skinbatch score --engine ray` of the archive into `out`, in a process group of its own."""
    settings = tmp_path / "settings.toml"
    settings.write_text(
        SETTINGS.replace("batch_size = 2", "batch_size = 2\nworkers = 2\ncpus_per_worker = 1.0")
    )
    where = ["score", str(archive), str(tmp_path / "out"), "--pack", fake_pack, "--engine", "ray"]
    env = os.environ | {
        "PYTHONPATH": f"{Path(__file__).parent / 'hooks'}:{ROOT}",
        ENVIRONMENT: str(faults.folder),
        ROLE: "driver",
    }
    env.pop("RAY_ADDRESS", None)
    started: list[subprocess.Popen[str]] = []

    def run() -> subprocess.Popen[str]:
        program = [
            sys.executable,
            "-c",
            "from skinbatch.cli.main import main; main()",
            *where,
            "--config",
            str(settings),
        ]
        pipe, same = subprocess.PIPE, subprocess.STDOUT
        process = subprocess.Popen(
            program, env=env, stdout=pipe, stderr=same, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(faults: Faults, process: subprocess.Popen[str]) -> int:
    """Wait for the fault, and return the process that it hit."""
    end = time.monotonic() + RUN_S
    while not (found := faults.happened):
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.05)
    return found[0][1]


def ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=RUN_S)[0]
    return process.returncode, said


def check(start: Start, faults: Faults, out: Path, undisturbed: Path) -> None:
    """Run the same command to the end at once, and check that nothing is lost or doubled.

    Workers of the earlier driver may still write until they have ended too.
    """
    code, said = ends(start())
    assert code == 0, said
    assert same_rows(out, undisturbed)
    end = time.monotonic() + RUN_S
    while any(state_of(pid) not in ("", "Z") for pid in faults.running("worker")):
        assert time.monotonic() < end, "workers of a driver that is gone stay"
        time.sleep(0.1)
    code, said = ends(start())
    assert code == 0, said
    assert differences(out) == []
    assert same_rows(out, undisturbed)
    assert not list(out.rglob(".tmp-*"))


@pytest.mark.parametrize(
    "fault",
    [Fault("driver", "put snapshots"), Fault("worker", "put boxes", "before", 3, "stop")],
    ids=lambda f: f.point,
)
def test_the_command_after_a_killed_driver_goes_on(
    fault: Fault, start: Start, faults: Faults, undisturbed: Path, tmp_path: Path
) -> None:
    faults.plan([fault])
    driver = start()
    stood_still = until(faults, driver)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    if fault.role == "worker":  # it writes late, if Ray has not ended it with the driver
        with suppress(ProcessLookupError):
            os.kill(stood_still, signal.SIGCONT)
    check(start, faults, tmp_path / "out", undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_driver_ends_with_130_and_keeps_what_is_finished(
    number: signal.Signals, start: Start, faults: Faults, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    faults.plan([Fault("worker", "put receipts", "after", 3, "hang")])
    driver = start()
    until(faults, driver)
    driver.send_signal(number)
    code, said = ends(driver)
    assert code == 130, said
    assert "Traceback" not in said and "run the same command again to continue" in said
    assert not (out / layout.CLAIM).exists()
    kept = rows(out)
    assert 0 < len(kept) < len(rows(undisturbed))
    check(start, faults, out, undisturbed)
