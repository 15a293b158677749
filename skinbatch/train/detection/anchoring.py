"""Fit a detector's anchors to the boxes that it is trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skinbatch.errors import UsageError
from skinbatch.models.detectors.anchors import fit_anchors, mean_iou
from skinbatch.models.stages import AnchorSection, DetectorStage


def with_fitted_anchors(
    stage: DetectorStage, sizes: NDArray[np.float32], number: int, seed: int, where: str
) -> tuple[DetectorStage, str]:
    """Return the stage with `number` fitted anchors, and a sentence on their fit.

    The anchors are found by k-means with the distance 1 - IoU (YOLO9000; paper 003).

    Args:
        sizes: (N, 2) widths and heights at network scale.
        where: the recipe, for messages.

    Raises:
        UsageError: the architecture has no anchors, or there are fewer different boxes than
            anchors.
    """
    if stage.architecture.starts_from != "anchors":
        raise UsageError(
            f"{where}: setting `model.fit_anchors`: `{stage.arch}` has no anchors; leave it out"
        )
    try:
        fitted = fit_anchors(sizes.astype(np.float64), number, seed)
    except ValueError as e:
        raise UsageError(f"{where}: setting `model.fit_anchors`: {e}") from None
    anchors = AnchorSection(
        sizes=tuple((round(float(w), 1), round(float(h), 1)) for w, h in fitted)
    )
    iou = mean_iou(sizes.astype(np.float64), fitted)
    fit = f"{number} anchors fitted to {len(sizes)} training boxes: mean IoU with the nearest {iou:.3f}"
    return stage.model_copy(update={"anchors": anchors}), fit
