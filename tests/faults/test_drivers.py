"""Test drivers that are killed, interrupted, run twice or have a wrong clock, and full disks."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skinbatch.config import parse_config
from skinbatch.engines.driver import drive
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare
from skinbatch.errors import ClaimError
from skinbatch.runs import layout, plan
from skinbatch.storage.store import Store
from tests.faces import face, png, rows, write_tree
from tests.faults.bench import differences
from tests.faults.fault import Fault
from tests.faults.in_process import InProcessEngine
from tests.faults.points import and_slow
from tests.faults.trial import Trial

SLOW = pytest.mark.slow
POINTS = [
    Fault("driver", "put snapshots", "before"),
    Fault("driver", "delete boxes", "before"),
]
MORE_POINTS = [
    Fault("driver", "put dest", "after"),
    Fault("driver", "put plans", "after"),
    Fault("driver", "put attempts", "before"),
    Fault("driver", "put snapshots", "after"),
    Fault("driver", "delete claim", "before"),
]


@pytest.mark.parametrize("fault", and_slow(POINTS, MORE_POINTS))
def test_the_command_after_a_killed_driver_goes_on(fault: Fault, trial: Trial) -> None:
    # A worker that dies makes the driver write an attempt, which is there to be deleted in the end.
    trial.plan(fault, Fault("worker", "put boxes", "after", 2))
    driver = trial.start()
    assert driver.end() == -signal.SIGKILL
    trial.bury(driver)
    trial.run()
    trial.check()


@pytest.mark.parametrize("deed", ["int", pytest.param("term", marks=SLOW)])
def test_an_interrupted_driver_ends_with_130_and_keeps_what_is_finished(
    deed: str, trial: Trial
) -> None:
    trial.plan(
        Fault("driver", "put attempts", "after", 1, deed),  # type: ignore[arg-type]
        Fault("worker", "model", "before", 9),
    )
    driver = trial.start()
    assert driver.end() == 130, driver.said
    assert (
        "Traceback" not in driver.said and "run the same command again to continue" in driver.said
    )
    assert not (trial.out / layout.CLAIM).exists()
    kept = rows(trial.out)
    assert kept
    report = trial.report()
    assert report["scored"] == len(rows(trial.like)) - len(kept)
    trial.check()


def test_of_two_drivers_the_second_ends_with_7_and_names_the_first(trial: Trial) -> None:
    trial.plan(Fault("worker", "model", "before", 3, "stop"))
    first = trial.start()
    trial.hit()
    second = trial.start()
    assert second.end() == 7
    assert re.search(rf"held by another run.*process {first.pid}\b", second.said)
    assert first.end() == 0
    trial.check()


@SLOW
def test_the_claim_of_a_dead_driver_elsewhere_is_taken_over(trial: Trial) -> None:
    trial.plan(Fault("driver", "put snapshots"))
    first = trial.start()
    assert first.end() == -signal.SIGKILL
    trial.bury(first)
    claim = trial.out / layout.CLAIM
    claim.write_text(
        json.dumps(json.loads(claim.read_text()) | {"machine": "another", "host": "gone"})
    )
    assert "is claimed by run" in trial.run().said
    trial.check()


@pytest.mark.parametrize("beat", [2, pytest.param(4, marks=SLOW)])
def test_a_driver_that_lost_its_claim_while_it_stood_still_ends_with_7(
    beat: int, trial: Trial
) -> None:
    # This is done before a heartbeat looks. One that has looked and not yet written would take the claim back.
    trial.plan(
        Fault("driver", "get claim", "before", beat, "stop"),
        Fault("worker", "model", "before", 3, "hang"),
    )
    first = trial.start()
    assert first.wait() is None
    trial.run()  # it watches the first driver, and takes over
    trial.go_on(first.pid)
    assert first.end() == 7, first.said
    trial.run()  # whatever the first had written by then
    trial.check()


def test_two_drivers_that_know_nothing_of_each_other_lose_and_double_nothing(trial: Trial) -> None:
    # Each driver stops before its snapshot and again after it. Otherwise the first may be done when
    # the second one writes.
    trial.plan(
        *(
            Fault("driver", "put snapshots", when, nth, "stop")
            for nth in (1, 2)
            for when in ("before", "after")
        )
    )
    deaf: dict[str, Any] = {"beat_s": 1000.0, "watch_s": 0.1}
    first = trial.start(**deaf)
    assert first.wait() is None
    (trial.out / layout.CLAIM).unlink()
    second = trial.start(**deaf)
    assert second.wait() is None
    for driver in (first, second):
        trial.go_on(driver.pid)
        assert driver.wait() is None
    for driver in (first, second):
        trial.go_on(driver.pid)
    assert sorted((first.end(), second.end())) == [0, 7], first.said + second.said
    trial.check()  # no later run has to repair it
    trial.run()
    trial.check()


def run_of(photos: Path, out: Path, pack: str) -> Run:
    config = parse_config({"pack": pack, "engine": {"name": "local", "cpus_per_worker": 1.0}})
    return Run(prepare(str(photos), str(out), config), SilentPresenter(), "test")


@pytest.mark.parametrize("after", [True, False], ids=["the newer plan", "the older plan"])
@pytest.mark.parametrize("more", [False, True], ids=["the same photos", "fewer photos"])
def test_a_driver_that_planned_while_another_did_all_ends_well_or_with_7(
    after: bool, more: bool, fake_pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let two drivers that saw no plan both write plan 1: of equal numbers, the smaller name is newer."""
    out = tmp_path / "out"
    photos = write_tree(tmp_path / "photos", {f"{n}.png": png(face(n, 1, n)) for n in range(6)})
    names, named = plan.names, {"first": "a" if after else "c", "second": "b"}
    who = ["first"]
    monkeypatch.setattr(layout, "numbered", lambda n: f"{n}.{12 * named[who[-1]]}")

    def slow(store: Store, fingerprint: str) -> list[str]:
        found = names(store, fingerprint)
        if who == ["first"]:
            who.append("second")
            (out / layout.CLAIM).unlink()
            if more:
                write_tree(photos, {"late.png": png(face(3, 2, 9))})
            assert drive(run_of(photos, out, fake_pack), InProcessEngine()).exit_code == 0
            assert differences(out) == []
            who.append("first")
        return found

    monkeypatch.setattr(plan, "names", slow)
    first = run_of(photos, out, fake_pack)
    first.claim.beat_s = 600.0  # it must not notice the second driver, however long that takes
    if more and not after:
        with pytest.raises(ClaimError, match=r"another run has written plan 1\.b+, which differs"):
            drive(first, InProcessEngine())
    else:
        assert drive(first, InProcessEngine()).exit_code == 0
        assert differences(out) == []
    assert who == ["first", "second", "first"]
    assert drive(run_of(photos, out, fake_pack), InProcessEngine()).exit_code == 0
    assert differences(out) == []
    assert len(rows(out)) == (7 if more else 6)


@SLOW
def test_a_worker_of_a_dead_driver_that_writes_late_changes_nothing(trial: Trial) -> None:
    trial.plan(Fault("worker", "put boxes", "before", 2, "stop"))
    first = trial.start(lose=True)
    late = trial.hit()
    first.send(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    trial.run()
    trial.go_on(late)
    trial.end_of(late)
    trial.run()
    trial.check()


@pytest.mark.parametrize("hours", [-30, pytest.param(30, marks=SLOW)])
def test_a_clock_that_was_moved_loses_nothing(hours: int, trial: Trial) -> None:
    trial.plan(Fault("driver", "put snapshots"))
    first = trial.start()
    assert first.end() == -signal.SIGKILL
    trial.bury(first)
    trial.run(clock_s=3600.0 * hours)
    trial.check()
    status = trial.zygote.start(["status", str(trial.out), "--json"], trial.faults)
    assert status.end() == 0
    assert json.loads(status.said)["state"] == "done", (
        "the newest run is the one that was started last"
    )
    trial.run()
    trial.check()


@SLOW
@pytest.mark.parametrize("hours", [-30, 30])
def test_a_clock_that_jumps_in_mid_run_loses_nothing(hours: int, trial: Trial) -> None:
    trial.run(clock_s=3600.0 * hours, clock_after=3)
    assert trial.faults.passed("worker", "put receipts", "after") > 3
    trial.check()
    trial.run()
    trial.check()


@pytest.fixture
def small_disk(trial: Trial) -> Iterator[Trial]:
    """Return the trial with a destination on a file system of 220 KB."""
    trial.out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=220k", "none", str(trial.out)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield trial
    subprocess.run(["umount", "-l", str(trial.out)], check=True)


def test_a_full_disk_stops_the_run_with_4_and_it_goes_on_when_there_is_room(
    small_disk: Trial,
) -> None:
    trial = replace(small_disk, out=small_disk.out / "scored")
    filler = small_disk.out / "filler"
    filler.write_bytes(bytes(100 << 10))
    driver = trial.start()
    assert driver.end() == 4
    assert "No space left on device" in driver.said and "Traceback" not in driver.said
    statuses = (
        {row["status"] for row in rows(trial.out).values()}
        if (trial.out / layout.DEST).exists()
        else set()
    )
    assert statuses <= {"ok", "truncated"}
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk.out)], check=True)
    trial.run()
    trial.check()


@SLOW
def test_a_disk_that_is_full_at_the_snapshot_is_no_loss(trial: Trial) -> None:
    trial.plan(Fault("driver", "put snapshots", "before", 1, "full"))
    driver = trial.start()
    assert driver.end() == 4 and "No space left on device" in driver.said
    assert any("not finished" in d for d in differences(trial.out))
    trial.run()
    trial.check()
