"""Define `skinbatch train` and `skinbatch recipes`, and show a training's progress."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skinbatch.cli.options import Json, RayAddress, print_json
from skinbatch.engines.terminal import Display, clock
from skinbatch.toml_file import read_toml
from skinbatch.train.fitting.progress import TrainingStep

if TYPE_CHECKING:
    from skinbatch.train.session import TrainingOutcome


class StageChoice(StrEnum):
    """Name the stages that can be trained."""

    SEGMENTER = "segmenter"
    DETECTOR = "detector"
    CLASSIFIER = "classifier"


class TrainingPresenter(Display):
    """Show a training's steps, and a line for every evaluation. Implements TrainingProgress."""

    def __init__(self) -> None:
        super().__init__(bar_width=10)
        self._phases: set[str] = set()

    def phase(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        elif text not in self._phases:  # A training evaluates again and again.
            self._phases.add(text)
            self._line(text)

    def step(self, now: TrainingStep) -> None:
        self._move(now.step, now.steps, describe_step(now))

    def evaluated(self, point: Mapping[str, float]) -> None:
        self._line(describe_point(point))


def describe_step(now: TrainingStep) -> str:
    """Return `120/3,000, loss 0.532, best 0.812, waited 0.4 %, 12:30 left`."""
    parts = [
        f"{now.step:,}/{now.steps:,}" if now.steps is not None else f"step {now.step:,}",
        f"loss {now.loss:.3g}",
    ]
    if now.best is not None:
        parts.append(f"best {now.best:.3g}")
    parts.append(f"waited {100 * now.waited:.1f} %")
    if now.left_s is not None:
        parts.append(f"{clock(now.left_s)} left")
    return ", ".join(parts)


def describe_point(point: Mapping[str, float]) -> str:
    """Return `step 150 (epoch 3): loss 0.41, score 0.83, dice skin 0.91, waited for data 0.4 %`."""
    shown = {n: v for n, v in point.items() if n not in ("step", "epoch", "minutes", "waited")}
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return (
        f"step {point['step']:,g} (epoch {point['epoch']:g}, {point['minutes']:g} minutes): {numbers}, "
        f"waited for data {100 * point['waited']:.1f} %"
    )


def train(
    stage: Annotated[
        StageChoice, typer.Argument(metavar="STAGE", help="segmenter, detector or classifier.")
    ],
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A TOML file, or the name of a recipe that comes with skinbatch; see `skinbatch recipes`.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to write to: the pack goes to DIR/NAME; checkpoints, log and curves of each stage to DIR/work.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder that relative paths of photos in the recipe start from. (default: the recipe's folder, or the "
            "current one if the recipe comes with skinbatch)",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            help="How to recognise photos of one person, which stay on one side of the split: a regular expression over the "
            "photo's name with the person in brackets, a column of a CSV, or `look` for photos that look alike. (default: "
            "the recipe's `group`)",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Treat problems in the annotated photos as errors (exit 2)."),
    ] = False,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Train a stage of a pack on annotated photos. Run the same command again to resume.

    Exit codes: 0 the pack is written; 2 wrong use; 7 another training is using DIR; 130
    interrupted.
    """
    from skinbatch.train.session import train as run
    from skinbatch.train.shipped import find_recipe

    file = find_recipe(recipe)
    with TrainingPresenter() as presenter:
        outcome = run(
            stage.value,
            file,
            out,
            presenter,
            strict=strict,
            ray_address=ray_address,
            data_folder=data,
            group=group,
        )
    if as_json:
        print_json(outcome.as_json())
    else:
        print(as_text(outcome, stage.value))


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Recipe to print, for you to edit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that come with skinbatch, or print one as TOML to edit and train.

    For example, `skinbatch recipes starter_detector > mine.toml`, then `skinbatch train detector mine.toml --out trained`.
    """
    from skinbatch.train.shipped import find_recipe, headline, shipped_recipes

    if name is not None:
        print(find_recipe(name).read_text(encoding="utf-8"), end="")
        return

    rows = []
    for known, path in shipped_recipes().items():
        rows.append({"name": known, "stage": read_toml(path)["stage"], "about": headline(path)})

    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['name']} ({row['stage']})\n    {row['about']}")
    print(
        "\nTrain one with `skinbatch train STAGE NAME --data PHOTOS --out DIR`; print it with `skinbatch recipes NAME`."
    )


def as_text(outcome: TrainingOutcome, stage: str) -> str:
    """Return the report of a training: the pack, its numbers and the next command."""
    pack = outcome.pack
    first = "Nothing to do: this training is done" if outcome.trained is None else "Trained"
    lines = [f"{first}: pack {pack.name}, {pack.directory}"]
    for metric in outcome.metrics:
        of = (
            f" of {metric['of']}"
            if metric["of"] not in ("", "mean")
            else ", mean"
            if metric["of"]
            else ""
        )
        interval = (
            f" ({metric['low']:.3f} to {metric['high']:.3f})" if metric["low"] is not None else ""
        )
        lines.append(f"  {metric['name'] + of:32} {metric['value']:.3f}{interval}")
    lines.append(f"  {'curves':10} {outcome.work / 'curves.png'}")
    lines.append(f"  {'card':10} {pack.directory / 'CARD.md'}")
    address = shlex.quote(str(pack.directory))
    if outcome.tried is None:
        lines.append(
            f"It has no {' and no '.join(pack.lacks)} yet: train or import one, or name a `base` in the recipe."
        )
    else:
        lines.append(f"  {'tried on':10} {outcome.tried['photo']}: {outcome.tried['status']}")
        lines.append(f"Next: skinbatch score PHOTOS OUT --pack {address}")
    return "\n".join(lines)
