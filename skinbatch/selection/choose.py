"""Choose photos of a scored destination."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.read import read_truth, refuse_wrong_units
from skinbatch.errors import UsageError
from skinbatch.grading.counting import ON_SKIN
from skinbatch.grading.tones import TONES, tone_levels
from skinbatch.grading.uncertainty import uncertainty
from skinbatch.runs.destination import read_scoring
from skinbatch.runs.results import Results
from skinbatch.selection.foremost import Foremost, equal_shares
from skinbatch.selection.suspect import Paired, Suspicion, pair_photos, suspicions, usable
from skinbatch.selection.where import Where
from skinbatch.tables.meta import add_meta_columns
from skinbatch.tables.names import META_PREFIX, closest
from skinbatch.tables.schema import META, images_schema
from skinbatch.types import Status

# The name under which photos are divided by skin tone.
TONE = "ita"
_BOXES = ("image_id", "x1", "y1", "x2", "y2", "score", "skin_overlap", "counted")

# Photos that are remembered before those that are not among the foremost are forgotten.
_REMEMBERED = 200_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Describe which photos to choose. Every part narrows what the parts before it left.

    Only one of sample, uncertain and suspect can be given.

    Attributes:
        where: an SQL condition on the columns of `images`.
        sample: number of photos to choose at random, the same ones each time.
        stratify: columns whose values divide the photos into groups; each group gives equally many
            photos to the sample. `ita` divides by skin tone.
        uncertain: number of photos with the highest uncertainty (skinbatch.grading.uncertainty).
        suspect: number of photos whose annotations the model contradicts most.
        truth, truth_photos: the annotations for `suspect`, and the folder of their photos.

    Raises:
        UsageError: The parts cannot be combined.
    """

    where: str | None = None
    sample: int | None = None
    stratify: tuple[str, ...] = ()
    uncertain: int | None = None
    suspect: int | None = None
    truth: Path | None = None
    truth_photos: Path | None = None

    def __post_init__(self) -> None:
        given = {"--sample": self.sample, "--uncertain": self.uncertain, "--suspect": self.suspect}
        used = [name for name, value in given.items() if value is not None]
        if len(used) > 1:
            raise UsageError(
                f"{' and '.join(used)}: choose one of them; --where can be added to each"
            )
        if self.stratify and self.sample is None:
            raise UsageError("--stratify divides a sample; add --sample N")
        if (self.suspect is None) != (self.truth is None):
            raise UsageError(
                "--suspect N compares photos with the annotations of --truth T; give both options"
            )
        if self.truth_photos is not None and self.truth is None:
            raise UsageError(
                "--photos is the folder of the photos of --truth; name the annotations with --truth"
            )

    def __bool__(self) -> bool:
        return bool(self.first_option)

    @property
    def first_option(self) -> str:
        """Return the first option that is given; empty if none is."""
        given = {"--where": self.where, "--sample": self.sample}
        given |= {"--uncertain": self.uncertain, "--suspect": self.suspect}
        return next((name for name, value in given.items() if value is not None), "")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Hold the chosen photos.

    Attributes:
        image_ids: the photos.
        unit_ids: the units that hold them.
        suspicions: image_id -> the contradictions, if they were chosen by them.
        drawn: image_id -> the annotated photo and the factors that scale its boxes, likewise.
        left_out: number of photos with status ok that were not chosen.
        notes: what a user needs to know, such as annotated photos that were not scored.
    """

    image_ids: frozenset[str]
    unit_ids: frozenset[str]
    left_out: int
    suspicions: Mapping[str, Suspicion] = field(default_factory=dict)
    drawn: Mapping[str, tuple[AnnotatedPhoto, NDArray[np.float64]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def annotated(self) -> dict[str, NDArray[np.float64]]:
        """Return image_id -> (M, 4) usable boxes of `drawn`, in pixels of the scored photo."""
        return {name: usable(photo.boxes, scale) for name, (photo, scale) in self.drawn.items()}


def choose(results: Results, selection: Selection, threshold: float | None = None) -> Chosen:
    """Choose among the photos with status ok. Memory grows with the chosen photos, not with the others.

    Args:
        results: The tables to choose from.
        selection: Which photos.
        threshold: Boxes on the skin with at least this score count; None: as graded.

    Raises:
        UsageError: The selection names an unknown column, or no photo fits.

    >>> choose(skinbatch.open("scored"), Selection(uncertain=500)).image_ids  # doctest: +SKIP
    """
    scoring = read_scoring(results.store, results.fingerprint)
    assert scoring is not None, "results have just been opened"
    schema = images_schema(scoring.classes, scoring.prob_columns)
    chooser = _Chooser(results, selection, threshold, schema)
    for images, boxes in results.units(None, _BOXES):
        chooser.add(images, boxes)
    return chooser.result()


class _Chooser:
    """Choose photos unit by unit."""

    def __init__(
        self, results: Results, selection: Selection, threshold: float | None, schema: pa.Schema
    ) -> None:
        self._selection, self._threshold = selection, threshold
        self._counted_from = results.graded_by.threshold if threshold is None else threshold
        self._where = None if selection.where is None else Where(selection.where, schema)
        _refuse_unknown_strata(selection.stratify, schema)
        self._paired: Paired | None = None
        if selection.truth is not None:
            truth = read_truth(selection.truth, photos=selection.truth_photos)
            refuse_wrong_units(truth)
            self._paired = pair_photos(results, truth)

        self._unit_of: dict[str, str] = {}
        self._all: list[str] = []
        most = selection.uncertain if selection.uncertain is not None else selection.suspect
        self._foremost = None if most is None else Foremost(most)
        self._strata: dict[Sequence[str], Foremost] = {}
        self._suspicions: dict[str, Suspicion] = {}
        self._fields: set[str] = set()
        self._seen = 0
        self._forget_from = _REMEMBERED

    def add(self, images: pa.Table, boxes: pa.Table) -> None:
        """Consider the photos of a unit."""
        images = images.filter(pc.equal(images.column("status"), Status.OK.value))
        self._seen += images.num_rows
        if self._where is not None:
            images = self._where.rows(images)
        if not images.num_rows:
            return

        ids = images.column("image_id").combine_chunks()
        photo = pc.index_in(boxes.column("image_id"), value_set=ids)
        boxes, photo = boxes.filter(pc.is_valid(photo)), np.asarray(pc.drop_null(photo), np.int64)
        for image_id, unit_id in zip(
            ids.to_pylist(), images.column("unit_id").to_pylist(), strict=True
        ):
            self._unit_of[image_id] = unit_id
        self._add_photos(images, boxes, photo)
        self._forget()

    def _add_photos(self, images: pa.Table, boxes: pa.Table, photo: NDArray[np.int64]) -> None:
        ids, selection = images.column("image_id").to_pylist(), self._selection
        if selection.sample is not None:
            for image_id, stratum in zip(ids, self._strata_of(images), strict=True):
                self._strata.setdefault(stratum, Foremost(selection.sample)).add(
                    image_id, _chance(image_id)
                )
        elif selection.uncertain is not None:
            scores, on_skin = _doubles(boxes, "score"), _doubles(boxes, "skin_overlap") >= ON_SKIN
            values = uncertainty(photo, scores, on_skin, self._counted_from, len(ids))
            for image_id, value in zip(ids, values.tolist(), strict=True):
                self._kept.add(image_id, value)
        elif self._paired is not None:
            for image_id, suspicion in suspicions(images, boxes, self._counts(boxes), self._paired):
                if suspicion.value > 0:
                    self._kept.add(image_id, suspicion.value)
                    self._suspicions[image_id] = suspicion
        else:
            self._all += ids

    @property
    def _kept(self) -> Foremost:
        assert self._foremost is not None, "a number of photos is given"
        return self._foremost

    def _counts(self, boxes: pa.Table) -> NDArray[np.bool_]:
        if self._threshold is None:
            return np.asarray(boxes.column("counted"), np.bool_)
        on_skin = _doubles(boxes, "skin_overlap") >= ON_SKIN
        return np.asarray((_doubles(boxes, "score") >= self._threshold) & on_skin, np.bool_)

    def _strata_of(self, images: pa.Table) -> Iterator[Sequence[str]]:
        names = self._selection.stratify
        if any(name.startswith(META_PREFIX) and name not in images.column_names for name in names):
            images = add_meta_columns(images)
            self._fields.update(
                name for name in images.column_names if name.startswith(META_PREFIX)
            )
        columns = [_levels(images, name) for name in names]
        return zip(*columns, strict=True) if columns else iter([()] * images.num_rows)

    def _forget(self) -> None:
        """Forget the units of photos that are no longer among the foremost."""
        if self._all or len(self._unit_of) <= self._forget_from:
            return
        names = set(self._names())
        self._unit_of = {name: unit for name, unit in self._unit_of.items() if name in names}
        self._suspicions = {name: each for name, each in self._suspicions.items() if name in names}
        self._forget_from = 2 * len(names) + _REMEMBERED

    def _names(self, final: bool = False) -> list[str]:
        if self._foremost is not None:
            return self._foremost.names()
        if self._selection.sample is None:
            return self._all
        available = {stratum: kept.seen for stratum, kept in self._strata.items()}
        shares = equal_shares(available, self._selection.sample) if final else {}
        return [
            name
            for stratum, kept in self._strata.items()
            for name in kept.names(shares.get(stratum))
        ]

    def result(self) -> Chosen:
        """Return the chosen photos."""
        if self._where is not None:
            self._where.finish()
        for name in self._selection.stratify:
            if name.startswith(META_PREFIX) and name not in self._fields:
                raise UsageError(
                    f"--stratify {name}: no photo has it{closest(name, sorted(self._fields))}"
                )

        names = self._names(final=True)
        if not names:
            condition = (
                f"--where {self._selection.where}: " if self._selection.where is not None else ""
            )
            raise UsageError(
                f"{condition}none of the {self._seen} scored photos is chosen; widen the selection"
            )
        paired = self._paired
        return Chosen(
            frozenset(names),
            frozenset(self._unit_of[name] for name in names),
            self._seen - len(names),
            {name: self._suspicions[name] for name in names} if paired is not None else {},
            {name: paired.photos[name] for name in names} if paired is not None else {},
            () if paired is None else _notes(paired),
        )


def _chance(image_id: str) -> float:
    """Return a number from 0 to 1 that depends on nothing but the name."""
    digest = hashlib.blake2b(image_id.encode(errors="surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)


def _levels(images: pa.Table, name: str) -> list[str]:
    """Return the value of each photo in a column, as text; `none` if it has no value."""
    if name == TONE:
        angles = np.asarray(
            pc.cast(images.column("ita_degrees"), pa.float64()).to_numpy(), np.float64
        )
        return [TONES[level] if level >= 0 else "none" for level in tone_levels(angles).tolist()]
    if name not in images.column_names:
        return ["none"] * images.num_rows
    return ["none" if value is None else str(value) for value in images.column(name).to_pylist()]


def _refuse_unknown_strata(names: Sequence[str], schema: pa.Schema) -> None:
    """Raise UsageError for columns that do not exist, or have too many values to form groups."""
    few = (pa.string(), pa.bool_(), pa.int8(), pa.int16())
    # These differ from photo to photo, or are the same for all that are chosen from.
    useless = ("image_id", "uri", "sha256", "version", "status", "error", "unit_id", META)
    good = [f.name for f in schema if f.type in few and f.name not in useless]
    for name in names:
        if (
            name == TONE
            or name in good
            or (name.startswith(META_PREFIX) and name not in schema.names)
        ):
            continue
        if name in schema.names:
            raise UsageError(
                f"--stratify {name}: its values form no groups; stratify by {TONE} (skin tones), "
                f"{', '.join(good)} or a field {META_PREFIX}<name>"
            )
        raise UsageError(
            f"--stratify {name}: `images` has no such column{closest(name, [TONE, *good])}"
        )


def _notes(paired: Paired) -> tuple[str, ...]:
    notes = []
    if paired.unscored:
        were = "annotated photo was" if len(paired.unscored) == 1 else "annotated photos were"
        notes.append(
            f"{len(paired.unscored):,} {were} not scored, or not found by name: {_first_names(paired.unscored)}"
        )
    if paired.other_shape:
        were = "photo was" if len(paired.other_shape) == 1 else "photos were"
        notes.append(
            f"{len(paired.other_shape):,} {were} annotated in another shape: {_first_names(paired.other_shape)}"
        )
    return tuple(notes)


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _doubles(boxes: pa.Table, column: str) -> NDArray[np.float64]:
    return np.asarray(boxes.column(column), np.float64)
