"""Check annotated photos for mistakes that would spoil a training."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.displayed import displayed_size, same_shape
from skinbatch.annotations.label_map import mask_size, read_mask
from skinbatch.annotations.likeness import Look, OnProgress, alike, look_at_all
from skinbatch.annotations.masks import CLASSES as MASK_CLASSES
from skinbatch.annotations.masks import UNSURE
from skinbatch.annotations.part_masks import part_of
from skinbatch.annotations.problems import Kind, Problem, Problems
from skinbatch.errors import UsageError

Stage = Literal["segmenter", "detector", "classifier"]
# In a mapping: every class without a line of its own.
OTHERS = "*"
# Kinds of problems whose file, a photo or a mask, cannot be trained on.
LEFT_OUT = (Kind.UNREADABLE, Kind.BAD_MASK, Kind.OTHER_SHAPE, Kind.MASK_SHAPE)
# Pixels that a box may reach over the photo's edge: VOC counts pixels from 1, and shares are
# rounded.
EDGE = 1.0


def check(
    splits: Mapping[str, Sequence[AnnotatedPhoto]],
    stage: Stage,
    classes: Sequence[str],
    mapping: Mapping[str, str] | None = None,
    progress: OnProgress | None = None,
    hashes: dict[Path, str] | None = None,
) -> Problems:
    """Find everything that is wrong with the photos that a stage is trained and validated on.

    Photos of different splits are compared byte by byte and by their look (likeness.py). With one
    split, only their sizes are read.

    Args:
        splits: name (`train`, `valid`) -> its photos.
        classes: the model's.
        mapping: a truth's class -> the model's. `*` stands for every other class; the model's name
            "" is none of its classes.
        progress: called with the number of photos read so far and in all.
        hashes: receives the SHA-256 of the photos that were compared, so that they need not be read
            again.
    """
    problems: list[Problem] = []
    used = {
        name: [_annotation_of(photo, stage) is not None for photo in photos]
        for name, photos in splits.items()
    }
    annotated = {
        p.path
        for name, photos in splits.items()
        for p, is_used in zip(photos, used[name], strict=True)
        if is_used
    }
    for photos in splits.values():
        for photo in photos:
            problems += _of_photo(photo, stage, set(classes), mapping or {}, annotated)
    looks = _looks(splits, progress)
    if hashes is not None:
        hashes |= {
            photo.path: look.sha256
            for name, photos in splits.items()
            for photo, look in zip(photos, looks[name], strict=True)
            if photo.path is not None and isinstance(look, Look)
        }
    for name, photos in splits.items():
        usable = []
        for photo, look in zip(photos, looks[name], strict=True):
            wrong = [*_of_file(photo, look, stage)]
            problems += wrong
            if look is not None and not any(problem.kind in LEFT_OUT for problem in wrong):
                usable.append(photo)
        problems += _missing_classes(name, usable, stage, classes, mapping or {})
    for one, other in combinations(splits, 2):
        of_one, of_other = (
            [
                (p, look)
                for p, look, is_used in zip(splits[name], looks[name], used[name], strict=True)
                if is_used
            ]
            for name in (one, other)
        )
        problems += _in_both(one, of_one, other, of_other)
    order = {kind: n for n, kind in enumerate(Kind)}
    return Problems(tuple(sorted(problems, key=lambda p: order[p.kind])))


def mapped(name: str, mapping: Mapping[str, str]) -> str:
    """Return the model's name of a truth's class."""
    return mapping.get(name, mapping.get(OTHERS, name))


def _annotation_of(photo: AnnotatedPhoto, stage: Stage) -> object | None:
    return {"segmenter": photo.masks, "detector": photo.boxes, "classifier": photo.classes}[stage]


def _of_photo(
    photo: AnnotatedPhoto,
    stage: Stage,
    classes: set[str],
    mapping: Mapping[str, str],
    annotated: Collection[Path | None],
) -> Iterator[Problem]:
    """Yield the problems of one photo.

    annotated: photos that any of the splits annotates; two lists may share a folder of photos.
    """
    file = str(photo.annotation)
    if photo.path is None:
        yield Problem(Kind.NO_PHOTO, file, f"of {photo.name}")
    if _annotation_of(photo, stage) is None and photo.path not in annotated:
        yield Problem(Kind.NO_ANNOTATION, str(photo.path or file), photo.name)
    if stage == "detector":
        yield from _of_boxes(photo)
    names = {"segmenter": (), "detector": photo.labels or (), "classifier": photo.classes or ()}[
        stage
    ]
    for name in dict.fromkeys(names):
        if not _known(name, classes, mapping):
            yield Problem(
                Kind.UNKNOWN_CLASS, file, f"{photo.name}: {name or 'a box without a name'}"
            )


def _known(name: str, classes: Collection[str], mapping: Mapping[str, str]) -> bool:
    """Return whether a truth's class is one of the model's or is mapped to none."""
    meant = mapped(name, mapping)
    return meant in classes or (not meant and bool(name))


def _of_boxes(photo: AnnotatedPhoto) -> Iterator[Problem]:
    for number, (x1, y1, x2, y2) in enumerate(
        photo.boxes.tolist() if photo.boxes is not None else (), 1
    ):
        kind = _kind_of_box(x1, y1, x2, y2, photo.width or math.inf, photo.height or math.inf)
        if kind is not None:
            size = f", the photo is {photo.width} x {photo.height}" if photo.width else ""
            yield Problem(
                kind,
                str(photo.annotation),
                f"{photo.name}: box {number}: {x1:g},{y1:g},{x2:g},{y2:g}{size}",
            )
    for number in sorted(photo.swapped):
        yield Problem(Kind.SWAPPED, str(photo.annotation), f"{photo.name}: box {number + 1}")
    for _ in photo.crowd_labels:
        yield Problem(Kind.CROWD, str(photo.annotation), photo.name)


def _kind_of_box(
    x1: float, y1: float, x2: float, y2: float, width: float, height: float
) -> Kind | None:
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        return Kind.NOT_A_NUMBER
    if x2 == x1 or y2 == y1:
        return Kind.EMPTY
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return Kind.OUTSIDE
    if x1 < -EDGE or y1 < -EDGE or x2 > width + EDGE or y2 > height + EDGE:
        return Kind.OVER_EDGE
    return None


def _missing_classes(
    split: str,
    photos: Sequence[AnnotatedPhoto],
    stage: Stage,
    classes: Sequence[str],
    mapping: Mapping[str, str],
) -> Iterator[Problem]:
    """Yield the classes that no photo of a split has.

    photos: those of the split that can be read. A photo with an unknown class is not used.
    """
    there: set[str] = set()
    for photo in photos:
        if stage == "segmenter":
            if there.issuperset(classes):
                break
            there |= {mapped(name, mapping) for name in _mask_classes(photo)}
        else:
            names = photo.labels if stage == "detector" else photo.classes
            if all(_known(name, classes, mapping) for name in names or ()):
                there |= {mapped(name, mapping) for name in names or ()}
    for name in classes:
        if name not in there:
            yield Problem(Kind.MISSING_CLASS, split, f"no {name} in {len(photos)} photos")


def _mask_classes(photo: AnnotatedPhoto) -> set[str]:
    """Return the classes of a photo's mask.

    Parts are known by the names of their files: opening 19 files a photo would take minutes.
    """
    parts = [part_of(file.name) for file in photo.masks or ()]
    if parts and None not in parts:
        return {"background", *(MASK_CLASSES[part[1]] for part in parts if part)}
    try:
        return (
            {MASK_CLASSES[n] for n in np.unique(read_mask(photo)) if n != UNSURE}
            if parts
            else set()
        )
    except UsageError:
        return set()  # _of_file reports it.


def _looks(
    splits: Mapping[str, Sequence[AnnotatedPhoto]], progress: OnProgress | None
) -> dict[str, list[Look | tuple[int, int] | str | None]]:
    """Return the look of every photo, or its size if there is nothing to compare it with.

    A text is the reason why a photo cannot be read; None marks one that does not exist.
    """
    paths = [photo.path for photos in splits.values() for photo in photos if photo.path is not None]
    looks: Iterator[Look | tuple[int, int] | str]
    if len(splits) > 1:
        looks = iter(look_at_all(paths, progress))
    else:
        looks = (
            _size(photo) for photos in splits.values() for photo in photos if photo.path is not None
        )
    return {
        name: [None if photo.path is None else next(looks) for photo in photos]
        for name, photos in splits.items()
    }


def _size(photo: AnnotatedPhoto) -> tuple[int, int] | str:
    assert photo.path is not None
    try:
        return displayed_size(photo.path)
    except UsageError as e:
        return str(e)


def _of_file(
    photo: AnnotatedPhoto, look: Look | tuple[int, int] | str | None, stage: Stage
) -> Iterator[Problem]:
    if look is None:
        return
    if isinstance(look, str):
        yield Problem(Kind.UNREADABLE, str(photo.path), look)
        return
    size = (look.width, look.height) if isinstance(look, Look) else look
    annotated = (photo.width or 0, photo.height or 0)
    if all(annotated) and size != annotated:
        what = f"{photo.name} is {size[0]} x {size[1]}, its annotation gives {photo.width} x {photo.height}"
        if (
            stage == "detector"
            and photo.boxes is not None
            and len(photo.boxes)
            and not same_shape(size, annotated)
        ):
            yield Problem(Kind.OTHER_SHAPE, str(photo.path), what)
        else:
            yield Problem(Kind.OTHER_SIZE, str(photo.annotation), what)
    if photo.masks:
        parts = part_of(photo.masks[0].name) is not None
        # A mask in parts is many files, so only their sizes are read.
        try:
            height, width = mask_size(photo)[::-1] if parts else read_mask(photo).shape
        except UsageError as e:
            yield Problem(Kind.BAD_MASK, str(photo.masks[0]), str(e))
            return
        # CelebAMask-HQ's parts are published at half the photos' size.
        usual = parts and size == (2 * width, 2 * height)
        if (width, height) != size and not usual:
            what = f"{width} x {height}, the photo is {size[0]} x {size[1]}"
            kind = Kind.MASK_SIZE if same_shape(size, (width, height)) else Kind.MASK_SHAPE
            yield Problem(kind, str(photo.masks[0]), what)


def _in_both(
    one: str,
    photos: Sequence[tuple[AnnotatedPhoto, Look | tuple[int, int] | str | None]],
    other: str,
    other_photos: Sequence[tuple[AnnotatedPhoto, Look | tuple[int, int] | str | None]],
) -> Iterator[Problem]:
    """Yield each photo of the second split that is in the first too, with the most similar one."""
    some = [(p, look) for p, look in photos if isinstance(look, Look)]
    others = [(p, look) for p, look in other_photos if isinstance(look, Look)]
    nearest: dict[int, tuple[float, int]] = {}
    for i, j, differ in alike([look for _, look in some], [look for _, look in others]):
        for a, b, share in zip(i.tolist(), j.tolist(), differ.tolist(), strict=True):
            nearest[b] = min(nearest.get(b, (share, a)), (share, a))
    of_bytes = {look.sha256: photo for photo, look in some}
    for b, (photo, look) in enumerate(others):
        if (same := of_bytes.get(look.sha256)) is not None:
            yield Problem(
                Kind.SAME_FILE, str(photo.path), f"in {other}, and in {one} as {same.path}"
            )
        elif b in nearest:
            share, a = nearest[b]
            what = f"in {other}, and in {one} as {some[a][0].path}; {share:.0%} of the signs differ"
            yield Problem(Kind.LOOKS_SAME, str(photo.path), what)
