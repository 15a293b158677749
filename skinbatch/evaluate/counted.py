"""Count lesions at other score thresholds than the scoring's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skinbatch.evaluate.scored import FoundBoxes
from skinbatch.grading.counting import Method, apply_threshold, count_lesions
from skinbatch.metrics.counts import counts_over
from skinbatch.types import GradedBox

Ints = NDArray[np.int64]


def counts_at(found: FoundBoxes, thresholds: Sequence[float], method: Method) -> Ints:
    """Return (photos, T) lesions at each threshold, counted with the scoring's method.

    thresholds: (T,), ascending. The result agrees with `count_total` at the scoring's own
    threshold.
    """
    on_skin = found.boxes.only(found.on_skin)
    if method == "boxes":
        return counts_over(on_skin.photo, on_skin.score, on_skin.photos, np.asarray(thresholds, np.float64))
    counts = np.zeros((on_skin.photos, len(thresholds)), np.int64)
    starts = np.searchsorted(on_skin.photo, np.arange(on_skin.photos + 1))
    for n in np.flatnonzero(np.diff(starts)).tolist():
        part = slice(starts[n], starts[n + 1])
        rows = [
            GradedBox(x1, y1, x2, y2, score, "", 1.0, None, False)
            for (x1, y1, x2, y2), score in zip(on_skin.xyxy[part].tolist(), on_skin.score[part].tolist(), strict=True)
        ]
        for k, threshold in enumerate(thresholds):
            counts[n, k] = count_lesions(apply_threshold(rows, threshold), ("",), method, nose=False).total
    return counts
