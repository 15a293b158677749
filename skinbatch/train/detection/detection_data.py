"""Turn the photos that a recipe gathers into photos with boxes for a detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.displayed import displayed_size
from skinbatch.errors import UsageError
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.pack import Pack
from skinbatch.train.detection.crops import Boxes, Labels
from skinbatch.train.detection.scaled_photos import (
    NO_BOXES,
    NO_LABELS,
    SMALLEST,
    BoxedPhoto,
    large_enough,
)
from skinbatch.train.photos.faces import cut_faces, find_skin
from skinbatch.train.photos.gather import GatheredPhotos, truth_class
from skinbatch.train.photos.groups import TakenPhoto
from skinbatch.train.photos.photo_store import StoredPhoto
from skinbatch.train.recipe_data import DataSection
from skinbatch.train.results.result import DataCount

# Photos without lesions that are held back from training, to count false alarms on: at most this
# many, and at most this share.
HELD_BACK = 80
HELD_BACK_SHARE = 0.2

# Labels of classes that the model does not have, and of classes that are mapped to none.
_UNKNOWN, _NONE = -1, -2


@dataclass(frozen=True, slots=True)
class DetectionData:
    """Hold a detector's photos.

    Attributes:
        clear: photos with nothing to find, to train on.
        held_clear: others of them, to count false alarms on.
        notes: about boxes that are not taught.
    """

    train: tuple[BoxedPhoto, ...]
    valid: tuple[BoxedPhoto, ...]
    clear: tuple[BoxedPhoto, ...]
    held_clear: tuple[BoxedPhoto, ...]
    counts: tuple[DataCount, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Faces:
    """Describe how photos are cut to their faces if [data] asks for it.

    Attributes:
        pack: its segmenter finds the faces.
        masked: the model's input is masked too.
        skin: also look for skin, for [clone].
        kept: the folder that keeps what was found.
    """

    pack: Pack | None
    masked: bool
    device: str
    skin: bool = False
    kept: Path | None = None


def boxed(
    gathered: GatheredPhotos,
    data: DataSection,
    classes: Sequence[str],
    faces: Faces,
    spec: DetectorSpec,
    where: str,
) -> DetectionData:
    """Return the gathered photos with their boxes.

    where: the recipe, for messages. Raises UsageError if a detector cannot learn from the photos.
    """
    drawn = boxed_photos(gathered.train, data, classes, faces, where, "train")
    train = [
        (taken, large_enough(photo, spec))
        for taken, photo in zip(gathered.train, drawn, strict=True)
    ]
    small = {
        taken.photo.name: len(all_of_it.boxes) - len(photo.boxes)
        for all_of_it, (taken, photo) in zip(drawn, train, strict=True)
        if len(all_of_it.boxes) > len(photo.boxes)
    }
    valid = list(
        zip(
            gathered.valid,
            boxed_photos(gathered.valid, data, classes, faces, where, "valid"),
            strict=True,
        )
    )
    clear = [photo for taken, photo in train if taken.photo.boxes is None]
    lesions = [photo for taken, photo in train if taken.photo.boxes is not None]
    if not any(len(photo.boxes) for photo in lesions):
        raise UsageError(
            f"{where}: no box of {', '.join(classes)} in the photos to train on; set `data.map`"
        )
    held = held_back(len(clear))
    return DetectionData(
        train=tuple(lesions),
        valid=tuple(photo for _, photo in valid),
        clear=tuple(photo for n, photo in enumerate(clear) if n not in held),
        held_clear=tuple(photo for n, photo in enumerate(clear) if n in held),
        notes=(_of_small(small, spec),) if small else (),
        counts=tuple(
            _counted(count, valid if count.part.endswith("valid") else train, classes)
            for count in gathered.counts
        ),
    )


def _of_small(small: Mapping[str, int], spec: DetectorSpec) -> str:
    return (
        f"{sum(small.values()):,} boxes are smaller than {SMALLEST:g} pixels at the network's scale (size {spec.size}) and are "
        f"not taught: of {', '.join(list(small)[:3])}{', …' if len(small) > 3 else ''}; a larger `size` would show them"
    )


def held_back(clear: int) -> set[int]:
    """Return the indices of clear photos that are held back, spread evenly."""
    number = min(HELD_BACK, int(HELD_BACK_SHARE * clear))
    return set(np.linspace(0, clear - 1, number).round().astype(int).tolist())


def boxed_photos(
    photos: Sequence[TakenPhoto],
    data: DataSection,
    classes: Sequence[str],
    faces: Faces,
    where: str,
    part: str,
) -> list[BoxedPhoto]:
    if any(photo.view.crop for photo in photos):
        raise UsageError(
            f"{where}: setting `data.crop` is for classifiers; a detector sees whole photos, or `face`"
        )
    stored = [StoredPhoto(photo.photo.name, photo.path) for photo in photos]
    skins: list[bytes | None] = [None] * len(photos)
    to_cut = [n for n, photo in enumerate(photos) if photo.view.face]
    if faces.skin:
        assert faces.pack is not None
        kept = None if faces.kept is None else faces.kept / f"faces-{part}.json"
        with_face = [bool(photo.view.face) for photo in photos]
        looked_at = find_skin(stored, with_face, faces.pack, faces.masked, faces.device, kept)
        stored, skins = [photo for photo, _ in looked_at], [skin for _, skin in looked_at]
    elif to_cut:
        if faces.pack is None:
            raise UsageError(
                f"{where}: setting `data.face` needs `base`, a pack whose segmenter finds the faces"
            )
        cut = cut_faces([stored[n] for n in to_cut], faces.pack, faces.masked, faces.device)
        for n, photo in zip(to_cut, cut, strict=True):
            stored[n] = photo
    made = []
    for taken, photo, skin in zip(photos, stored, skins, strict=True):
        boxed_photo = _with_boxes(taken, photo, data, classes)
        made.append(replace(boxed_photo, source=taken.source, repeat=taken.repeat, skin=skin))
    return made


def _with_boxes(
    taken: TakenPhoto, stored: StoredPhoto, data: DataSection, classes: Sequence[str]
) -> BoxedPhoto:
    """Return the photo with its boxes of the model's classes, clipped to the cut photo.

    Boxes without an area are left out.
    """
    annotated = taken.photo
    size = displayed_size(taken.path)
    x1, y1, x2, y2 = stored.cut.crop if stored.cut is not None else (0, 0, *size)
    edge = np.array([x2 - x1, y2 - y1] * 2, np.float32)
    scale = _to_photo(size, (annotated.width, annotated.height))

    def within(drawn: Boxes | None, names: Sequence[str]) -> tuple[Boxes, Labels]:
        if drawn is None or not len(drawn):
            return NO_BOXES, NO_LABELS
        boxes = np.clip(drawn * scale - np.array([x1, y1, x1, y1], np.float32), 0, edge)
        meant = [truth_class(name, data, classes) for name in names]
        labels = np.array(
            [_UNKNOWN if n is None else classes.index(n) if n else _NONE for n in meant], np.int64
        )
        usable = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return boxes[usable], labels[usable]

    boxes, labels = within(annotated.boxes, annotated.labels or ())
    known = labels >= 0
    crowds, crowd_labels = within(annotated.crowd_boxes, annotated.crowd_labels)
    meant = crowd_labels != _NONE
    return BoxedPhoto(
        stored,
        x2 - x1,
        y2 - y1,
        boxes[known],
        labels[known],
        annotated.severity,
        annotated.group,
        crowds[meant],
        crowd_labels[meant],
    )


def _to_photo(
    size: tuple[int, int], annotated: tuple[int | None, int | None]
) -> NDArray[np.float32]:
    """Return (4,) factors for corners that were drawn on a smaller or larger copy of the photo."""
    factors = [
        real / stated if stated else 1.0 for real, stated in zip(size, annotated, strict=True)
    ]
    return np.array(factors * 2, np.float32)


def _counted(
    count: DataCount, photos: Sequence[tuple[TakenPhoto, BoxedPhoto]], classes: Sequence[str]
) -> DataCount:
    """Return the count with the boxes that are used."""
    things: Counter[str] = Counter()
    for taken, photo in photos:
        if taken.source == count.source:
            things.update(classes[label] for label in photo.labels)
    return replace(count, things=dict(things))
