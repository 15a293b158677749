"""Measure whether a pack counts lesions on other kinds of photos than its detector was trained on.

The whole pipeline runs on photos that starter_detector.toml does not train on: lesions of ACNE04's
validation part, and patches of plain skin, cloned onto clear faces of CelebA; the same faces
unchanged; and the persons of acne_phone that are held out. `python jobs/starter_pack.py
measure-clones OUT` prints the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinbatch.config import ModelSettings
from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.near_boxes import average_precision, centre_precision
from skinbatch.models.detectors.mmdet.family import detector_spec
from skinbatch.models.pack import load_pack
from skinbatch.models.stages import DetectorStage
from skinbatch.scoring.scorer import Scorer
from skinbatch.train.detection.clone_trial import A_FACE, hits
from skinbatch.train.detection.clones import Cloner
from skinbatch.train.detection.crops import Sample
from skinbatch.train.detection.detection_data import Faces, boxed_photos, held_back
from skinbatch.train.detection.scaled_photos import NO_BOXES, NO_LABELS, BoxedPhoto, ScaledPhotos
from skinbatch.train.fitting.recipe_parts import gather_part, parts_of
from skinbatch.train.photos.faces import decode_skin, find_skin
from skinbatch.train.photos.groups import TakenPhoto
from skinbatch.train.photos.photo_store import StoredPhoto, read_photo
from skinbatch.train.recipe_data import PhotoView
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.recipe_sections import CloneSection
from skinbatch.train.shipped import find_recipe
from skinbatch.types import ImageResult

# The range of cloned lesions' sides, as shares of the photo's: 10 to 56 pixels on a portrait of
# 1,024.
SIZE = (10 / 1024, 56 / 1024)
LESIONS = "acne04/valid"
SEED = 30


def measure_clones(packs: Sequence[str], photos: Path, out: Path) -> Iterator[str]:
    """Yield lines of Markdown: a table of the packs' counts, a column for each pack.

    Args:
        packs: their names or folders.
        photos: the recipes' folder.
        out: folder in which the places of skin are kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe(find_recipe("starter_detector"), "detector", photos)
    part = parts_of(recipe)[-1]
    stage, base = part.stage, recipe.base_pack()
    assert isinstance(stage, DetectorStage) and base is not None
    gathered = gather_part(recipe, part)

    def boxed(taken: Sequence[TakenPhoto], name: str) -> list[BoxedPhoto]:
        whole = [replace(photo, view=PhotoView(face=False)) for photo in taken]
        faces = Faces(base, False, "cpu", True, out)
        return boxed_photos(whole, part.data, stage.classes, faces, str(recipe.file), name)

    clear = [photo for photo in gathered.train if photo.negative]
    held = boxed([photo for n, photo in enumerate(clear) if n in held_back(len(clear))], "held")
    portraits = [
        StoredPhoto(path.name, path) for path in sorted((photos / "celebamask_1024").glob("*.jpg"))
    ]
    skins = find_skin(
        portraits, [False] * len(portraits), base, False, "cpu", out / "faces-portraits.json"
    )
    sources = dict.fromkeys(photo.source for photo in gathered.valid)
    valid = {
        name: boxed([p for p in gathered.valid if p.source == name], name.replace("/", "-"))
        for name in sources
    }
    donors = ScaledPhotos(valid[LESIONS], detector_spec(stage, ModelSettings()))
    trained = [photo.photo.boxes for photo in gathered.train if photo.photo.boxes is not None]
    guess = float(np.mean([len(boxes) for boxes in trained]))

    def rows(pack: str) -> Iterator[tuple[str, str]]:
        scorer = Scorer(pack)
        yield from _clones(
            "faces of 512 px",
            [(photo.stored.path, photo.skin) for photo in held],
            1,
            donors,
            scorer,
        )
        yield from _clones(
            "faces of 1,024 px", [(photo.path, skin) for photo, skin in skins], 10, donors, scorer
        )
        for name, annotated in valid.items():
            yield from _found(name, annotated, scorer, guess)

    columns = [dict(rows(pack)) for pack in packs]
    yield f"| what | {' | '.join(load_pack(pack).name for pack in packs)} |"
    yield "|---" * (len(packs) + 1) + "|"
    for what in columns[0]:
        yield f"| {what} | {' | '.join(column[what] for column in columns)} |"


def _clones(
    what: str,
    hosts: Sequence[tuple[Path, bytes | None]],
    times: int,
    donors: ScaledPhotos,
    scorer: Scorer,
) -> Iterator[tuple[str, str]]:
    """Yield the rows about clones. times: how often each face is cloned onto."""
    lesions, plain, on_clear = list[bool](), list[bool](), list[int]()
    for n, (path, skin) in enumerate(hosts):
        pixels = read_photo(path)
        host = Sample(pixels, NO_BOXES, NO_LABELS, decode_skin(skin))
        side = max(pixels.shape)
        section = CloneSection(size=(SIZE[0] * side, SIZE[1] * side))
        cloner = Cloner(donors, ScaledPhotos((), donors.spec), section, faint=True)
        on_clear.append(len(_counted(scorer(pixels))))
        for time in range(times):
            rng = np.random.default_rng((SEED, n, time))
            made = cloner.clone(host, rng, A_FACE, A_FACE)
            counted = _counted(scorer(made.sample.pixels))
            lesions += hits(made.lesions, counted).tolist()
            plain += hits(made.plain, counted).tolist()
    yield f"{what}: cloned lesions counted, of {len(lesions)}", f"{np.mean(lesions):.3f}"
    yield f"{what}: cloned plain skin counted, of {len(plain)}", f"{np.mean(plain):.3f}"
    yield f"{what}: boxes a clear face, {len(on_clear)} faces", f"{np.mean(on_clear):.3f}"


def _counted(result: ImageResult) -> NDArray[np.float32]:
    """Return the (N, 4) boxes that are counted."""
    boxes = [(box.x1, box.y1, box.x2, box.y2) for box in result.boxes if box.counted]
    return np.array(boxes, np.float32).reshape(-1, 4)


def _found(
    name: str, photos: Sequence[BoxedPhoto], scorer: Scorer, guess: float
) -> Iterator[tuple[str, str]]:
    """Yield the rows about annotated photos.

    guess: mean number of lesions in a training photo.
    """
    results = [scorer(photo.stored.path) for photo in photos]
    xyxy = [[(box.x1, box.y1, box.x2, box.y2) for box in result.boxes] for result in results]
    predicted = Boxes.stack(xyxy, [[box.score for box in result.boxes] for result in results])
    truth = Boxes.stack([photo.boxes for photo in photos])
    counts, drawn = np.array([result.count_total or 0 for result in results]), truth.per_photo()
    what = f"{name}, {len(photos)} photos"
    yield f"{what}: AP50", f"{average_precision(truth, predicted, 0.5):.3f}"
    yield f"{what}: AP30", f"{average_precision(truth, predicted, 0.3):.3f}"
    yield f"{what}: AP of centres", f"{centre_precision(truth, predicted):.3f}"
    yield f"{what}: count error (MAE)", f"{np.abs(counts - drawn).mean():.2f}"
    yield (
        f"{what}: count error of guessing the training mean",
        f"{np.abs(guess - drawn).mean():.2f}",
    )
    yield (
        f"{what}: count error of guessing their own mean",
        f"{np.abs(drawn.mean() - drawn).mean():.2f}",
    )
