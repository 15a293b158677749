"""Divide photos into the groups that numbers are also given for, so that bias becomes visible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]

# Skin tones by individual typology angle (ITA): Chardon, Cretois, Hourseau, Int. J. Cosmet. Sci. 13
# (1991) 191-208; `dark` and the names as in Del Bino, Bernerd, Br. J. Dermatol. 169 s3 (2013)
# 33-40.
TONES = ("very light", "light", "intermediate", "tan", "brown", "dark")
# Degrees: over 55 is very light, over 41 to 55 light, over 28 to 41 intermediate, over 10 to 28
# tan, over -30 to 10 brown, and anything else dark. The angle is measured on photos in unknown
# light, so a group describes how skin looks in the photo, not whose skin it is.
TONE_BOUNDS = (55.0, 41.0, 28.0, 10.0, -30.0)
# Of ACNE04's `levleN_`, N from 0, and of Hayashi's grades.
SEVERITIES = ("mild", "moderate", "severe", "very severe")


def by_tone(ita: NDArray[np.float64]) -> dict[str, Bools]:
    """Return tone -> (N,) bool; `unknown` if the angle is NaN. Empty groups are left out.

    ita: (N,) degrees.
    """
    level = (ita[:, None] <= np.array(TONE_BOUNDS)).sum(axis=1)
    known = np.isfinite(ita)
    groups = {name: known & (level == n) for n, name in enumerate(TONES)} | {"unknown": ~known}
    return {name: group for name, group in groups.items() if group.any()}


def by_severity(severity: Sequence[int | None]) -> dict[str, Bools]:
    """Return severity -> (N,) bool, by what people gave. Empty groups are left out."""
    given = np.array([-1 if level is None else level for level in severity], np.int64)
    groups = {name: given == n for n, name in enumerate(SEVERITIES)}
    return {name: group for name, group in groups.items() if group.any()}
