"""Run random schedules of kills, stops and full disks.

To play one that fails again: python -m tests.faults.schedule --seed N
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.fault import Faults
from tests.faults.schedule import play
from tests.faults.trial import Trial

FAST, ALL = 6, 200


@pytest.mark.parametrize(
    "seed", [*range(FAST), *(pytest.param(n, marks=pytest.mark.slow) for n in range(FAST, ALL))]
)
def test_whatever_the_schedule_every_photo_has_one_row(
    seed: int, trial: Trial, tmp_path: Path
) -> None:
    played = play(replace(trial, faults=Faults(tmp_path / "played")), seed)
    assert (played.lost, played.doubled, played.wrong) == (0, 0, []), (
        f"python -m tests.faults.schedule --seed {seed}"
    )
