"""Tell which judged photos show the same person, and whose person was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.grouping import ESTIMATE, GroupCount, Grouping
from skinbatch.annotations.likeness import perceptual_groups
from skinbatch.annotations.photo_list import read_photo_list
from skinbatch.annotations.table import has_column
from skinbatch.errors import UsageError
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.evaluate.scoring_tables import ScoringTables
from skinbatch.metrics.bootstrap import numbered
from skinbatch.storage.local import path_of
from skinbatch.storage.locate import is_s3

# Names of the two parts of the judged photos, if the photos that were trained on are known.
SEEN, NEW = "person was trained on", "person is new"


@dataclass(frozen=True, slots=True)
class Persons:
    """Hold who is on the P judged photos.

    Attributes:
        photos: names of the photos.
        names: the person, or whatever else groups are; None if unknown.
        trained_on: (P,) bool, whether the photos trained on show the same person; None if they are
            not known.
        about: plain values on where groups come from, and how many there are.
    """

    photos: tuple[str, ...]
    names: tuple[str | None, ...]
    trained_on: NDArray[np.bool_] | None
    about: dict[str, Any]

    @property
    def numbers(self) -> NDArray[np.int64] | None:
        """Return (P,) the number of each photo's group, or None if no group is known.

        A photo whose group is unknown has a group of its own.
        """
        return numbered(self.names, self.photos) if any(self.names) else None

    def slices(self) -> dict[str, NDArray[np.bool_]]:
        """Return the photos whose person was trained on and the others, if that is known."""
        if self.trained_on is None:
            return {}
        parts = {NEW: ~self.trained_on, SEEN: self.trained_on}
        return {name: members for name, members in parts.items() if members.any()}


def column_of_truth(request: EvaluationRequest) -> str | None:
    """Return the column of a .csv truth that `--group` names; None if the truth has none."""
    column = None if request.grouping is None else request.grouping.column
    of_csv = (
        column is not None and request.format in (None, "csv") and has_column(request.truth, column)
    )
    return column if of_csv else None


def find_persons(
    photos: Sequence[AnnotatedPhoto],
    rows: NDArray[np.int64],
    scored: ScoringTables,
    request: EvaluationRequest,
    notes: list[str],
) -> Persons:
    """Return who is on the judged photos. rows: (P,) of their rows. notes: get what a reader should know.

    Raises:
        UsageError: `--group` fits no photo, or `--trained-on` cannot be read or compared.
    """
    grouping = request.grouping
    image_ids = [scored.image_ids[row] for row in rows]
    trained = _trained_on(request)
    if grouping is not None and grouping.by_look:
        names, trained_names = _by_look(photos, rows, scored, trained, notes)
    else:
        names = _by_name(photos, image_ids, scored, request, notes)
        trained_names = [_name(grouping, photo.name) or photo.group for photo in trained or ()]

    if trained is not None and photos and not (any(names) and any(trained_names)):
        whose = "the photos judged" if not any(names) else str(request.trained_on)
        raise UsageError(
            f"--trained-on {request.trained_on}: no person is known for {whose}; give --group with a regular expression over "
            "the names of both, a column of both, or `look`"
        )

    count = GroupCount.of(names)
    if any(names) and count.unknown:
        notes.append(
            f"{count.unknown:,} of {len(photos):,} photos have no group: each of them is resampled as a group of its own"
        )
    known = frozenset(trained_names) - {None}
    seen = None if trained is None else np.array([name in known for name in names], np.bool_)
    known_as = tuple(photo.name for photo in photos)
    return Persons(known_as, tuple(names), seen, _about(request, count, trained, len(known), seen))


def _about(
    request: EvaluationRequest,
    count: GroupCount,
    trained: Sequence[AnnotatedPhoto] | None,
    trained_groups: int,
    seen: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    grouping = request.grouping
    about: dict[str, Any] = {
        "by": "the truth" if grouping is None else grouping.text,
        "estimated": grouping is not None and grouping.by_look,
        "groups": count.groups,
        "photos_sharing": count.sharing,
        "largest": count.largest,
        "unknown": count.unknown,
    }
    if trained is not None and seen is not None:
        about["trained_on"] = {
            "list": str(request.trained_on),
            "photos": len(trained),
            "groups": trained_groups,
            "judged_photos_of_them": int(seen.sum()),
        }
    return about


def in_words(about: dict[str, Any], judged: int) -> list[str]:
    """Return the lines that tell a reader about groups. about: of Persons."""
    if not about["groups"]:
        return []
    how = f" by `{about['by']}`" + (f" ({ESTIMATE})" if about["estimated"] else "")
    lines = [
        f"  {about['groups']:,} groups{how}: {about['photos_sharing']:,} of {judged:,} photos share theirs with another "
        f"judged photo, at most {about['largest']:,} in one group"
    ]
    if trained := about.get("trained_on"):
        seen = trained["judged_photos_of_them"]
        lines.append(
            f"  {seen:,} of {judged:,} photos ({100 * seen / judged:.0f} %) show a person of the {trained['photos']:,} photos "
            f"trained on ({trained['list']}); see `By person` for both parts"
        )
    return lines


def _trained_on(request: EvaluationRequest) -> tuple[AnnotatedPhoto, ...] | None:
    if request.trained_on is None:
        return None
    column = None if request.grouping is None else request.grouping.column
    return read_photo_list(request.trained_on, column)


def _name(grouping: Grouping | None, name: str) -> str | None:
    return None if grouping is None else grouping.of_name(name)


def _by_name(
    photos: Sequence[AnnotatedPhoto],
    image_ids: Sequence[str],
    scored: ScoringTables,
    request: EvaluationRequest,
    notes: list[str],
) -> list[str | None]:
    """Return the group of each photo by `--group`, or else as the truth names it."""
    grouping, given = request.grouping, f"--group {request.group}"
    truth = [photo.group for photo in photos]
    if grouping is None or not photos:
        return truth

    if grouping.pattern is not None:
        matched = [
            grouping.of_name(photo.name) or grouping.of_name(image_id)
            for photo, image_id in zip(photos, image_ids, strict=True)
        ]
        wrong = "matches none of"
    elif column_of_truth(request) is not None:
        matched, wrong = truth, "is an empty column for all"
    else:
        values = scored.named_column(str(grouping.column), image_ids)
        if values is None:
            fields = ", ".join(scored.fields()) or "none"
            raise UsageError(
                f"{given}: no column of {request.truth} or of the table `images` (fields of the source: {fields}); give a "
                "column, a regular expression over the photo's name with a group in it, such as '(p[0-9]+)_', or `look`"
            )
        matched, wrong = values, "is an empty column for all"

    if not any(matched):
        raise UsageError(
            f"{given}: {wrong} the {len(photos):,} photos to be judged, such as {photos[0].name}"
        )
    if grouping.pattern is not None and None in matched:
        notes.append(f"{given}: does not match {matched.count(None):,} of {len(photos):,} photos")
    return [match or group for match, group in zip(matched, truth, strict=True)]


def _by_look(
    photos: Sequence[AnnotatedPhoto],
    rows: NDArray[np.int64],
    scored: ScoringTables,
    trained: Sequence[AnnotatedPhoto] | None,
    notes: list[str],
) -> tuple[list[str | None], list[str | None]]:
    """Return the group of each judged photo and of each photo trained on, by comparing them all."""
    uris = scored.uris
    files = [
        photo.path or _file_of(uris[row]) for photo, row in zip(photos, rows.tolist(), strict=True)
    ]
    files += [photo.path for photo in trained or ()]
    names = [photo.name for photo in (*photos, *(trained or ()))]
    if not any(files[: len(photos)]):
        raise UsageError(
            f"--group look: none of the {len(photos):,} photos to be judged is a file on this machine, such as {names[0]}; "
            "name the folder of the photos with --photos"
        )
    if trained is not None and not any(files[len(photos) :]):
        raise UsageError(
            f"--group look: none of the {len(trained):,} photos trained on is a file on this machine, such as "
            f"{trained[0].name}; list their full paths"
        )
    if absent := files.count(None):
        notes.append(
            f"--group look: {absent:,} of {len(files):,} photos are not files on this machine and were not compared"
        )

    listed = [
        AnnotatedPhoto(name, file or Path(name), file)
        for name, file in zip(names, files, strict=True)
    ]
    first: dict[int, str] = {}
    numbers = perceptual_groups(listed)
    for number, name in zip(numbers, names, strict=True):
        first.setdefault(number, name)
    groups: list[str | None] = [
        None if file is None else f"the look of {first[number]} ({number})"
        for number, file in zip(numbers, files, strict=True)
    ]
    return groups[: len(photos)], groups[len(photos) :]


def _file_of(uri: str) -> Path | None:
    if is_s3(uri):
        return None
    path = Path(path_of(uri))
    return path if path.is_file() else None
