"""Divide photos into the groups that numbers are also given for, so that bias becomes visible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skinbatch.grading.tones import TONES, tone_levels

Bools = NDArray[np.bool_]

# Names of the severities 0 to 3 in ACNE04's `levleN_`, and of Hayashi's grades.
SEVERITIES = ("mild", "moderate", "severe", "very severe")


def by_tone(ita: NDArray[np.float64]) -> dict[str, Bools]:
    """Return tone -> (N,) bool; `unknown` if the angle is NaN. Empty groups are left out.

    ita: (N,) degrees.
    """
    level = tone_levels(ita)
    groups = {name: level == n for n, name in enumerate(TONES)} | {"unknown": level < 0}
    return {name: group for name, group in groups.items() if group.any()}


def by_severity(severity: Sequence[int | None]) -> dict[str, Bools]:
    """Return severity -> (N,) bool, by what people gave. Empty groups are left out."""
    given = np.array([-1 if level is None else level for level in severity], np.int64)
    groups = {name: given == n for n, name in enumerate(SEVERITIES)}
    return {name: group for name, group in groups.items() if group.any()}
