"""Run `skinbatch train`: check a recipe's photos, train or resume its stage, and write the pack."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from skinbatch.annotations.checks import LEFT_OUT, check
from skinbatch.annotations.photos import AnnotatedPhoto
from skinbatch.annotations.problems import Kind, Problem, Problems
from skinbatch.errors import ClaimError, PackError, UsageError
from skinbatch.models.pack import Pack, load_pack
from skinbatch.ray_environment import cluster_address, settle
from skinbatch.train.fitting.checkpoint import whole
from skinbatch.train.fitting.parts import gather_part, parts_of
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.photos.groups import TakenPhoto, describe_groups, problems_of_groups
from skinbatch.train.photos.lists import write_listing, write_trained_on
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.results.model_card import TRAINED_ON, VALID, WORK
from skinbatch.train.results.packing import stem_of, write_pack
from skinbatch.train.results.result import TrainedStage
from skinbatch.types import Status

RECIPE, PHOTOS, PROBLEMS, DONE = "recipe.json", "photos.json", "problems.json", "done.json"
NOTHING = (
    "no evaluation had a score above 0: the model finds nothing on the validation photos; look at the curves, train "
    "longer, or check the annotations"
)
_IN_BOTH = (Kind.SAME_FILE, Kind.LOOKS_SAME)


@dataclass(frozen=True, slots=True)
class Outcome:
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
            "training": None if self.trained is None else _told(self.trained),
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
) -> Outcome:
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
    said = read_recipe(recipe, stage, data_folder).grouped(group)
    said.check_files()
    out = out.absolute()  # Workers on this machine or others have folders of their own.
    work = out / WORK / stem_of(said)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"{work}: cannot be created: {e.strerror}; choose another --out") from None
    try:
        with FileLock(work / ".lock", timeout=0):
            _keep_recipe(said, work)
            return _done(said, out, work, strict) or _train(
                said, out, work, progress, strict, ray_address
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
) -> Outcome:
    hashes: dict[Path, str] = {}
    checked = _checked(recipe, progress, hashes)
    problems = checked.problems
    while (
        unusable := {Path(p.file) for p in problems.found if p.kind in LEFT_OUT} - recipe.unusable
    ):
        # The training photos are split anew without these, and the new split is the one to check.
        recipe, before = recipe.without(unusable), problems.found
        checked = _checked(recipe, progress, hashes)
        told = {(p.kind, p.file) for p in checked.problems.found}
        # Folders of negatives no longer contain what the first look left out, so the second does
        # not report it.
        gone = (p for p in before if p.kind in LEFT_OUT and (p.kind, p.file) not in told)
        problems = Problems((*gone, *checked.problems.found))
    _refuse_seen(problems, recipe)
    _write(work / PROBLEMS, problems.as_json())
    problems.raise_if(strict)
    _keep_photos(work, checked.seen)
    write_listing(work / VALID, checked.valid)
    write_trained_on(work / TRAINED_ON, checked.train)
    for line in (*problems.as_text().splitlines(), *checked.notes, *checked.groups):
        progress.note(line)
    run: Callable[[TrainingProgress], TrainedStage] = partial(_trainer(recipe.stage), recipe, work)
    if recipe.run.workers > 1:
        settle(cluster_address(ray_address))  # before ray is imported
        from skinbatch.train.fitting.cluster import on_workers

        trained = on_workers(run, recipe.run, work, progress, address=ray_address)
    else:
        trained = run(progress)
    trained = dataclasses.replace(trained, notes=(*trained.notes, *checked.groups))
    if max(point["score"] for point in trained.curve) <= 0:
        progress.note(NOTHING)
        trained = dataclasses.replace(trained, notes=(*trained.notes, NOTHING))
    progress.phase("writing the pack")
    counts = {kind.value: len(mine) for kind, mine in problems.by_kind().items()}
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
    _write(work / DONE, done)
    return Outcome(pack, work, trained, counts, metrics, tried)


def _refuse_seen(problems: Problems, recipe: Recipe) -> None:
    """Raise UsageError if photos of the evaluation are trained on: no number would be valid."""
    seen = problems.of(Kind.SAME_FILE)
    if not seen:
        return
    shown = "; ".join(f"{problem.file} is {problem.what}" for problem in seen[:3])
    more = f"; and {len(seen) - 3} more" if len(seen) > 3 else ""
    raise UsageError(
        f"{recipe.file}: {len(seen)} photos of the evaluation are also trained on: {shown}{more}; name them in `leave_out` "
        "of the training photos, or evaluate on other photos"
    )


def _trainer(stage: str) -> Callable[[Recipe, Path, TrainingProgress], TrainedStage]:
    """Import only the frameworks of the stage that is trained."""
    if stage == "detector":
        from skinbatch.train.detection.training import train_detector

        return train_detector
    if stage == "segmenter":
        from skinbatch.train.segmentation.training import train_segmenter

        return train_segmenter
    from skinbatch.train.classification.training import train_classifier

    return train_classifier


class _Checked(NamedTuple):
    """Hold what a look at the photos of all trainings of a recipe found.

    Attributes:
        problems: mistakes in the photos.
        train, valid: photos of the last training.
        seen: hashes that show whether the photos are still the same.
        notes: other facts to report before training.
        groups: how many groups the photos of each training have, in words.
    """

    problems: Problems
    train: tuple[TakenPhoto, ...]
    valid: tuple[TakenPhoto, ...]
    seen: dict[str, Any]
    notes: list[str]
    groups: list[str]


def _checked(recipe: Recipe, progress: TrainingProgress, hashes: dict[Path, str]) -> _Checked:
    """Gather and check the photos. hashes: of files already read; new ones are added."""
    found: dict[Problem, None] = {}
    seen: dict[str, Any] = {}
    earlier: dict[str, list[AnnotatedPhoto]] = {}
    groups: dict[str, str] = {}
    notes: list[str] = []
    by_person: list[str] = []
    for part in parts_of(recipe):
        progress.phase("reading annotations")
        gathered = gather_part(recipe, part)
        progress.phase("checking photos")
        mapping, splits = part.data.mapping(part.stage.classes), gathered.splits()
        problems = check(splits, recipe.stage, part.stage.classes, mapping, hashes=hashes)
        found |= dict.fromkeys(problems.found)
        for name, photos in earlier.items():
            # A photo that an earlier training has seen must not be evaluated on.
            twice = check(
                {name: photos, "valid": splits["valid"]}, recipe.stage, part.stage.classes, mapping
            )
            found |= dict.fromkeys(problem for problem in twice.found if problem.kind in _IN_BOTH)
        found |= dict.fromkeys(
            problems_of_groups(gathered.train, gathered.valid, part.data, groups)
        )
        where = f"transfer `{part.name}`: " if part.name else ""
        if (told := describe_groups(gathered.train, gathered.valid, part.data)) is not None:
            by_person.append(f"{where}{told}")
        notes += [
            f"{where}`data.map` {name!r}: the truth has no class with this name"
            for name in gathered.unused
        ]
        earlier[f"{part.name} train"] = splits["train"]
        for name, taken in (("train", gathered.train), ("valid", gathered.valid)):
            seen[f"{part.name} {name}".strip()] = {
                "photos": len(taken),
                "sha256": _known_by(taken, hashes),
            }
    if (start := recipe.start_from()) is not None:
        seen["weights"] = {"sha256": _content(start)}
    if (faces := recipe.face_finder()) is not None:
        seen["segmenter of the base"] = {"sha256": faces}
    return _Checked(Problems(tuple(found)), gathered.train, gathered.valid, seen, notes, by_person)


def _known_by(taken: Sequence[TakenPhoto], hashes: dict[Path, str]) -> str:
    """Return a hash of names, classes, and the bytes of photos, masks and annotations.

    hashes: see _checked.
    """
    of_files = [
        list(dict.fromkeys((t.photo.annotation, t.path, *(t.photo.masks or ())))) for t in taken
    ]
    unread = [
        file
        for file in dict.fromkeys(file for files in of_files for file in files)
        if file not in hashes
    ]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        hashes.update(zip(unread, pool.map(_content, unread), strict=True))
    known = hashlib.sha256()
    for photo, files in sorted(zip(taken, of_files, strict=True), key=lambda pair: _place(pair[0])):
        said = [photo.source, photo.photo.name, photo.classes, [hashes[file] for file in files]]
        known.update(json.dumps(said).encode())
    return known.hexdigest()


def _place(taken: TakenPhoto) -> tuple[str, str, str]:
    return taken.source, taken.photo.name, str(taken.path)


def _content(path: Path) -> str:
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep_photos(work: Path, seen: dict[str, Any]) -> None:
    """Record the photos that are trained on. Raises UsageError if they have changed.

    Otherwise photos that were held back could be trained on, or the other way round.
    """
    path = work / PHOTOS
    before = _read(path)
    if before is None:
        _write(path, seen)
        return
    for name, now in seen.items():
        if before.get(name) != now:
            counts = (
                f": {before[name].get('photos')} photos then, {now['photos']} now"
                if "photos" in now
                else ""
            )
            raise UsageError(
                f"{work}: the inputs of this training have changed since it began ({name}{counts}); give another --out, "
                f"or remove {work}"
            )


def _write(path: Path, value: Any) -> None:
    """Write JSON, all of it or nothing."""
    with whole(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def _read(path: Path) -> Any | None:
    """Read JSON; None if the file does not exist or is incomplete."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _keep_recipe(recipe: Recipe, work: Path) -> None:
    """Record the recipe of this folder. Raises UsageError if another recipe was trained here."""
    path = work / RECIPE
    now = json.loads(
        json.dumps({name: value for name, value in recipe.as_dict().items() if name != "run"})
    )
    before = _read(path)
    if before is not None:
        changed = list(_differences(before, now))
        if changed:
            raise UsageError(
                f"{work}: holds the training of another recipe: {'; '.join(changed[:3])}; give another --out, or remove {work}"
            )
        return
    _write(path, now)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Any:
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"`{prefix}{name}` was {json.dumps(old)}, is {json.dumps(new)}"


def _done(recipe: Recipe, out: Path, work: Path, strict: bool) -> Outcome | None:
    """Return the finished training if the pack still is as it was written.

    With `strict`, problems in its photos raise UsageError.
    """
    done = _read(work / DONE)
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
        Problems.from_json(_read(work / PROBLEMS) or {}).raise_if(strict)
        number = sum(done["problems"].values())
        raise UsageError(
            f"{number} problems in the annotated photos; {work / PROBLEMS}, which named them, is damaged"
        )
    return Outcome(pack, work, None, done["problems"], tuple(done["metrics"]), done["tried"])


def _try(pack: Pack, photo: Path) -> dict[str, Any] | None:
    """Return the result for one photo; None for a pack that lacks a stage."""
    if pack.lacks:
        return None
    from skinbatch.scoring.scorer import Scorer

    found = Scorer(pack, device="cpu")(photo)
    return {
        "photo": str(photo),
        "status": str(found.status),
        "error": found.error,
        "face": found.face,
        "count_total": found.count_total,
        "top_class": found.top_class,
        "probs": {name: round(value, 4) for name, value in found.probs.items()},
    }


def _told(trained: TrainedStage) -> dict[str, Any]:
    plain = dataclasses.asdict(trained)
    plain["weights"] = str(trained.weights)
    for name in ("config", "reliability"):
        plain[name] = None if plain[name] is None else str(plain[name])
    plain["fields"] = dict(trained.fields)
    return plain
