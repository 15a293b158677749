"""Count lesions at other score thresholds than the scoring's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skinbatch.evaluate.scoring_tables import PredictedBoxes
from skinbatch.grading.arrays import NO_SIDE, BoxArrays, count_photos
from skinbatch.grading.counting import Method
from skinbatch.metrics.counts import counts_over

Ints = NDArray[np.int64]


def counts_at(predicted: PredictedBoxes, thresholds: Sequence[float], method: Method) -> Ints:
    """Return (photos, T) lesions at each threshold, counted with the scoring's method.

    thresholds: (T,), ascending. The result agrees with `count_total` at the scoring's own
    threshold.
    """
    on_skin = predicted.boxes.only(predicted.on_skin)
    if method == "boxes":
        return counts_over(
            on_skin.photo, on_skin.score, on_skin.photos, np.asarray(thresholds, np.float64)
        )
    lesions = BoxArrays(
        photo=on_skin.photo,
        xyxy=on_skin.xyxy,
        score=on_skin.score,
        label=np.zeros_like(on_skin.photo),
        side=np.full_like(on_skin.photo, NO_SIDE),
        skin_overlap=np.ones(len(on_skin.photo)),
    )
    totals = [
        count_photos(lesions, on_skin.photos, 1, threshold, method).total
        for threshold in thresholds
    ]
    return np.stack(totals, axis=1)
