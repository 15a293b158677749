"""Keep photos of one person, or photos that look alike, on one side of a split."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.grouping import ESTIMATE, GroupCount
from skinbatch.annotations.likeness import perceptual_groups
from skinbatch.annotations.problems import Kind, Problem
from skinbatch.annotations.split import split
from skinbatch.errors import UsageError
from skinbatch.metrics.bootstrap import numbered
from skinbatch.train.recipe_data import DataSection, PhotoView


@dataclass(frozen=True, slots=True)
class TakenPhoto:
    """Hold a photo that is used.

    photo: its `group` is the one that [data] `group` gives it. classes: of the model; () for none
    of them; for detectors those of its boxes. view: which part of it is used, with nothing left to
    [data]. source: the name of the truth or folder. negative: it is from a folder of [data]
    `negatives`. repeat: how often it is shown in an epoch.
    """

    photo: AnnotatedPhoto
    path: Path
    classes: tuple[str, ...]
    view: PhotoView
    source: str
    negative: bool = False
    repeat: int = 1


def with_groups(
    parts: Sequence[Sequence[TakenPhoto]], data: DataSection, where: Path | str
) -> list[list[TakenPhoto]]:
    """Return the same lists of photos, each photo with its group.

    Without [data] `group` photos keep the group that their truth names. With `look` every photo
    has a group, named after its first photo.

    Raises:
        UsageError: [data] `group` gives none of the photos a group.
    """
    grouping = data.grouping
    photos = [photo for part in parts for photo in part]
    if grouping is None or not photos:
        return [list(part) for part in parts]

    if grouping.by_look:
        numbers = _alike(tuple(photo.path for photo in photos))
        first: dict[int, str] = {}
        for number, photo in zip(numbers, photos, strict=True):
            first.setdefault(number, photo.photo.name)
        groups: list[str | None] = [f"the look of {first[number]}" for number in numbers]
    else:
        groups = [grouping.of_name(photo.photo.name) or photo.photo.group for photo in photos]

    annotated = [group for photo, group in zip(photos, groups, strict=True) if not photo.negative]
    if annotated and not any(annotated):
        what = (
            "matches no photo's name"
            if grouping.pattern is not None
            else "is a column that no truth has"
        )
        raise UsageError(
            f"{where}: setting `group`: {data.group!r} {what}, such as {photos[0].photo.name}; it is a regular "
            "expression with the patient in brackets, the name of a CSV's column, or `look` for photos that look alike"
        )

    named = iter(groups)
    return [
        [replace(photo, photo=replace(photo.photo, group=next(named))) for photo in part]
        for part in parts
    ]


def held_back(
    taken: Sequence[TakenPhoto], share: float, seed: int
) -> tuple[list[TakenPhoto], list[TakenPhoto]]:
    """Split photos into those to train on and a share to validate on, by whole groups.

    Photos without a group are grouped with those that look the same.
    """
    groups: list[Hashable] = [photo.photo.group for photo in taken]
    alone = [n for n, group in enumerate(groups) if group is None]
    for n, cluster in zip(alone, _alike(tuple(taken[n].path for n in alone)), strict=True):
        groups[n] = cluster

    kept = {id(photo) for photo in split([photo.photo for photo in taken], share, groups, seed)[0]}
    train = [photo for photo in taken if id(photo.photo) in kept]
    valid = [photo for photo in taken if id(photo.photo) not in kept]
    return train, valid


def problems_of_groups(
    train: Sequence[TakenPhoto],
    valid: Sequence[TakenPhoto],
    data: DataSection,
    earlier: dict[str, str],
) -> Iterator[Problem]:
    """Yield problems of groups: in both training and validation, or photos without one.

    Photos without a group are only a problem if [data] has `group`. earlier: group -> a photo of
    it that earlier trainings have used; those of this one are added.
    """
    of_train: dict[str, str] = {}
    for photo in train:
        if photo.photo.group is not None:
            of_train.setdefault(photo.photo.group, str(photo.path))
    for photo in valid:
        group = photo.photo.group
        before = None if group is None else of_train.get(group) or earlier.get(group)
        if before is not None:
            yield Problem(Kind.SAME_GROUP, str(photo.path), f"{group}, as {before} in training")
    for photo in (*train, *valid) if data.group is not None else ():
        if not photo.negative and photo.photo.group is None:
            yield Problem(Kind.NO_GROUP, str(photo.path), f"`group` is {data.group!r}")
    earlier |= of_train


def describe_groups(
    train: Sequence[TakenPhoto], valid: Sequence[TakenPhoto], data: DataSection
) -> str | None:
    """Return how many groups the photos have and how many validation photos share one with training.

    Returns None if no photo has a group.
    """
    names = [photo.photo.group for photo in (*train, *valid)]
    if not any(names):
        return None
    trained = {photo.photo.group for photo in train} - {None}
    seen = sum(photo.photo.group in trained for photo in valid)
    grouping = data.grouping
    how = f" ({ESTIMATE})" if grouping is not None and grouping.by_look else ""
    return (
        f"{GroupCount.of(names).as_text()}{how}; {seen:,} of {len(valid):,} validation photos show a group of the "
        "training photos"
    )


def group_numbers(groups: Sequence[str | None], paths: Sequence[Path]) -> NDArray[np.int64] | None:
    """Return (N,) numbers of the groups that intervals are drawn over; None if none is known.

    A photo without a group has a number of its own. paths: of the photos.
    """
    return numbered(groups, paths) if any(groups) else None


@lru_cache(maxsize=16)
def _alike(paths: tuple[Path, ...]) -> tuple[int, ...]:
    """Return a group for every photo.

    The check of the photos and the training both ask for it; all photos are decoded only once.
    """
    return tuple(perceptual_groups([AnnotatedPhoto(str(path), path, path) for path in paths]))
