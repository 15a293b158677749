"""Test what becomes of a unit, as a table of its history."""

from __future__ import annotations

import pytest

from skinbatch.engines.next_step import (
    MOST_LOST_MACHINES,
    Count,
    Deaths,
    GiveUp,
    Halve,
    Retry,
    Verdict,
    after_death,
    after_lost_machine,
    after_store_failure,
)
from skinbatch.types import Status


@pytest.mark.parametrize(
    ("deaths", "members", "step"),
    [
        (0, 40, Retry()),
        (1, 40, Retry()),
        (1, 1, Retry()),
        (1, None, Retry()),
        (2, None, Count()),
        (9, None, Count()),
        (2, 40, Halve()),
        (2, 2, Halve()),
        (9, 2, Halve()),
        (2, 1, Retry()),
        (3, 1, Verdict(Status.CRASHED, "after 3 attempts: exit code -9")),
        (4, 1, Verdict(Status.CRASHED, "after 4 attempts: exit code -9")),
        (3, 0, Verdict(Status.CRASHED, "after 3 attempts: exit code -9")),
    ],
)
def test_a_unit_is_tried_twice_then_halved_and_its_last_photo_blamed_after_three_deaths(
    deaths: int, members: int | None, step: Retry | Count | Halve | Verdict
) -> None:
    assert after_death(Deaths(deaths, "exit code -9"), members) == step


def test_a_photo_that_made_no_progress_is_a_timeout() -> None:
    assert after_death(Deaths(3, "no photo made progress", timed_out=True), 1) == Verdict(
        Status.TIMEOUT, "after 3 attempts: no photo made progress"
    )


def test_a_store_that_fails_gets_two_pauses() -> None:
    steps = [after_store_failure(tries, "503") for tries in (1, 2, 3)]
    assert steps == [Retry(1 / 8), Retry(1 / 2), GiveUp("503")]


def test_the_unit_under_many_lost_machines_stays_open() -> None:
    assert after_lost_machine(MOST_LOST_MACHINES, "the node died") == Retry()
    assert after_lost_machine(MOST_LOST_MACHINES + 1, "the node died") == GiveUp(
        "10 machines were lost while scoring it: the node died"
    )
