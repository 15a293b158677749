"""Test lesions cloned onto other skin: boxes fit them, plain skin has none, and the stream depends
on the seed only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.protocols import InputKind
from skinbatch.train.detection.blends import WAYS, blend
from skinbatch.train.detection.clone_trial import (
    SeenFace,
    cloned_faces,
    hits,
    judge,
    quiet_threshold,
    see,
)
from skinbatch.train.detection.clones import Cloner
from skinbatch.train.detection.crops import Changes, Sample, draw
from skinbatch.train.detection.lesion_shares import as_lines, shares
from skinbatch.train.detection.loader import Order, TrainingInputs
from skinbatch.train.detection.scaled_photos import NO_BOXES, NO_LABELS, BoxedPhoto, ScaledPhotos
from skinbatch.train.detection.training import train_detector
from skinbatch.train.fitting.progress import SilentProgress
from skinbatch.train.photos.photo_store import StoredPhoto
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.recipe_sections import AugmentSection, CloneSection
from skinbatch.types import Detections
from tests.unit.train.detection.spotted import write_spotted

SIDE = 256
SPEC = DetectorSpec("yolox-tiny", ("acne",), size=SIDE)
SKIN = (200, 160, 140)
SPOT = (150, 70, 70)
BOXES = np.array([[50, 50, 78, 74], [150, 150, 172, 172], [60, 180, 90, 204]], np.float32)
ALL_SKIN: bytes = cv2.imencode(".png", np.full((64, 64), 255, np.uint8))[1].tobytes()
CLONES = CloneSection(on_clear=1.0, on_annotated=0.5, plain=1.0, most=4, size=(16.0, 40.0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScaledPhotos, ScaledPhotos]:
    """Write skin with three dark ellipses in their boxes, and clear skin in another light."""
    folder = tmp_path_factory.mktemp("skin")
    spotted = np.full((SIDE, SIDE, 3), SKIN, np.uint8)
    for x1, y1, x2, y2 in BOXES.astype(int).tolist():
        ellipse = ((x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5), (x2 - x1, y2 - y1), 0.0
        cv2.ellipse(spotted, ellipse, SPOT, -1)
    clear = np.full((SIDE, SIDE, 3), (225, 190, 170), np.uint8)
    found = []
    for name, pixels, boxes in (("spotted", spotted, BOXES), ("clear", clear, NO_BOXES)):
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), pixels[..., ::-1])
        labels = np.zeros(len(boxes), np.int64)
        photo = BoxedPhoto(
            StoredPhoto(name, path), SIDE, SIDE, boxes, labels, source=name, skin=ALL_SKIN
        )
        found.append(ScaledPhotos((photo,), SPEC))
    return found[0], found[1]


def darker(
    before: NDArray[np.uint8], after: NDArray[np.uint8], box: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return the bounds of what is clearly darker in the neighbourhood of a box."""
    reach = (box[2:] - box[:2]).max()
    x1, y1 = np.maximum(0, box[:2] - reach / 2).astype(int)
    x2, y2 = (box[2:] + reach / 2).astype(int)
    change = before[y1:y2, x1:x2].astype(int).sum(2) - after[y1:y2, x1:x2].astype(int).sum(2)
    rows, columns = np.nonzero(change > 0.5 * change.max())
    return np.array(
        [columns.min() + x1, rows.min() + y1, columns.max() + x1 + 1, rows.max() + y1 + 1]
    )


@pytest.mark.parametrize("way", list(WAYS))
def test_every_way_of_blending_shows_the_lesion_and_leaves_the_rim(way: str) -> None:
    host = np.full((48, 48, 3), (225, 190, 170), np.uint8)
    patch = np.full((48, 48, 3), SKIN, np.uint8)
    cv2.circle(patch, (24, 24), 9, SPOT, -1)
    offsets = np.hypot(*(np.indices((48, 48)) - 23.5))
    cover = np.clip((20 - offsets) / 8, 0, 1).astype(np.float32)
    made = blend(host, patch, cover, way, np.random.default_rng(0))
    assert made.shape == host.shape and made.dtype == np.uint8
    assert (host[24, 24].astype(int) - made[24, 24]).mean() > 20, "no lesion"
    assert np.abs(made[0].astype(int) - host[0]).max() <= 2, "a seam at the rim"
    middle = np.abs(made[24, 8].astype(int) - host[24, 8]).mean()
    assert middle < 12, "the skin around the lesion has the patch's light"


def test_the_box_of_a_cloned_lesion_is_tight_around_it(
    photos: tuple[ScaledPhotos, ScaledPhotos],
) -> None:
    annotated, clear = photos
    cloner, host = Cloner(annotated, clear, CLONES), clear[0]
    seen = 0
    for seed in range(30):
        made = cloner.clone(host, np.random.default_rng(seed), 2, 0)
        np.testing.assert_array_equal(made.sample.boxes, made.lesions)
        assert len(made.sample.labels) == len(made.lesions)
        for box in made.lesions:
            np.testing.assert_allclose(
                darker(host.pixels, made.sample.pixels, box),
                box,
                atol=0.12 * (box[2:] - box[:2]).max() + 2,
            )
            seen += 1
    assert seen > 30


def test_plain_skin_is_cloned_without_a_box(photos: tuple[ScaledPhotos, ScaledPhotos]) -> None:
    annotated, clear = photos
    host = clear[0]
    made = Cloner(annotated, clear, CLONES).clone(host, np.random.default_rng(1), 0, 4)
    assert len(made.plain) >= 2
    assert len(made.sample.boxes) == len(made.lesions) == 0
    assert host.pixels.min() >= made.sample.pixels.min() - 3, "plain skin shows a lesion"


def test_lesions_are_never_cloned_over_others_or_off_the_skin(
    photos: tuple[ScaledPhotos, ScaledPhotos],
) -> None:
    annotated, clear = photos
    half = np.zeros((64, 64), np.bool_)
    half[:, :32] = True
    host = Sample(annotated[0].pixels, BOXES, np.zeros(3, np.int64), half)
    for seed in range(20):
        made = Cloner(annotated, clear, CLONES).clone(host, np.random.default_rng(seed), 4, 4)
        boxes = np.concatenate((made.sample.boxes, made.plain))
        apart = (boxes[:, None, :2] >= boxes[None, :, 2:]).any(2) | (
            boxes[:, None, 2:] <= boxes[None, :, :2]
        ).any(2)
        assert (apart | np.eye(len(boxes), dtype=bool)).all()
        new = np.concatenate((made.lesions, made.plain))
        assert ((new[:, 0] + new[:, 2]) / 2 <= SIDE / 2).all()


def test_without_skin_nothing_is_cloned(photos: tuple[ScaledPhotos, ScaledPhotos]) -> None:
    annotated, clear = photos
    host = Sample(clear[0].pixels, NO_BOXES, NO_LABELS, np.zeros((64, 64), np.bool_))
    made = Cloner(annotated, clear, CLONES).clone(host, np.random.default_rng(1), 3, 3)
    np.testing.assert_array_equal(made.sample.pixels, host.pixels)
    assert len(made.sample.boxes) == 0


def test_the_same_seed_and_place_give_the_same_input(
    photos: tuple[ScaledPhotos, ScaledPhotos],
) -> None:
    annotated, clear = photos
    changes = Changes(
        128, AugmentSection(flip=0.5, jpeg=0.5, sharpen=0.5, resolution=0.5), whole=False
    )

    def drawn() -> list[Sample]:
        inputs = TrainingInputs(annotated, clear, changes, 5, Cloner(annotated, clear, CLONES))
        order = Order(inputs.annotated, 3, 2, seed=5)
        return [inputs[key] for batch in islice(order, 6) for key in batch]

    for one, other in zip(drawn(), reversed(drawn()[::-1]), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_the_shares_of_each_source_are_told(photos: tuple[ScaledPhotos, ScaledPhotos]) -> None:
    annotated, clear = photos
    changes = Changes(128, AugmentSection(on_lesion=1.0), whole=False)
    without = TrainingInputs(annotated, clear, changes, 5)
    order = Order(without.annotated, 1, 4, seed=5)
    assert [(row.source, row.with_lesions) for row in shares(without, order)] == [
        ("clear", 0.0),
        ("spotted", 1.0),
    ]
    cloned = TrainingInputs(annotated, clear, changes, 5, Cloner(annotated, clear, CLONES))
    rows = shares(cloned, order)
    assert rows[0].source == "clear" and rows[0].with_lesions > 0.5
    assert sum(row.inputs for row in rows) == pytest.approx(1)
    assert next(as_lines(rows)).startswith("inputs of clear  : ")


def test_crops_off_lesions_show_none(photos: tuple[ScaledPhotos, ScaledPhotos]) -> None:
    changes = Changes(96, AugmentSection(off_lesion=1.0), whole=False, visible=0.01)
    made = [draw(photos[0][0], (), np.random.default_rng(seed), changes) for seed in range(20)]
    assert sum(len(sample.boxes) == 0 for sample in made) >= 18


def test_faint_lesions_are_for_trials_only(
    photos: tuple[ScaledPhotos, ScaledPhotos], tmp_path: Path
) -> None:
    pixels = np.full((SIDE, SIDE, 3), SKIN, np.uint8)
    pixels[60:80, 60:80] -= 2
    path = tmp_path / "faint.png"
    cv2.imwrite(str(path), pixels)
    box = np.array([[60, 60, 80, 80]], np.float32)
    faint = ScaledPhotos(
        (
            BoxedPhoto(
                StoredPhoto("faint", path), SIDE, SIDE, box, np.zeros(1, np.int64), skin=ALL_SKIN
            ),
        ),
        SPEC,
    )
    host = photos[1][0]
    for kept in (False, True):
        made = Cloner(faint, photos[1], CLONES, faint=kept).clone(
            host, np.random.default_rng(1), 2, 0
        )
        assert bool(len(made.lesions)) is kept


class Dark:
    """Detect everything dark."""

    classes: tuple[str, ...] = ("acne",)
    input: InputKind = "crop"

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        found = []
        for pixels in photos:
            dark = (pixels.min(2) < 140).astype(np.uint8)
            boxes = [
                (x, y, x + w, y + h)
                for x, y, w, h, _ in cv2.connectedComponentsWithStats(dark)[2][1:].tolist()
            ]
            xyxy = np.array(boxes, np.float32).reshape(-1, 4)
            found.append(
                Detections(xyxy, np.ones(len(xyxy), np.float32), np.zeros(len(xyxy), np.int64))
            )
        return found


def test_a_trial_counts_lesions_plain_patches_and_clear_faces(
    photos: tuple[ScaledPhotos, ScaledPhotos],
) -> None:
    annotated, clear = photos
    faces = list(cloned_faces(clear.photos * 6, annotated.photos, SPEC, CLONES, 3))
    trial = judge(see(Dark(), iter(faces)), 0.5)
    assert trial.of_lesions > 10 and trial.of_plain > 10 and trial.faces == 6
    assert trial.lesions > 0.9
    assert trial.plain == 0 == trial.clear_boxes


def test_the_threshold_rises_until_clear_skin_is_quiet() -> None:
    places = np.array(
        [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32
    )
    scores = np.array([0.2, 0.4, 0.6, 0.8], np.float32)
    found = Detections(places, scores, np.zeros(4, np.int64))
    faces = [SeenFace(lesions=NO_BOXES, plain=places, detected=found, detected_clear=found)]

    assert quiet_threshold(faces, 0.1, CloneSection()) == 0.1
    assert 0.4 < quiet_threshold(faces, 0.1, CloneSection(most_plain_counted=0.5)) <= 0.41
    assert 0.6 < quiet_threshold(faces, 0.1, CloneSection(most_boxes_a_face=1)) <= 0.61
    assert quiet_threshold(faces, 0.7, CloneSection(most_boxes_a_face=1)) == 0.7
    assert quiet_threshold(faces, 0.1, CloneSection(most_plain_counted=0)) > 0.8


def test_a_box_beside_the_lesion_is_no_hit() -> None:
    lesion = np.array([[10, 10, 20, 20]], np.float32)
    assert hits(lesion, np.array([[12, 12, 22, 22]], np.float32)).tolist() == [True]
    assert hits(lesion, np.array([[20, 10, 30, 20]], np.float32)).tolist() == [False]
    assert hits(lesion, NO_BOXES).tolist() == [False]


def test_skin_that_was_found_is_not_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.models.pack import load_pack
    from skinbatch.train.photos import faces

    path = tmp_path / "skin.png"
    cv2.imwrite(str(path), np.full((64, 48, 3), SKIN, np.uint8)[..., ::-1])
    stored, pack, kept = [StoredPhoto("skin", path)], load_pack("starter"), tmp_path / "kept.json"
    first = faces.find_skin(stored, [True], pack, False, "cpu", kept)
    monkeypatch.setattr(faces, "build_segmenter", None)
    assert faces.find_skin(stored, [True], pack, False, "cpu", kept) == first
    with pytest.raises(TypeError):  # another question is not answered from the cache
        faces.find_skin(stored, [False], pack, False, "cpu", kept)


class Noting(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_training_with_clones_tells_the_shares_and_judges_by_cloned_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_skin(photos: Sequence[StoredPhoto], *_: object) -> list[tuple[StoredPhoto, bytes]]:
        return [(photo, ALL_SKIN) for photo in photos]

    monkeypatch.setattr("skinbatch.train.detection.detection_data.find_skin", all_skin)
    recipe = write_spotted(tmp_path, photos=12, clear=10)
    text = recipe.read_text(encoding="utf-8").replace(
        "epochs = 6\nevaluate_every = 2", "epochs = 1"
    )
    clone = "[clone]\non_clear = 1.0\nsize = [10, 20]\n[schedule]"
    recipe.write_text(
        text.replace("[schedule]", clone).replace("[model]", 'base = "starter"\n[model]', 1)
    )
    progress = Noting()
    trained = train_detector(read_recipe(recipe), tmp_path / "work", progress)
    (shown,) = [note for note in progress.notes if "/clear" in note]
    assert int(shown.split("; ")[1].split("%")[0]) > 50, "the clear photos show no lesions"
    (point,) = trained.curve
    assert point["score"] == pytest.approx(
        (point["ap50"] + point["clones"] - point["plain"]) / 2, abs=1e-3
    )
    assert {"cloned lesions that are counted", "cloned plain skin that is counted"} <= {
        m.name for m in trained.metrics
    }
