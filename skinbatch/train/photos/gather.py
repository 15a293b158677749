"""Gather photos for training and validation from a recipe's [data].

What is left out is recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from skinbatch.annotations.annotated_photos import EMBEDDED, AnnotatedPhoto, Truth
from skinbatch.annotations.checks import OTHERS, mapped
from skinbatch.annotations.read import read_truth, refuse_wrong_units
from skinbatch.annotations.tree import Tree
from skinbatch.errors import UsageError
from skinbatch.models.architectures import StageName
from skinbatch.tables.names import composed
from skinbatch.train.photos.groups import TakenPhoto, held_back, with_groups
from skinbatch.train.recipe_data import DataSection, Negatives, PhotoView, TruthSource
from skinbatch.train.results.result import DataCount

# The class that photos of none of the classes are counted as.
NONE = "none"
LOST = "without a photo"
WITHIN = "whose photo is only within its annotation"
_SHOWN = 5
NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class GatheredPhotos:
    """Hold the gathered photos.

    counts: of every source and part, for the card. refused: `train`, `valid` -> photos of it that
    cannot be used. unused: classes in [data] `map` that no truth has.
    """

    train: tuple[TakenPhoto, ...]
    valid: tuple[TakenPhoto, ...]
    counts: tuple[DataCount, ...]
    refused: Mapping[str, tuple[AnnotatedPhoto, ...]]
    unused: tuple[str, ...] = ()

    def splits(self) -> dict[str, list[AnnotatedPhoto]]:
        """Return used and refused photos in the form that `annotations.checks.check` takes."""
        used = {"train": self.train, "valid": self.valid}
        return {
            name: [*map(_as_annotated, photos), *self.refused[name]]
            for name, photos in used.items()
        }


def gather(
    data: DataSection,
    stage: StageName,
    classes: Sequence[str],
    seed: int,
    *,
    where: Path | str,
    part: str = "",
    unusable: Collection[Path] = (),
) -> GatheredPhotos:
    """Read every truth of [data], leave out unusable photos, and split the rest by groups.

    With `valid_share`, negatives are split as well; with `valid`, all of them are for training.

    Args:
        where: the recipe, for messages.
        part: name of an earlier training, for the counts.
        unusable: photos to leave out.

    Raises UsageError naming the file, or if nothing is left.
    """
    train_truths = [(source, _read(source, data, stage, "train")) for source in data.train]
    valid_truths = [(source, _read(source, data, stage, "val")) for source in data.valid]
    _check_left_out((*train_truths, *valid_truths), where)
    reader = _Reader(data, stage, tuple(classes), f"{part} " if part else "", unusable)
    valid_parts = [list(reader.of_truth(source, truth, "valid")) for source, truth in valid_truths]
    train_parts = [list(reader.of_truth(source, truth, "train")) for source, truth in train_truths]
    negative_parts = [list(reader.of_folder(negatives)) for negatives in data.negatives]
    grouped = iter(with_groups([*valid_parts, *train_parts, *negative_parts], data, where))

    valid = [photo for _ in valid_parts for photo in next(grouped)]
    train: list[TakenPhoto] = []
    shares = [
        *(source.valid_share for source in data.train),
        *(none.valid_share for none in data.negatives),
    ]
    for share, photos in zip(shares, grouped, strict=True):
        if share is not None and photos:
            photos, for_valid = held_back(photos, share, seed)
            valid += for_valid
        train += photos
    if data.valid_share is not None and train:
        train, valid = held_back(train, data.valid_share, seed)
    if data.train_share is not None and train:
        train = reader.share_of(train, data.train_share, seed)
    for photos, name in ((train, "train"), (valid, "valid")):
        if not photos:
            raise UsageError(
                f"{where}: no photo for `{name}`; {_left_out(reader.left_out)}{reader.unknown_classes()}"
            )
    sources = [
        *(called(source.truth) for source in data.train),
        *(called(n.photos) for n in data.negatives),
    ]
    counts = reader.counts(train, "train", sources)
    counts += reader.counts(valid, "valid", [called(source.truth) for source in data.valid])
    refused = {name: tuple(photos) for name, photos in reader.refused.items()}
    there = {name for _, truth in (*train_truths, *valid_truths) for name in _names(truth)}
    unused = tuple(name for name in data.map if composed(name) not in (OTHERS, *there))
    return GatheredPhotos(tuple(train), tuple(valid), tuple(counts), refused, unused)


def called(path: Path) -> str:
    """Return the name of a source on the card: its folder and the one above, `acne04/train`."""
    return "/".join(path.parts[-2:])


def truth_class(name: str, data: DataSection, classes: Sequence[str]) -> str | None:
    """Return the model's class for a truth's class; "" for none, None if it is not mapped."""
    meant = mapped(name, data.mapping(classes))
    return meant if not meant or meant in classes else None


class _Reader:
    """Read photos of sources, and remember why others were left out."""

    def __init__(
        self,
        data: DataSection,
        stage: StageName,
        classes: tuple[str, ...],
        prefix: str,
        unusable: Collection[Path],
    ) -> None:
        self.data, self.stage, self.classes, self.prefix, self.unusable = (
            data,
            stage,
            classes,
            prefix,
            unusable,
        )
        self.left_out: dict[str, Counter[str]] = {}
        self.unknown: dict[str, None] = {}
        self.refused: dict[str, list[AnnotatedPhoto]] = {"train": [], "valid": []}

    def of_truth(self, source: TruthSource, truth: Truth, part: str) -> Iterable[TakenPhoto]:
        view = self._view(source)
        left_out = {composed(name) for name in source.leave_out or ()}
        only = {composed(name) for name in source.only or ()}
        for photo in truth.photos:
            stem = _stem(photo)
            if stem in left_out or (source.only is not None and stem not in only):
                self.left_out.setdefault(called(source.truth), Counter())["by the recipe"] += 1
                continue
            reason = self._unusable(photo)
            if reason is None:
                classes = self._classes(photo)
                if classes is None:
                    reason = "of an unknown class"
                else:
                    assert photo.path is not None
                    source_name, repeat = called(source.truth), source.repeat or 1
                    yield TakenPhoto(photo, photo.path, classes, view, source_name, repeat=repeat)
                    continue
            self.refused[part].append(photo)
            self.left_out.setdefault(called(source.truth), Counter())[reason] += 1

    def of_folder(self, negatives: Negatives) -> Iterable[TakenPhoto]:
        folder, view = negatives.photos, self._view(negatives)
        names = Tree(folder).photos
        most = min(len(names), negatives.most or len(names))
        for n in np.linspace(0, len(names) - 1, most).round().astype(int):
            path = folder / names[n]
            if path in self.unusable:
                self.left_out.setdefault(called(folder), Counter())["that cannot be used"] += 1
                continue
            photo = AnnotatedPhoto(names[n], path, path, classes=())
            yield TakenPhoto(photo, path, (), view, called(folder), negative=True)

    def share_of(self, photos: Sequence[TakenPhoto], share: float, seed: int) -> list[TakenPhoto]:
        """Return a share of the photos, at least one, in their old order.

        A larger share contains all photos of a smaller one.
        """
        order = np.random.default_rng(seed).permutation(len(photos))
        kept = set(order[: max(1, round(share * len(photos)))].tolist())
        for n, photo in enumerate(photos):
            if n not in kept:
                self.left_out.setdefault(photo.source, Counter())["by `train_share`"] += 1
        return [photo for n, photo in enumerate(photos) if n in kept]

    def counts(
        self, photos: Sequence[TakenPhoto], part: str, sources: Iterable[str]
    ) -> list[DataCount]:
        """Return one row for each source of these photos.

        Those of `sources` of which all photos were left out get a row too.
        """
        counts = []
        empty = [source for source in sources if source in self.left_out]
        for source in dict.fromkeys((*(photo.source for photo in photos), *empty)):
            mine = [photo for photo in photos if photo.source == source]
            things: Counter[str] = Counter()
            if self.stage == "classifier":
                for photo in mine:
                    things.update(photo.classes or (NONE,))
            left_out = self.left_out.pop(source, Counter())
            counts.append(
                DataCount(source, self.prefix + part, len(mine), dict(things), dict(left_out))
            )
        return counts

    def unknown_classes(self) -> str:
        """Describe unmapped classes for the message that no photo is left."""
        if not self.unknown:
            return ""
        names, more = ", ".join(map(repr, list(self.unknown)[:_SHOWN])), len(self.unknown) - _SHOWN
        also = f" and {more} more" if more > 0 else ""
        return (
            f"; the truth's classes {names}{also} are none of the model's ({', '.join(self.classes)}): give their classes in "
            '`data.map`, or "" for none'
        )

    def _view(self, source: PhotoView) -> PhotoView:
        return PhotoView(
            crop=source.crop if source.crop is not None else self.data.crop,
            face=source.face if source.face is not None else bool(self.data.face),
        )

    def _unusable(self, photo: AnnotatedPhoto) -> str | None:
        if photo.path is None:
            return WITHIN if EMBEDDED in photo.not_kept else LOST
        if photo.path in self.unusable or any(mask in self.unusable for mask in photo.masks or ()):
            return "that cannot be used"
        annotation = photo.masks if self.stage == "segmenter" else photo.classes
        if self.stage == "detector":
            return "without boxes" if photo.boxes is None else None
        return "without annotation" if annotation is None else None

    def _classes(self, photo: AnnotatedPhoto) -> tuple[str, ...] | None:
        """Return the classes of a photo; None if the truth has a class that is not mapped."""
        if self.stage == "segmenter":
            return ()
        names = photo.labels or () if self.stage == "detector" else photo.classes or ()
        meanings = [truth_class(name, self.data, self.classes) for name in names]
        self.unknown |= dict.fromkeys(
            name for name, meant in zip(names, meanings, strict=True) if meant is None
        )
        return None if None in meanings else tuple(dict.fromkeys(name for name in meanings if name))


def _check_left_out(truths: Iterable[tuple[TruthSource, Truth]], where: Path | str) -> None:
    for source, truth in truths:
        there = {_stem(photo) for photo in truth.photos}
        setting = "only" if source.only is not None else "leave_out"
        if unknown := [
            name for name in source.only or source.leave_out or () if composed(name) not in there
        ]:
            raise UsageError(
                f"{where}: setting `{setting}`: {source.truth} has no photo {', '.join(unknown[:3])}; "
                "give file names without folder and extension"
            )


def _stem(photo: AnnotatedPhoto) -> str:
    return PurePosixPath(composed(photo.name)).stem


def _as_annotated(taken: TakenPhoto) -> AnnotatedPhoto:
    """Return a photo of `negatives` as annotated with no boxes; no file annotates it."""
    return (
        taken.photo
        if taken.photo.boxes is not None
        else replace(taken.photo, boxes=NO_BOXES, labels=())
    )


def _read(source: TruthSource, data: DataSection, stage: StageName, split: str) -> Truth:
    """Read an annotated source. split: of a data.yaml.

    For a classifier, a photo without classes of its own has the classes of its boxes (paper 002).
    """
    column = None if data.grouping is None else data.grouping.column
    truth = read_truth(source.truth, source.format, group=column, photos=source.photos, split=split)
    refuse_wrong_units(truth)
    if stage != "classifier":
        return truth
    return replace(truth, photos=tuple(_of_boxes(photo) for photo in truth.photos))


def _of_boxes(photo: AnnotatedPhoto) -> AnnotatedPhoto:
    if photo.classes is not None or photo.labels is None:
        return photo
    return replace(photo, classes=tuple(dict.fromkeys(photo.labels)))


def _names(truth: Truth) -> set[str]:
    lists = (
        (*(photo.labels or ()), *(photo.classes or ()), *photo.crowd_labels)
        for photo in truth.photos
    )
    return {*truth.class_names, *(name for names in lists for name in names)}


def _left_out(left_out: Mapping[str, Mapping[str, int]]) -> str:
    reasons = [
        f"{number} of {source} {reason}"
        for source, counts in left_out.items()
        for reason, number in counts.items()
    ]
    if not reasons:
        return "the truth is empty"

    kinds = {reason for counts in left_out.values() for reason in counts}
    way_out = ""
    if LOST in kinds:
        way_out = '; name the folder of the photos with `photos`, as in { truth = "labels.json", photos = "photos" }'
    elif WITHIN in kinds:
        way_out = "; save the photos as files beside their annotations"
    return f"left out: {', '.join(reasons)}{way_out}"
