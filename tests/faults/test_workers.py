"""Test workers that are killed or stopped at every point of a unit: the tables are those of an undisturbed run."""

from __future__ import annotations

import pytest

from tests.faults.bench import differences, same_rows
from tests.faults.fault import Fault
from tests.faults.points import and_slow
from tests.faults.trial import Trial

POINTS = [
    Fault("worker", "get photo", "after", 20),
    Fault("worker", "model", "before", 5),
    Fault("worker", "put receipts", "after", 3),
]
MORE_POINTS = [
    Fault("worker", "stream photo", "after"),
    Fault("worker", "put images", "before", 3),
    Fault("worker", "put boxes", "before", 3),
    Fault("worker", "put receipts", "before", 3),
]


@pytest.mark.parametrize("fault", and_slow(POINTS, MORE_POINTS))
def test_a_worker_that_is_killed_costs_nothing(fault: Fault, trial: Trial) -> None:
    trial.plan(fault)
    driver = trial.run()
    assert len(trial.faults.happened) == 1
    assert "a worker died" in driver.said
    trial.check()


LATE = [
    Fault("worker", "put images", "before", 3, "stop"),
    Fault("worker", "put boxes", "before", 3, "stop"),
    Fault("worker", "put receipts", "before", 3, "stop"),
]


@pytest.mark.parametrize("fault", and_slow(LATE[2:], LATE[:2]))
def test_a_worker_that_was_given_up_and_writes_late_is_put_right_by_the_clean_up(
    fault: Fault, trial: Trial
) -> None:
    trial.plan(fault, Fault("driver", "put snapshots", "before", 1, "stop"))
    driver = trial.start(lose=True)
    assert driver.wait() is None
    (late,) = (pid for fault, pid in trial.faults.happened if fault.role == "worker")
    trial.go_on(late)
    trial.end_of(late)
    trial.go_on(driver.pid)
    assert driver.end() == 0, driver.said
    trial.check()


@pytest.mark.parametrize("fault", and_slow(LATE[1:2], [LATE[0], LATE[2]]))
def test_one_that_writes_after_the_clean_up_is_not_seen_and_put_right_by_the_next_run(
    fault: Fault, trial: Trial
) -> None:
    trial.plan(fault)
    trial.run(lose=True)
    trial.check()
    late = trial.hit()
    trial.go_on(late)
    trial.end_of(late)
    assert same_rows(trial.out, trial.like)
    assert differences(trial.out), "verify names what was written late"
    trial.run()
    trial.check()
