"""Name skin tones by the individual typology angle (ITA)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Skin tones by individual typology angle (ITA): Chardon, Cretois, Hourseau, Int. J. Cosmet. Sci. 13
# (1991) 191-208; `dark` and the names as in Del Bino, Bernerd, Br. J. Dermatol. 169 s3 (2013)
# 33-40.
TONES = ("very light", "light", "intermediate", "tan", "brown", "dark")
# Degrees: over 55 is very light, over 41 to 55 light, over 28 to 41 intermediate, over 10 to 28
# tan, over -30 to 10 brown, and anything else dark. The angle is measured on photos in unknown
# light, so a group describes how skin looks in the photo, not whose skin it is.
TONE_BOUNDS = (55.0, 41.0, 28.0, 10.0, -30.0)


def tone_levels(ita: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (N,) indices of TONES, -1 where the angle is NaN. ita: (N,) degrees.

    >>> tone_levels(np.array([60.0, 0.0, np.nan])).tolist()
    [0, 4, -1]
    """
    levels = (ita[:, None] <= np.array(TONE_BOUNDS)).sum(axis=1)
    return np.where(np.isfinite(ita), levels, -1).astype(np.int64)
