"""Measure the stages of a pack on the photos of the starter recipes.

Each stage runs from pixels to tables to `skinbatch evaluate`. `python jobs/starter_pack.py measure
OUT` prints the result.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from skinbatch.evaluate import papers
from skinbatch.grading.tones import TONES
from skinbatch.train.fitting.recipe_parts import gather_part, parts_of
from skinbatch.train.photos.groups import TakenPhoto
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.shipped import find_recipe

STAGES = ("segmenter", "detector", "classifier")
NONE = "none_of_them"
PARTS = ("valid", "train")
# Of the training photos, every fifth is measured.
TRAINED_STEP = 5
ACNE04 = "acne04/"
# The segmenter's source whose masks people drew, by its name in `gather.called`. The others' masks
# were drawn by machine.
DRAWN = "data/celebamask"


def measure_stages(pack: str, photos: Path, out: Path, part: str) -> list[str]:
    """Return the rows of a Markdown table: what, value with its interval, and the paper's value.

    Args:
        pack: its name or folder.
        photos: the recipes' folder.
        out: folder for copies of the photos, tables and evaluations; what is there is removed.
        part: `valid`, or `train` for some of the photos that the pack was trained on. These rows
            have no diseases.
    """
    evaluations = {
        truth.stage: evaluated(truth, pack, out) for truth in copied_truths(photos, out, part)
    }
    rows = [*_of_masks(evaluations["segmenter"]), *_of_lesions(evaluations["detector"])]
    return rows if part == "train" else [*rows, *_of_classes(evaluations["classifier"])]


def measure_detector(pack: str, photos: Path, out: Path, part: str) -> list[str]:
    """Return the detector's rows of measure_stages, for a pack that shares its other stages."""
    truths = copied_truths(photos, out, part)
    (lesions,) = (truth for truth in truths if truth.stage == "detector")
    return [*_of_lesions(evaluated(lesions, pack, out))]


def tone_table(out: Path) -> Iterator[str]:
    """Yield a Markdown table of the numbers by skin tone. out: as it was given to measure_stages."""
    slices = {
        stage: json.loads((out / stage / "evaluation.json").read_text("utf-8"))["slices"]
        for stage in STAGES
    }
    by_tone = {stage: of_stage["skin_tone"] for stage, of_stage in slices.items()}
    yield (
        "| skin tone | faces | skin: Dice | photos with acne | AP50 | count error (MAE) | photos of diseases | mean AUC |"
    )
    yield "|---" * 8 + "|"
    for tone in (*TONES, "unknown"):
        cells: list[str] = []
        for stage, numbers in _NUMBERS_BY_TONE.items():
            group = by_tone[stage].get(tone)
            none = (0, None, None) if stage == "detector" else (0, None)
            values: tuple[Any, ...] = numbers(group) if group else none
            cells += [str(values[0]), *(_with_interval(value) for value in values[1:])]
        yield f"| {tone} | {' | '.join(cells)} |"


def _masks_of(group: dict[str, Any]) -> tuple[Any, ...]:
    return group["masks"]["photos"], group["masks"]["classes"]["skin"]["dice"]


def _boxes_of(group: dict[str, Any]) -> tuple[Any, ...]:
    lesions = group["lesions"]
    own = next(error for error in lesions["count_error"] if error["own"])
    return lesions["photos"], lesions["detection"]["all boxes"]["500"]["ap50"], own["mae"]


def _classes_of(group: dict[str, Any]) -> tuple[Any, ...]:
    part = next(value for name, value in group.items() if name.startswith("classes"))
    return part["photos"], part["classes"]["mean"]["auc"]


_NUMBERS_BY_TONE: dict[str, Callable[[dict[str, Any]], tuple[Any, ...]]] = {
    "segmenter": _masks_of,
    "detector": _boxes_of,
    "classifier": _classes_of,
}


@dataclass(frozen=True, slots=True)
class CopiedTruth:
    """Hold annotated photos of one stage.

    folder: photos and annotations. options: how `skinbatch evaluate` reads them.
    """

    stage: str
    folder: Path
    options: tuple[str, ...]


def copied_truths(photos: Path, out: Path, part: str) -> list[CopiedTruth]:
    """Copy the photos of a part to `out`, whose content is removed first.

    Args:
        photos: the recipes' folder.
        part: `valid`, or `train`, which has no photos of diseases.
    """
    shutil.rmtree(out, ignore_errors=True)
    faces = _faces(_taken(starter_recipe("segmenter", photos), part), out / "faces")
    lesions = _lesions(_taken(starter_recipe("detector", photos), part), out / "photos")
    truths = [
        CopiedTruth("detector", lesions, ("--map", "*=acne")),
        CopiedTruth("segmenter", faces, ("--map", "neck=body")),
    ]
    if part == "train":
        return truths

    recipe = starter_recipe("classifier", photos)
    apart = [option for name in recipe.data.apart for option in ("--apart", name)]
    windows = _windows(_taken(recipe, part), out / "windows")
    return [*truths, CopiedTruth("classifier", windows, ("--map", f"{NONE}=", *apart))]


def starter_recipe(stage: str, photos: Path) -> Recipe:
    """Return the recipe of a stage, whose photos are in a folder."""
    return read_recipe(find_recipe(f"starter_{stage}"), stage, photos)


def _taken(recipe: Recipe, part: str) -> tuple[TakenPhoto, ...]:
    gathered = gather_part(recipe, parts_of(recipe)[-1])
    return gathered.valid if part == "valid" else gathered.train[::TRAINED_STEP]


def _lesions(photos: Sequence[TakenPhoto], folder: Path) -> Path:
    """Copy the detector's photos of ACNE04 with their annotations.

    Photos of the other set are measured with the clones.
    """
    folder.mkdir(parents=True)
    for taken in photos:
        if taken.source.startswith(ACNE04):
            for path in (taken.path, taken.photo.annotation):
                shutil.copyfile(path, folder / path.name)
    return folder


def _faces(photos: Sequence[TakenPhoto], folder: Path) -> Path:
    """Copy the segmenter's photos of whole faces with their masks, which people drew."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for taken in photos:
        if taken.source != DRAWN:
            continue
        assert taken.photo.masks is not None
        for kind, path in (("images", taken.path), ("masks", taken.photo.masks[0])):
            shutil.copyfile(path, folder / kind / path.name)
    return folder


def _windows(photos: Sequence[TakenPhoto], folder: Path) -> Path:
    """Write the classifier's inputs without watermarks, in a folder for each class."""
    for n, taken in enumerate(photos):
        (folder / (name := taken.classes[0] if taken.classes else NONE)).mkdir(
            parents=True, exist_ok=True
        )
        with Image.open(taken.path) as image:
            x1, y1, x2, y2 = (taken.view.crop or ((0, 0, 1, 1),))[0]
            width, height = image.size
            window = (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height))
            image.convert("RGB").crop(window).save(folder / name / f"{n:04d}.png")
    return folder


def evaluated(truth: CopiedTruth, pack: str, out: Path, *scoring: object) -> dict[str, Any]:
    """Return the report of `skinbatch evaluate` about photos that were scored with the pack.

    Writes the tables to `<stage>-scored` in `out`. scoring: more options of `skinbatch score`.
    """
    photos = images if (images := truth.folder / "images").is_dir() else truth.folder
    tables, report = out / f"{truth.stage}-scored", out / truth.stage
    for command in (
        ("score", photos, tables, "--pack", pack, "--save-masks", "--engine", "local", *scoring),
        ("evaluate", tables, truth.folder, "--out", report, *truth.options),
    ):
        if code := run_skinbatch(*command):
            raise SystemExit(code)
    evaluation: dict[str, Any] = json.loads(
        (report / "evaluation.json").read_text(encoding="utf-8")
    )
    return evaluation


def _of_masks(evaluation: dict[str, Any]) -> Iterator[str]:
    part = evaluation["all"]["masks"]
    for name in ("skin", "nose"):
        yield _row(
            f"{name}: Dice, {part['photos']} faces",
            part["classes"][name]["dice"],
            papers.DICE[name],
        )


def _of_lesions(evaluation: dict[str, Any]) -> Iterator[str]:
    part = evaluation["all"]["lesions"]
    yield _row(
        f"acne: AP50, {part['photos']} photos",
        part["detection"]["all boxes"]["500"]["ap50"],
        papers.AP50,
    )
    groups = {"": part} | {
        name: group["lesions"] for name, group in evaluation["slices"]["severity"].items()
    }
    for name, group in groups.items():
        own = next(error for error in group["count_error"] if error["own"])
        what = f"count error (MAE) at {own['threshold']:g}{f', {name}' if name else ''}, {group['photos']} photos"
        paper = papers.COUNT_MAE.get(name) if name else papers.COUNT_ERROR["mae"]
        yield _row(what, own["mae"], paper, digits=2)


def _of_classes(evaluation: dict[str, Any]) -> Iterator[str]:
    """Yield the rows about classes.

    They cover the whole pipeline, where a photo without a face has probability 0, and the
    classifier over photos with a face.
    """
    part = next(value for name, value in evaluation["all"].items() if name.startswith("classes"))
    without = f" without {', '.join(part['apart'])}" if part["apart"] else ""
    faceless = {"mean": part["without_face"], **part["without_face_of_class"]}
    ways = {", whole pipeline": part} if part["without_face"] else {"": part}
    if "with_face" in part:
        ways[", classifier alone"] = part["with_face"]
    for name in ("mean", *part["of_class"]):
        for title, key in (("recall", "recall"), ("AUC", "auc")):
            for way, numbers in ways.items():
                photos = f"{numbers['of_class'].get(name, numbers['photos'])} photos"
                if numbers is not part:
                    photos += " with a face"
                elif part["without_face"]:
                    photos += f", {faceless[name]} of them without a face"
                what = (
                    f"diseases{way}: mean {title}{without}"
                    if name == "mean"
                    else f"{name}{way}: {title}"
                )
                yield _row(f"{what}, {photos}", numbers["classes"][name][key])


def _row(
    what: str, number: dict[str, float | None], paper: float | None = None, digits: int = 3
) -> str:
    beside = "" if paper is None else f"{paper:.{digits}f}"
    return f"| {what} | {_with_interval(number, digits)} | {beside} |"


def _with_interval(number: dict[str, float | None] | None, digits: int = 3) -> str:
    """Return a number with its interval, or a dash for one that no photo gives."""
    if number is None or number["value"] is None:
        return "–"
    return (
        f"{number['value']:.{digits}f} ({number['low']:.{digits}f} to {number['high']:.{digits}f})"
    )


def run_skinbatch(*arguments: object) -> int:
    """Run a command of skinbatch, and return its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "skinbatch", *map(str, arguments)], check=False
    ).returncode
