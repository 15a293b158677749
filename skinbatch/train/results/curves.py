"""Draw the curves of a training: the loss, and the numbers about validation photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skinbatch.train.results.result import Curve, best_of

# Names in a point of a curve that are no numbers about validation photos.
PLACES = ("step", "epoch", "minutes", "loss", "waited")
_COLOURS = ("#1f5f8b", "#2e8b57", "#b8860b", "#8b5a9b", "#5a7d2a", "#3aa6a0", "#a0522d", "#708090")
_SCORE = "#c8442c"
_MOST = 9


def draw_curves(
    curve: Curve, title: str, path: Path, earlier: Sequence[tuple[str, Curve]] = ()
) -> None:
    """Write a PNG of a TrainedStage's curves, one row for each training.

    The training loss is on the left. In the middle are the score and other numbers from 0 to 1,
    with the best evaluation marked. On the right are those of another scale, if there are any.

    earlier: trainings before the last, by name.
    """
    rows = [*((f"{name}: ", points) for name, points in earlier), ("", curve)]
    panels = 2 + any(_parted(points)[1] for _, points in rows)
    figure = Figure(figsize=(4.6 * panels, 4.2 * len(rows)), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axes, (name, points) in zip(
        figure.subplots(len(rows), panels, squeeze=False), rows, strict=True
    ):
        _draw(axes, name, points)
    figure.savefig(path, format="png")


def _parted(curve: Curve) -> tuple[list[str], list[str]]:
    """Return the names of the numbers from 0 to 1, and of the others."""
    names = [
        name for name in dict.fromkeys(n for point in curve for n in point) if name not in PLACES
    ]
    shares = [name for name in names if all(0 <= point.get(name, 0) <= 1 for point in curve)][
        :_MOST
    ]
    return shares, [name for name in names if name not in shares and name != "score"][:_MOST]


def _draw(axes: Sequence[Axes], prefix: str, curve: Curve) -> None:
    shares, others = _parted(curve)
    _lines(axes[0], curve, ["loss"])
    axes[0].set_title(f"{prefix}training loss", fontsize=10)
    _lines(axes[1], curve, shares)
    axes[1].set_ylim(0, 1)
    axes[1].set_title(f"{prefix}validation", fontsize=10)
    if others:
        _lines(axes[2], curve, others)
        axes[2].set_title(f"{prefix}validation, other scales", fontsize=10)
    elif len(axes) > 2:
        axes[2].set_axis_off()
    best = curve[best_of(curve)]
    if "score" in shares:
        axes[1].plot([best["step"]], [best["score"]], marker="o", color=_SCORE, markersize=8)
        # Where the line of scores is high, there is room below it.
        axes[1].annotate(
            f"best {best['score']:.3f}",
            (best["step"], best["score"]),
            xytext=(0, -16 if best["score"] > 0.5 else 10),
            textcoords="offset points",
            ha="right" if best["step"] > curve[-1]["step"] / 2 else "left",
            color=_SCORE,
            fontsize=9,
        )


def _lines(axes: Axes, curve: Curve, names: Sequence[str]) -> None:
    colours = iter(_COLOURS * 2)
    for name in names:
        points = [(point["step"], point[name]) for point in curve if name in point]
        score = name == "score"
        axes.plot(
            *zip(*points, strict=True),
            label=name,
            color=_SCORE if score else next(colours),
            linewidth=2.2 if score else 1.3,
            marker="o" if len(points) < 3 else None,
            markersize=4,
        )
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(names) > 1:
        axes.legend(
            fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2
        )
