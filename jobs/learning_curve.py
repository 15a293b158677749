"""Measure the benefit of more photos, by training a recipe on growing shares of its photos.

All trainings are measured on the same validation photos.

    python jobs/learning_curve.py RECIPE DIR --iterations 400

Every training is `skinbatch train` with the recipe's own settings except for `[data] train_share`,
the schedule's length, which is the same number of steps for all, and, for speed, the size of the
network's input. The same command again resumes. DIR gets learning-curve.json, .png and .md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.results.model_card import WORK
from skinbatch.train.results.packing import stem_of
from skinbatch.train.shipped import find_recipe
from skinbatch.train.work_folder import PHOTOS

# The metrics to draw, a panel each. None of them can be negative.
SHOWN: Mapping[str, Sequence[str]] = {
    "segmenter": ("dice",),
    "detector": ("AP50", "count MAE"),
    "classifier": ("auc", "recall"),
}
AT_THE_END = 10**6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="a file, or the name of a recipe that comes with skinbatch")
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder for the trainings and their results"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the recipe's photos, instead of its own"
    )
    parser.add_argument(
        "--iterations", type=int, required=True, metavar="N", help="steps of each training"
    )
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.125, 0.25, 0.5, 1.0], metavar="SHARE"
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="size of the network's input, instead of the recipe's",
    )
    args = parser.parse_args()
    if not all(0 < share <= 1 for share in args.shares):
        parser.error("a share is more than 0 and at most 1")
    recipe = read_recipe(find_recipe(args.recipe), data_folder=args.data)
    if args.size is not None:
        stage = recipe.model.stage.model_copy(update={"size": args.size})
        recipe = recipe.model_copy(
            update={"model": recipe.model.model_copy(update={"stage": stage})}
        )
    args.folder.mkdir(parents=True, exist_ok=True)
    points = [
        point(recipe, args.folder, share, args.iterations) for share in sorted(set(args.shares))
    ]
    write(points, recipe, args.iterations, args.folder)
    return 0


def point(recipe: Recipe, folder: Path, share: float, iterations: int) -> dict[str, Any]:
    """Train on a share of the photos; return their number and the validation photos' metrics."""
    out = folder / f"{100 * share:g}-percent"
    out.mkdir(parents=True, exist_ok=True)
    part = out / "recipe.toml"
    part.write_text(part_of(recipe, share, iterations, part).as_toml(), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "skinbatch",
        "train",
        recipe.stage,
        str(part),
        "--out",
        str(out),
        "--json",
    ]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    seen = json.loads((out / WORK / stem_of(recipe) / PHOTOS).read_text(encoding="utf-8"))
    return {
        "share": share,
        "photos": seen["train"]["photos"],
        "metrics": json.loads(done.stdout)["metrics"],
    }


def part_of(recipe: Recipe, share: float, iterations: int, file: Path) -> Recipe:
    """Write the recipe with a share of its photos as `file`, and return it."""
    length = {
        "epochs": None,
        "minutes": None,
        "iterations": iterations,
        "evaluate_every": AT_THE_END,
        "patience": 0,
    }
    changes = {
        "data": recipe.data.model_copy(update={"train_share": share if share < 1 else None}),
        "schedule": recipe.schedule.model_copy(update=length),
    }
    return recipe.placed(file, changes)


def write(
    points: Sequence[Mapping[str, Any]], recipe: Recipe, iterations: int, folder: Path
) -> None:
    """Write the metrics as JSON, as a table and as a picture."""
    path = folder / "learning-curve"
    path.with_suffix(".json").write_text(
        json.dumps({"iterations": iterations, "points": points}, indent=1) + "\n"
    )
    path.with_suffix(".md").write_text(table(points, recipe, iterations), encoding="utf-8")
    draw(points, recipe, iterations, path.with_suffix(".png"))
    print(path.with_suffix(".md").read_text(encoding="utf-8"))


def table(points: Sequence[Mapping[str, Any]], recipe: Recipe, iterations: int) -> str:
    """Return Markdown with a row for each share and a column for each metric drawn."""
    names = [key for key in _keys(points) if key[0] in SHOWN[recipe.stage]]
    lines = [["training photos", *(f"{name} {of}".strip() for name, of in names)]]
    lines.append(["---"] * len(lines[0]))
    for one in points:
        metrics = _metrics(one)
        lines.append([f"{one['photos']:,}", *(_cell(metrics[key]) for key in names)])
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{recipe.stage} of {recipe.file.name}, {_how(recipe, iterations)}:\n\n{rows}"


def draw(points: Sequence[Mapping[str, Any]], recipe: Recipe, iterations: int, path: Path) -> None:
    """Draw a panel for each metric and a line for each class, over the number of training photos.

    Bars are 95 % bootstrap intervals.
    """
    names = [name for name in SHOWN[recipe.stage] if any(key[0] == name for key in _keys(points))]
    figure = Figure(figsize=(5.2 * len(names), 4.2), dpi=120, layout="constrained")
    figure.suptitle(f"{recipe.stage}: more photos, {_how(recipe, iterations)}", fontsize=11)
    photos = [one["photos"] for one in points]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for n, (_, of) in enumerate(key for key in _keys(points) if key[0] == name):
            metrics = [_metrics(one)[name, of] for one in points]
            values = [metric["value"] for metric in metrics]
            bars = [[_reach(metric, end) for metric in metrics] for end in ("low", "high")]
            at = [number * 1.02**n for number in photos]  # so that bars do not hide each other
            axes.errorbar(
                at,
                values,
                yerr=bars,
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=1.4,
                label=of or name,
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(photos, [f"{number:,}" for number in photos])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("training photos")
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if len(axes.lines) > 1:
            axes.legend(
                fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2
            )
    figure.savefig(path, format="png")


def _how(recipe: Recipe, iterations: int) -> str:
    size = getattr(recipe.model.stage, "size", None)
    return f"{iterations:,} steps each" + (f" at {size} px" if size is not None else "")


def _keys(points: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (name, class) of the metrics that every training gave."""
    every = [_metrics(one) for one in points]
    return [key for key in every[0] if all(key in metrics for metrics in every)]


def _metrics(one: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(metric["name"], metric["of"]): metric for metric in one["metrics"]}


def _reach(metric: Mapping[str, Any], end: str) -> float:
    return 0.0 if metric[end] is None else abs(float(metric[end]) - float(metric["value"]))


def _cell(metric: Mapping[str, Any]) -> str:
    interval = "" if metric["low"] is None else f" ({metric['low']:.3f} to {metric['high']:.3f})"
    return f"{metric['value']:.3f}{interval}"


if __name__ == "__main__":
    sys.exit(main())
