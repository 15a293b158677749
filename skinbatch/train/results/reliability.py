"""Draw how far the probabilities of a classifier agree with what is true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from skinbatch.metrics.calibration import BINS, Reliability

_COLOUR, _COUNT = "#1f5f8b", "#b9c7d1"
_COLUMNS = 4


def draw_reliability(curves: Mapping[str, Reliability], path: Path) -> None:
    """Write a PNG with a reliability diagram for each curve.

    Points are bins of the probability. Right of the diagonal, the probability is higher than the
    share of photos that has the class. Bars are the photos of a bin, as a share of the fullest one.

    Args:
        curves: By their names, as `reliabilities` returns them.
        path: The file.
    """
    columns = min(_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.3 * rows), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, curve) in zip(panels, curves.items(), strict=False):
        middles = (np.arange(BINS) + 0.5) / BINS
        axes.bar(middles, curve.photos / max(1, curve.photos.max()), width=0.9 / BINS, color=_COUNT)
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle="--")
        filled = curve.photos > 0
        axes.plot(curve.mean[filled], curve.share[filled], color=_COLOUR, marker="o", markersize=4)
        axes.set_title(f"{name}\nexpected calibration error {curve.error.value:.3f}", fontsize=9)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability")
        axes.set_ylabel("share of photos with the class")
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    figure.savefig(path, format="png")
