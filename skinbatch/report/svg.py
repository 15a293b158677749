"""Draw the plots of a report as SVG that follows the page's colours.

Matplotlib draws with placeholder colours, which are then replaced by the page's CSS variables. So
the same picture is right in light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skinbatch.report.summary import Histogram

# Placeholder colour -> CSS variable of the page.
_COLOURS = {"#010101": "--ink", "#020202": "--soft", "#030303": "--bar", "#040404": "--accent"}
_INK, _SOFT, _BAR, _ACCENT = _COLOURS

# Points of a scatter plot; more would make the page large and could not be told apart.
_MOST_POINTS = 1500

_WIDTH, _HEIGHT = 4.6, 2.5
# Small letters that fit side by side below a plot.
_CHARACTERS = 52


def bars(values: Mapping[str, int], title: str) -> str:
    """Return a bar chart with the number over each bar."""
    figure, axes = _axes(title)
    names = [name.replace("_", " ") for name in values]
    drawn = axes.bar(range(len(values)), list(values.values()), color=_BAR, width=0.7)
    axes.bar_label(
        drawn, labels=[f"{n:,}" for n in values.values()], color=_INK, fontsize=9, padding=2
    )
    axes.set_xticks(range(len(values)), names, fontsize=9)
    # One or two bars are not wider than those of a chart of four.
    axes.set_xlim(-0.6, max(len(values), 4) - 0.4)
    axes.margins(y=0.18)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return _svg(
        figure,
        f"{title}: "
        + ", ".join(f"{name} {n:,}" for name, n in zip(names, values.values(), strict=True)),
    )


def histogram(
    bins: Histogram, title: str, unit: str, marks: Mapping[float, str] | None = None
) -> str:
    """Return a histogram. marks: vertical lines at values, with a label each."""
    figure, axes = _axes(title)
    axes.stairs(bins.counts, _places(bins.edges), fill=True, color=_BAR)
    axes.set_xlabel(unit, color=_INK, fontsize=9)
    axes.set_ylabel("photos", color=_INK, fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _label_edges(axes, bins.edges)
    # Labels of marks stand above the bars.
    axes.margins(y=0.18 if marks else 0.05)
    for value, label in (marks or {}).items():
        place = float(np.interp(value, bins.edges, _places(bins.edges)))
        axes.axvline(place, color=_ACCENT, linewidth=1)
        axes.annotate(
            label,
            (place, 0.98),
            (3, 0),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            color=_ACCENT,
            fontsize=8,
            va="top",
        )
    return _svg(figure, f"{title}, histogram of {bins.total:,} photos")


def lines(x: Sequence[float], y: Sequence[float], title: str, x_unit: str, y_unit: str) -> str:
    """Return a line chart."""
    figure, axes = _axes(title)
    axes.plot(x, y, color=_BAR, linewidth=1.5)
    axes.set_xlabel(x_unit, color=_INK, fontsize=9)
    axes.set_ylabel(y_unit, color=_INK, fontsize=9)
    axes.set_ylim(bottom=0)
    return _svg(figure, title)


def steps(
    names: Sequence[str],
    values: Sequence[float],
    notes: Sequence[str],
    title: str,
    unit: str,
    places: Sequence[float] | None = None,
) -> str:
    """Return a line over named points.

    Args:
        names: of the points, shown below as far as there is room.
        values: of the points; NaN for a gap, which a cross marks.
        notes: words for each point; shown above those where they change.
        title, unit: of the values.
        places: of the points on the horizontal axis; None spaces them equally.
    """
    figure, axes = _axes(title)
    at = (
        np.arange(len(names), dtype=np.float64)
        if places is None
        else np.asarray(places, np.float64)
    )
    heights = np.asarray(values, np.float64)
    there = ~np.isnan(heights)
    axes.plot(at[there], heights[there], color=_BAR, linewidth=1.5, marker="o", markersize=4)
    axes.plot(
        at[~there],
        np.zeros(int((~there).sum())),
        color=_SOFT,
        linestyle="",
        marker="x",
        markersize=5,
    )

    # A note stands clear of the line: right of its point where the line falls, otherwise above it.
    before, free_from = "", -np.inf
    width = max(float(np.ptp(at)), 1e-9)
    for n in np.flatnonzero(there):
        place = float(at[n] - at[0]) / width
        if notes[n] != before and place >= free_from:
            following = heights[n + 1 :][there[n + 1 :]]
            falls = len(following) > 0 and following[0] < heights[n]
            axes.annotate(
                notes[n],
                (at[n], heights[n]),
                (4 if falls else 0, 5),
                textcoords="offset points",
                ha="left" if falls else "center",
                fontsize=8,
                color=_INK,
            )
            before, free_from = notes[n], place + (len(notes[n]) + 2) / _CHARACTERS

    shown = _with_room(at, names)
    axes.set_xticks(at[shown], [names[n].strip() for n in shown], fontsize=8)
    axes.set_ylabel(unit, color=_INK, fontsize=9)
    axes.set_ylim(
        -0.03 * max(4.0, np.nanmax(heights, initial=0)),
        1.25 * max(4.0, np.nanmax(heights, initial=0)),
    )
    axes.margins(x=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return _svg(figure, f"{title} over {len(names)} photos")


def _with_room(at: NDArray[np.float64], names: Sequence[str]) -> list[int]:
    """Return the points whose names fit below the axis without touching: the first, the last, and others."""
    room = (max(len(name) for name in names) + 2) / _CHARACTERS * max(float(np.ptp(at)), 1e-9)
    shown = [0]
    for n in range(1, len(names)):
        if at[n] - at[shown[-1]] >= room and (at[-1] - at[n] >= room or n == len(names) - 1):
            shown.append(n)
    return shown


def scatter(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    title: str,
    x_unit: str,
    y_unit: str,
    marks: Mapping[float, str] | None = None,
    *,
    diagonal: bool = False,
) -> str:
    """Return a scatter plot. Equal points are drawn once, larger the more there are.

    marks: horizontal lines at values, with a label each. diagonal: draw the line y = x.
    """
    points, number = np.unique(np.stack([x, y], axis=1), axis=0, return_counts=True)
    if len(points) > _MOST_POINTS:
        kept = np.sort(np.random.default_rng(0).choice(len(points), _MOST_POINTS, replace=False))
        points, number = points[kept], number[kept]

    figure, axes = _axes(title)
    axes.scatter(points[:, 0], points[:, 1], s=12 * np.sqrt(number), color=_BAR, linewidths=0)
    axes.set_xlabel(x_unit, color=_INK, fontsize=9)
    axes.set_ylabel(y_unit, color=_INK, fontsize=9)
    if diagonal:
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        axes.plot(ends, ends, color=_SOFT, linewidth=1)
    for value, label in (marks or {}).items():
        axes.axhline(value, color=_ACCENT, linewidth=1)
        axes.text(
            1.0,
            value,
            label,
            color=_ACCENT,
            fontsize=8,
            va="bottom",
            ha="right",
            transform=axes.get_yaxis_transform(),
        )
    return _svg(figure, f"{title}, {len(x):,} photos")


def shares(values: Mapping[str, float], title: str, unit: str) -> str:
    """Return horizontal bars, the largest first."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    figure, axes = _axes(title)
    drawn = axes.barh(range(len(ordered)), [value for _, value in ordered], color=_BAR, height=0.7)
    axes.bar_label(drawn, fmt="{:,.3g}", color=_INK, fontsize=9, padding=3)
    axes.set_yticks(
        range(len(ordered)), [name.replace("_", " ") for name, _ in ordered], fontsize=9
    )
    axes.set_xlabel(unit, color=_INK, fontsize=9)
    axes.margins(x=0.15)
    return _svg(
        figure,
        f"{title}: "
        + ", ".join(f"{name} {value:,.3g} {unit}" for name, value in reversed(ordered)),
    )


def _places(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where bin edges are drawn: at their value if bins are equally wide, else equally spaced."""
    widths = np.diff(edges)
    return edges if np.allclose(widths, widths[0]) else np.arange(len(edges), dtype=np.float64)


def _label_edges(axes: Axes, edges: NDArray[np.float64]) -> None:
    places = _places(edges)
    if places is edges:
        return
    step = max(1, len(edges) // 8)
    axes.set_xticks(places[::step], [f"{edge:,.0f}" for edge in edges[::step]])


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, color=_INK, fontsize=12, fontweight="bold", loc="left")
    axes.tick_params(colors=_INK, labelsize=9)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    for name, spine in axes.spines.items():
        spine.set_color(_SOFT)
        spine.set_visible(name in ("left", "bottom"))
    return figure, axes


def _svg(figure: Figure, description: str) -> str:
    """Return the figure as an SVG element with a description for screen readers."""
    sink = io.StringIO()
    # Text stays text: it is smaller than outlines, can be searched and takes the page's font.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": description, "font.family": "sans-serif"}
    ):
        figure.savefig(
            sink,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )

    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, f"var({variable})")
    text = text.replace("stroke: var", "stroke:var").replace("fill: var", "fill:var")
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    size = f'width="{_WIDTH * 72:g}pt" height="{_HEIGHT * 72:g}pt"'
    return text.replace(size, f'role="img" aria-label="{label}"', 1)
