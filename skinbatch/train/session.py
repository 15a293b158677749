"""Run `skinbatch train`: check a recipe's photos, train or resume its stage, and write the pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from skinbatch.annotations.problems import Problems
from skinbatch.errors import ClaimError, PackError, UsageError
from skinbatch.models.pack import Pack, load_pack
from skinbatch.ray_environment import cluster_address, settle
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.photo_checks import CheckedPhotos, check_photos
from skinbatch.train.photos.lists import write_listing, write_trained_on
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.results.model_card import TRAINED_ON, VALID, WORK
from skinbatch.train.results.packing import stem_of, write_pack
from skinbatch.train.results.result import TrainedStage
from skinbatch.train.trainers import TRAINERS
from skinbatch.train.work_folder import (
    DONE,
    PROBLEMS,
    keep_photos,
    keep_recipe,
    read_json,
    write_json,
)
from skinbatch.types import Status

NOTHING = (
    "no evaluation had a score above 0: the model finds nothing on the validation photos; look at the curves, train "
    "longer, or check the annotations"
)


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """Hold the result of a training.

    Attributes:
        work: the folder with checkpoints, log and curves.
        trained: None if everything was done already.
        problems: kind -> number of problems.
        metrics: as in TrainedStage, as plain dicts.
        tried: the result for one validation photo; None if the pack lacks a stage.
    """

    pack: Pack
    work: Path
    trained: TrainedStage | None
    problems: Mapping[str, int]
    metrics: tuple[Mapping[str, Any], ...]
    tried: Mapping[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        return {
            "pack": self.pack.describe(),
            "work": str(self.work),
            "already_done": self.trained is None,
            "problems": dict(self.problems),
            "metrics": list(self.metrics),
            "tried": self.tried,
            "training": None if self.trained is None else _as_plain(self.trained),
        }


def train(
    stage: str,
    recipe: Path,
    out: Path,
    progress: TrainingProgress,
    *,
    strict: bool = False,
    ray_address: str | None = None,
    data_folder: Path | None = None,
    group: str | None = None,
) -> TrainingOutcome:
    """Train one stage of a pack from a recipe, and write the pack to `out/<name>`.

    Checkpoints, log and curves go to the stage's folder in `work`, beside the pack. Recipes of
    several stages with the same name and `out` make one pack. The same call again resumes from the
    last checkpoint, or returns what is already done.

    Args:
        stage: `segmenter`, `detector` or `classifier`.
        recipe: The recipe's TOML file.
        out: The folder for the pack and the work.
        progress: Receives phases, numbers and notes.
        strict: Treat problems in the photos as errors.
        ray_address: The address of a Ray cluster, for recipes with several workers.
        data_folder: The folder that relative paths of photos start from, instead of the recipe's.
        group: How photos of one person are known, instead of the recipe's `group`.

    Returns:
        The pack, its numbers and the problems in its photos.

    Raises:
        UsageError: If the recipe, its files or its photos cannot be used.
        PackError: If a pack cannot be read, or the new pack cannot score.
        ClaimError: If another training is writing to the same folder.
        KeyboardInterrupt: If the training is interrupted. A checkpoint is written first.

    Example:
        >>> done = train("detector", Path("acne.toml"), Path("packs"), progress)  # doctest: +SKIP
        >>> done.pack.name, done.metrics[0]["name"]  # doctest: +SKIP
        ('acne', 'AP50')
    """
    opened = read_recipe(recipe, stage, data_folder).grouped(group)
    opened.check_files()
    out = out.absolute()  # Workers on this machine or others have folders of their own.
    work = out / WORK / stem_of(opened)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"{work}: cannot be created: {e.strerror}; choose another --out") from None
    try:
        with FileLock(work / ".lock", timeout=0):
            keep_recipe(opened, work)
            return _done(opened, out, work, strict) or _train(
                opened, out, work, progress, strict, ray_address
            )
    except Timeout:
        raise ClaimError(
            f"{work}: another training is using this folder; wait for it, or give another --out"
        ) from None


def _train(
    recipe: Recipe,
    out: Path,
    work: Path,
    progress: TrainingProgress,
    strict: bool,
    ray_address: str | None,
) -> TrainingOutcome:
    recipe, checked = check_photos(recipe, progress)
    problems = checked.problems
    write_json(work / PROBLEMS, problems.as_json())
    problems.raise_if(strict)
    keep_photos(work, checked.seen)
    write_listing(work / VALID, checked.valid)
    write_trained_on(work / TRAINED_ON, checked.train)
    for line in (*problems.as_text().splitlines(), *checked.notes, *checked.groups):
        progress.note(line)

    trained = _fit(recipe, work, progress, ray_address)
    trained = dataclasses.replace(trained, notes=(*trained.notes, *checked.groups))
    if max(point["score"] for point in trained.curve) <= 0:
        progress.note(NOTHING)
        trained = dataclasses.replace(trained, notes=(*trained.notes, NOTHING))

    progress.phase("writing the pack")
    return _write_pack(recipe, trained, checked, out, work)


def _fit(
    recipe: Recipe, work: Path, progress: TrainingProgress, ray_address: str | None
) -> TrainedStage:
    """Train here, or on the workers of a Ray cluster."""
    run: Callable[[TrainingProgress], TrainedStage] = partial(
        TRAINERS[recipe.stage](), recipe, work
    )
    if recipe.run.workers == 1:
        return run(progress)

    settle(cluster_address(ray_address))  # before ray is imported
    from skinbatch.train.fitting.cluster import on_workers

    return on_workers(run, recipe.run, work, progress, address=ray_address)


def _write_pack(
    recipe: Recipe, trained: TrainedStage, checked: CheckedPhotos, out: Path, work: Path
) -> TrainingOutcome:
    """Write the pack, try it on a validation photo, and record that the training is done."""
    counts = {kind.value: len(mine) for kind, mine in checked.problems.by_kind().items()}
    pack = write_pack(trained, recipe, out, work, counts)
    tried = _try(pack, checked.valid[0].path)
    if tried is not None and tried["status"] == Status.MODEL_ERROR:
        raise PackError(
            f"{pack.directory}: was written, but cannot score {checked.valid[0].path}: {tried['error']}; the curves of this "
            f"training are in {work / 'curves.png'}"
        )
    metrics = tuple(dataclasses.asdict(metric) for metric in trained.metrics)
    done = {
        "weights": pack.weights[stem_of(recipe)],
        "problems": counts,
        "metrics": metrics,
        "tried": tried,
    }
    write_json(work / DONE, done)
    return TrainingOutcome(pack, work, trained, counts, metrics, tried)


def _done(recipe: Recipe, out: Path, work: Path, strict: bool) -> TrainingOutcome | None:
    """Return the finished training if the pack still is as it was written.

    With `strict`, problems in its photos raise UsageError.
    """
    done = read_json(work / DONE)
    if done is None:
        return None
    try:
        pack = load_pack((out / recipe.name).resolve())
        pack.verify()
    except PackError:
        return None
    if pack.weights.get(stem_of(recipe)) != done["weights"]:
        return None
    if strict and done["problems"]:
        Problems.from_json(read_json(work / PROBLEMS) or {}).raise_if(strict)
        number = sum(done["problems"].values())
        raise UsageError(
            f"{number} problems in the annotated photos; {work / PROBLEMS}, which named them, is damaged"
        )
    return TrainingOutcome(
        pack, work, None, done["problems"], tuple(done["metrics"]), done["tried"]
    )


def _try(pack: Pack, photo: Path) -> dict[str, Any] | None:
    """Return the result for one photo; None for a pack that lacks a stage."""
    if pack.lacks:
        return None
    from skinbatch.scoring.scorer import Scorer

    result = Scorer(pack, device="cpu")(photo)
    return {
        "photo": str(photo),
        "status": str(result.status),
        "error": result.error,
        "face": result.face,
        "count_total": result.count_total,
        "top_class": result.top_class,
        "probs": {name: round(value, 4) for name, value in result.probs.items()},
    }


def _as_plain(trained: TrainedStage) -> dict[str, Any]:
    plain = dataclasses.asdict(trained)
    plain["weights"] = str(trained.weights)
    for name in ("config", "reliability"):
        plain[name] = None if plain[name] is None else str(plain[name])
    plain["fields"] = dict(trained.fields)
    return plain
