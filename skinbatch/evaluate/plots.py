"""Draw an evaluation as PNG plots, one for each subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skinbatch.errors import UsageError
from skinbatch.evaluate import papers
from skinbatch.evaluate.diseases import Diseases
from skinbatch.evaluate.evaluation import DISEASES, GRADES, LESIONS, REGIONS, Evaluation
from skinbatch.evaluate.lesions import Lesions
from skinbatch.evaluate.slices import SEVERITIES
from skinbatch.metrics.detection import IOUS, RECALLS

_SEVERITY_COLOURS = ("#2f7d43", "#e0b020", "#d9541e", "#6d1a4d")
_OTHER = "#4a6f94"
_COLOURS = ("#1f5f8b", "#c8442c", "#3b8a4f", "#8a5fa8", "#d9a520", "#5b5b5b", "#2ba6a0", "#a85f7c")
# Width of one of a class's two bars, as a fraction of the space between classes.
_BAR = 0.38
# Least space for a class in inches, so that the numbers over its two bars do not overlap.
_WIDTH = 0.6
# Most photos in a scatter plot. If there are more, a random sample is drawn.
_MOST_POINTS = 20_000


def draw(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the plots that the evaluation has numbers for into `folder` and return their paths."""
    drawings: dict[str, Callable[[Axes], None]] = {}
    lesions = evaluation.parts.get(LESIONS)
    if isinstance(lesions, Lesions):
        drawings["precision_recall.png"] = lambda axes: _precision_recall(
            axes, lesions, evaluation.numbers[LESIONS]
        )
        drawings["counts.png"] = lambda axes: _counts(axes, lesions, evaluation.severity)
        drawings["thresholds.png"] = lambda axes: _thresholds(axes, lesions)
    if GRADES in evaluation.numbers:
        grades = evaluation.numbers[GRADES]
        drawings["grades.png"] = lambda axes: _confusion(
            axes, grades["confusion"], grades["grades"], [*grades["grades"], "no grade"], "grade"
        )
    if REGIONS in evaluation.numbers:
        drawings["masks.png"] = lambda axes: _masks(axes, evaluation.numbers[REGIONS])
    for name, part in evaluation.parts.items():
        if isinstance(part, Diseases):
            drawings |= _of_classifier(
                part, evaluation.numbers[name], name.removeprefix(f"{DISEASES}.")
            )
    paths = []
    for name, drawing in drawings.items():
        figure = Figure(figsize=(7.2, 5.6), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        drawing(axes)
        paths.append(folder / name)
        try:
            figure.savefig(paths[-1], format="png")
        except OSError as e:
            raise UsageError(
                f"{paths[-1]}: cannot be written: {e.strerror}; name another folder with --out"
            ) from None
    return paths


def _masks(axes: Axes, numbers: Mapping[str, Any]) -> None:
    classes, figure = numbers["classes"], axes.figure
    assert isinstance(figure, Figure)
    figure.set_figwidth(max(figure.get_figwidth(), _WIDTH * len(classes)))
    for n, (key, title) in enumerate((("dice", "Dice"), ("iou", "IoU"))):
        estimates = [classes[name][key] for name in classes]
        at = np.arange(len(estimates)) + _BAR * n
        ends = [
            [max(0.0, e.value - e.low) for e in estimates],
            [max(0.0, e.high - e.value) for e in estimates],
        ]
        axes.bar(
            at,
            [e.value for e in estimates],
            _BAR - 0.02,
            yerr=np.nan_to_num(ends),
            capsize=3,
            ecolor="#333333",
            color=_COLOURS[n],
            label=title,
        )
        for x, estimate in zip(at, estimates, strict=True):
            # The number goes over the bar and its interval: a short or narrow bar has no room for
            # it.
            top = np.nanmax([0.0, estimate.value, estimate.high])
            text = f"{estimate.value:.3f}" if np.isfinite(estimate.value) else "no pixel"
            axes.text(
                x,
                top + 0.015,
                text,
                ha="center",
                va="bottom",
                rotation=90,
                color="#222222",
                fontsize=9,
            )
    axes.set_xticks(
        np.arange(len(classes)) + _BAR / 2,
        [name.replace("_", " ") for name in classes],
        rotation=25 if len(classes) > 5 else 0,
        ha="right" if len(classes) > 5 else "center",
    )
    _finish(axes, "", "share", f"{numbers['photos']:,} photos, pixels of all together")
    # A class without a pixel has no bar. Leave room for the numbers over the highest bars.
    axes.set(xlim=(-0.5, len(classes) - 1 + _BAR + 0.5), ylim=(0, 1.2), yticks=np.linspace(0, 1, 6))
    figure.legend(fontsize=9, ncols=2, frameon=False, loc="outside lower center")


def _of_classifier(
    part: Diseases, numbers: Mapping[str, Any], head: str
) -> dict[str, Callable[[Axes], None]]:
    drawings: dict[str, Callable[[Axes], None]] = {}
    if part.curves():
        drawings[f"roc_{head}.png"] = lambda axes: _roc(axes, part, numbers)
    if "with_face" in numbers and part.curves(with_face=True):
        drawings[f"roc_{head}_with_face.png"] = lambda axes: _roc(
            axes, part, numbers["with_face"], with_face=True
        )
    if numbers.get("confusion"):
        names = [name.replace("_", " ") for name in numbers["confusion_classes"]]
        drawings[f"confusion_{head}.png"] = lambda axes: _confusion(
            axes, numbers["confusion"], names, names, "class"
        )
    return drawings


def _precision_recall(axes: Axes, lesions: Lesions, numbers: Mapping[str, Any]) -> None:
    for (region, curves), colour in zip(lesions.curves().items(), _COLOURS, strict=False):
        for level, style in ((0, "-"), (5, "--")):
            mean = curves.precision[level].mean()
            label = f"{region}, IoU {IOUS[level]:.2f}: AP {mean:.3f}"
            axes.plot(
                RECALLS, curves.precision[level], style, color=colour, linewidth=1.8, label=label
            )
    title = f"{numbers['photos']:,} photos, {numbers['true_boxes']:,} true boxes; classes merged"
    _finish(axes, "recall", "precision", title)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(
        loc="upper right", fontsize=9, title=f"{papers.ACNE}: AP50 {papers.AP50}", title_fontsize=8
    )


def _counts(axes: Axes, lesions: Lesions, severity: Sequence[int | None]) -> None:
    true, counted = lesions.true_counts, lesions.own_counts
    given = np.array([-1 if severity[n] is None else severity[n] for n in lesions.places])
    random = np.random.default_rng(0)
    shown = np.sort(random.permutation(len(true))[:_MOST_POINTS])
    # Counts are whole numbers. Without a little noise, many photos would fall on one point.
    x, y = (values[shown] + random.uniform(-0.3, 0.3, len(shown)) for values in (true, counted))
    size = float(np.clip(4000 / max(1, len(shown)), 3, 22))
    for level, colour in [(-1, _OTHER), *enumerate(_SEVERITY_COLOURS)]:
        of = given[shown] == level
        if of.any():
            name = "severity not given" if level < 0 else SEVERITIES[level]
            label = f"{name} ({(given == level).sum():,})"
            axes.scatter(
                x[of],
                y[of],
                s=size,
                color=colour,
                alpha=0.6,
                linewidths=0,
                label=label,
                rasterized=True,
            )
    most = float(max(true.max(initial=1), counted.max(initial=1)) * 1.04 + 1)
    axes.plot([0, most], [0, most], color="#333333", linewidth=1, label="y = x")
    axes.set(xlim=(-1, most), ylim=(-1, most), aspect="equal")
    title = (
        f"{len(true):,} photos, score from {lesions.own_threshold:g}; points moved a little apart"
    )
    if len(shown) < len(true):
        title += f"; {len(shown):,} of them drawn"
    _finish(axes, "lesions that people marked", "lesions counted", title)
    axes.legend(fontsize=9, loc="upper left")


def _thresholds(axes: Axes, lesions: Lesions) -> None:
    error = lesions.grid_counts - lesions.true_counts[:, None]
    mae, mean = np.abs(error).mean(axis=0), error.mean(axis=0)
    axes.plot(lesions.grid, mae, color=_COLOURS[0], linewidth=1.8, label="MAE")
    axes.plot(
        lesions.grid, mean, color=_COLOURS[1], linewidth=1.8, label="mean (above 0: too many)"
    )
    axes.axhline(0, color="#333333", linewidth=0.8)
    best = int(np.argmin(mae))
    axes.axvline(
        lesions.own_threshold,
        color="#333333",
        linestyle=":",
        label=f"the scoring's, {lesions.own_threshold:g}",
    )
    label = f"least MAE on these photos: {mae[best]:.2f} at {lesions.grid[best]:g}"
    axes.plot([lesions.grid[best]], [mae[best]], "o", color=_COLOURS[0], markersize=8, label=label)
    # Far below any sensible threshold the error is many times larger. What matters is near the
    # minimum.
    reach = max(4 * float(mae[best]), float(mae[-1]), 1.0)
    axes.set(xlim=(0, 1), ylim=(max(float(mean.min()) * 1.1, -reach), reach))
    _finish(
        axes, "score from which on boxes count", "error, lesions a photo", f"{len(error):,} photos"
    )
    axes.legend(fontsize=9)


def _confusion(
    axes: Axes,
    cells: Sequence[Sequence[int]],
    rows: Sequence[str],
    columns: Sequence[str],
    what: str,
) -> None:
    table = np.array(cells)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), photos in np.ndenumerate(table):
        colour = "white" if shares[i, j] > 0.6 else "#222222"
        axes.text(
            j,
            i,
            f"{photos:,}\n{shares[i, j]:.0%}",
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
        )
    axes.set_xticks(
        range(len(columns)),
        columns,
        rotation=25 if len(columns) > 5 else 0,
        ha="right" if len(columns) > 5 else "center",
    )
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel(f"{what} found")
    axes.set_ylabel(f"true {what}")
    axes.set_title(f"{table.sum():,} photos; shares are of the true {what}", fontsize=11)


def _roc(
    axes: Axes, part: Diseases, numbers: Mapping[str, Any], *, with_face: bool = False
) -> None:
    for (name, (false, true)), colour in zip(
        part.curves(with_face=with_face).items(), _COLOURS * 3, strict=False
    ):
        apart = " (apart)" if name in part.apart else ""
        area = numbers["classes"][name]["auc"].value
        label = f"{name.replace('_', ' ')}{apart}: {area:.3f}"
        axes.plot(
            false, true, color=colour, linewidth=1.6, linestyle="--" if apart else "-", label=label
        )
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    faceless = 0 if with_face else numbers["without_face"]
    faces = f"{faceless:,} without a face (probability 0)" if faceless else "all with a face"
    title = f"{numbers['photos']:,} photos, {faces}\n{numbers['of_none']:,} of none of the classes"
    _finish(axes, "1 - specificity", "recall", title)
    axes.legend(fontsize=9, loc="lower right", title="area under the curve", title_fontsize=9)


def _finish(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
