"""Test that the text on a plot can be read."""

from __future__ import annotations

import math

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from skinbatch.evaluate.plots import _masks
from skinbatch.metrics.bootstrap import Estimate

NONE = Estimate(math.nan, math.nan, math.nan)


@pytest.mark.parametrize("classes", [1, 4, 20])
def test_the_number_of_every_bar_is_dark_over_its_interval_and_inside_of_the_plot(
    classes: int,
) -> None:
    """Draw full bars, short ones, one that is 0, and a last class without a pixel."""
    values = [*np.linspace(1, 0, classes).tolist()][: classes - 1]
    found = {
        f"class_{n}": {
            key: Estimate(v, max(0, v - 0.1), min(1, v + 0.1)) for key in ("dice", "iou")
        }
        for n, v in enumerate(values)
    }
    found["last"] = {"dice": NONE, "iou": NONE}
    figure = Figure(figsize=(7.2, 5.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _masks(axes, {"photos": 20, "classes": found})
    figure.canvas.draw()
    room = axes.get_window_extent()
    bars = [bar.get_window_extent() for bar in axes.patches]
    assert len(axes.texts) == 2 * classes
    for number, text in enumerate(axes.texts):
        box, estimate = text.get_window_extent(), [*found.values()][number % classes]["dice"]
        assert sum(matplotlib.colors.to_rgb(text.get_color())) < 0.6
        assert (room.x0 < box.x0, box.x1 < room.x1, room.y0 < box.y0, box.y1 < room.y1) == (
            True,
        ) * 4
        top = 0.0 if math.isnan(estimate.value) else estimate.high
        assert axes.transData.inverted().transform((box.x0, box.y0))[1] > top
        assert not any(bar.width > 0 and bar.height > 0 and box.overlaps(bar) for bar in bars), (
            text.get_text()
        )
    assert sum(text.get_text() == "no pixel" for text in axes.texts) == 2
