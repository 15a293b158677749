"""Draw an explanation: the photo, and each map over it, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from skinbatch.errors import UsageError
from skinbatch.report.explain import Explanation, Map

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]

PANEL_INCHES = 4.6
DPI = 130
# Pixels of a panel's longer side; more would not be visible.
LONG_SIDE = 900
# How much of the photo the panels with maps show, as a multiple of the classifier's input. Small faces are enlarged.
AROUND = 1.5
# Share of the light that is left where the network does not look.
VEIL = 0.4
# Exponent for guided back-propagation, whose gradients spread over orders of magnitude.
GAMMA = 0.5
NAMES = {"gradcam": "Grad-CAM", "guided": "guided back-propagation"}


def write_figure(explanation: Explanation, path: Path) -> None:
    """Write a PNG. Raises UsageError if it cannot be written."""
    height, width = explanation.photo.shape[:2]
    panels = 1 + len(explanation.maps)
    tall = min(PANEL_INCHES * height / width, 1.6 * PANEL_INCHES)
    figure = Figure(
        figsize=(PANEL_INCHES * panels, tall + 0.95),
        dpi=DPI,
        layout="constrained",
        facecolor="white",
    )
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _panel(axes[0], _shrunk(explanation.photo), explanation.image_id, (0, 0, width, height))
    x1, y1, x2, y2 = explanation.box
    frame: dict[str, Any] = {"fill": False, "linewidth": 1.6}
    axes[0].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, edgecolor="black", **frame))
    axes[0].add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, edgecolor="white", linestyle=(0, (4, 4)), **frame)
    )
    window = _window(explanation.box, width, height)
    left, top, right, bottom = window
    part = _shrunk(explanation.photo[top:bottom, left:right])
    for axis, (method, whole) in zip(axes[1:], explanation.maps.items(), strict=True):
        values = _shrunk(whole[top:bottom, left:right])
        drawn = _overlay(part, values) if method == "gradcam" else _light(part, values)
        nothing = "" if np.nanmax(whole) > 0 else ": nothing speaks for the class"
        _panel(axis, drawn, NAMES[method] + nothing, window)
    name = explanation.class_name.replace("_", " ")
    figure.suptitle(
        f"{explanation.head}: {name}, probability {explanation.probabilities[explanation.class_name]:.2f}",
        fontsize=14,
    )
    figure.supxlabel(
        "dashed: the classifier's input · darkened: outside its input", fontsize=9, color="#555"
    )
    try:
        figure.savefig(path, format="png")
    except OSError as e:
        raise UsageError(
            f"{path}: cannot be written: {e.strerror}; name another file with --output"
        ) from None


def _panel(axis: Axes, pixels: Pixels, title: str, window: Box) -> None:
    left, top, right, bottom = window
    axis.imshow(pixels, extent=(left, right, bottom, top), interpolation="antialiased")
    axis.set_title(title if len(title) <= 48 else f"…{title[-47:]}", fontsize=11)
    axis.set_axis_off()


def _window(box: Box, width: int, height: int) -> Box:
    """Return a window of the photo's proportions around the box, or the whole photo if that is not
    much larger.
    """
    x1, y1, x2, y2 = box
    share = AROUND * max((x2 - x1) / width, (y2 - y1) / height)
    if share >= 1:
        return 0, 0, width, height
    columns, rows = max(1, round(width * share)), max(1, round(height * share))
    left = min(max(0, (x1 + x2 - columns) // 2), width - columns)
    top = min(max(0, (y1 + y2 - rows) // 2), height - rows)
    return left, top, left + columns, top + rows


def _shrunk(pixels: NDArray[Any]) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    scale = LONG_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)


def _overlay(photo: Pixels, values: Map) -> Pixels:
    """Lay heat over the photo, more opaque where it is hotter, so that cold skin stays as it is."""
    heat = np.nan_to_num(values)
    colours = matplotlib.colormaps["turbo"](0.2 + 0.75 * heat)[..., :3] * 255
    opaque = 0.6 * np.clip(heat / 0.5, 0, 1)[..., None]
    return _veiled(photo * (1 - opaque) + colours * opaque, values)


def _light(photo: Pixels, values: Map) -> Pixels:
    """Show strengths as light on a dim grey photo."""
    strength = np.nan_to_num(values) ** GAMMA
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None] * 0.35
    colours = matplotlib.colormaps["inferno"](0.1 + 0.9 * strength)[..., :3] * 255
    return _veiled(grey * (1 - strength[..., None]) + colours * strength[..., None], values)


def _veiled(pixels: NDArray[np.float64], values: Map) -> Pixels:
    light = np.where(np.isnan(values), VEIL, 1.0)[..., None]
    return np.asarray(np.clip(pixels * light, 0, 255), np.uint8)
