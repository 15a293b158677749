"""Compare a destination with what people annotated on its photos: `skinbatch evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.grouping import LOOK
from skinbatch.annotations.pairing import Pairs, pair_photos
from skinbatch.annotations.read import read_truth, refuse_wrong_units
from skinbatch.errors import UsageError
from skinbatch.evaluate.annotators import annotators
from skinbatch.evaluate.diseases import Diseases, check_apart
from skinbatch.evaluate.lesions import Lesions
from skinbatch.evaluate.persons import Persons, column_of_truth, find_persons
from skinbatch.evaluate.regions import Regions
from skinbatch.evaluate.request import EvaluationRequest, Judged
from skinbatch.evaluate.scoring_tables import ScoringTables
from skinbatch.evaluate.severities import Severities
from skinbatch.evaluate.slices import SEVERITIES, by_severity, by_tone
from skinbatch.metrics.bootstrap import Estimate, Resampling
from skinbatch.metrics.verdicts import PhotoVerdict
from skinbatch.storage.store import Store
from skinbatch.types import Status

# Names in the results of what can be judged. Classifiers are named `classes.<head>`.
LESIONS, GRADES, REGIONS, DISEASES = "lesions", "grades", "masks", "classes"
# Number of photos that a note names.
_SHOWN = 5
SLICES = {"skin_tone": "ITA group", "severity": "severity", "person": "person"}


class EvaluationPart(Protocol):
    """Describe one thing that can be judged.

    places: (n,) indices, among the judged photos, of those that it can be judged on.
    """

    places: NDArray[np.int64]

    def measure(self, keep: NDArray[np.bool_], how: Resampling) -> dict[str, Any]:
        """Return the numbers of some photos. keep: (n,) bool."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Hold the result of an evaluation.

    about: plain values about what was judged and what could not be. numbers: part -> its
    numbers over all photos. slices: kind of slice (see SLICES) -> group -> part -> numbers over the
    group's photos. Numbers are Estimates among plain values. parts: what plots are drawn from.
    """

    about: Mapping[str, Any]
    numbers: Mapping[str, Any]
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]]
    parts: Mapping[str, EvaluationPart]
    severity: tuple[int | None, ...]

    def verdicts(self) -> list[PhotoVerdict]:
        """Return the right, false and missed boxes of each photo; [] if boxes were not judged."""
        part = self.parts.get(LESIONS)
        return part.by_photo() if isinstance(part, Lesions) else []

    def as_json(self) -> dict[str, Any]:
        """Return plain values.

        An Estimate becomes `value`, `low` and `high`; each is None if undefined.
        """
        return dict(_plain({"about": self.about, "all": self.numbers, "slices": self.slices}))


def evaluate(
    store: Store, request: EvaluationRequest, phase: Callable[[str], None] = lambda text: None
) -> Evaluation:
    """Judge one scoring of a destination against a truth.

    Photos are judged if they have a truth and an `ok` row. The others are counted and named in
    `about`.

    Args:
        store: The destination.
        request: The truth, the scoring and the settings of the evaluation.
        phase: Called with a line of text at each step.

    Returns:
        The numbers over all photos and over each slice. Counts are in lesions, scores and Dice from
        0 to 1. `as_json()` returns plain values.

    Raises:
        UsageError: If the truth cannot be read, no photo has both, nothing in the truth can be
            compared with the tables, or the request names a class or group that does not exist.

    Example:
        >>> from skinbatch.reading import destination_store
        >>> result = evaluate(destination_store("scored"), EvaluationRequest(Path("truth.csv")))
        >>> result.numbers["lesions"]["detection"]["all boxes"]["100"]["ap50"].value
        1.0
    """
    phase(f"reading {request.truth}")
    truth = read_truth(
        request.truth, request.format, group=column_of_truth(request), photos=request.photos
    )
    refuse_wrong_units(truth)
    lost = [photo for photo in truth.photos if photo.path is None and photo.boxes is None]
    if truth.format == "yolo" and lost:
        raise UsageError(
            f"{request.truth}: {len(lost)} label files give boxes as fractions of photos that are missing, such as "
            f"{lost[0].annotation}; name the folder of the photos with --photos"
        )

    phase(f"reading the tables of {store.uri}")
    scored = ScoringTables(store, request.scoring, request.grading)
    check_apart(request, scored)
    annotated = tuple(photo for photo in truth.photos if photo.is_annotated)
    pairs = pair_photos(annotated, scored.image_ids, scored.uris)
    missing = scored.missing()
    notes = [] if missing is None else [missing]
    places, failed = _fine(pairs, scored, request)
    if not len(places):
        raise UsageError(_nothing(request, scored, annotated, pairs))

    if request.group == LOOK:
        phase("comparing photos")
    judged, persons = _judged(annotated, pairs, places, scored, request, notes)
    parts = _parts(judged, scored, request, phase, notes)
    if not parts:
        raise UsageError(f"{request.truth}, {scored.uri}: nothing to compare: {'; '.join(notes)}")
    phase("measuring")
    numbers = {
        name: part.measure(np.ones(len(part.places), np.bool_), request.resampling)
        for name, part in parts.items()
    }
    severity = tuple(photo.severity for photo in judged.photos)
    groups = {"person": persons.slices()}
    if request.sliced:
        tones = by_tone(scored.numbers("ita_degrees", judged.rows))
        groups = {"skin_tone": tones, "severity": by_severity(severity), **groups}
    slices = _slices(groups, parts, request, phase)

    notes += _notes_on_truth(truth, judged, request)
    noise = annotators(judged, scored.texts("sha256", judged.rows), request.resampling)
    about = _about(request, scored, truth, annotated, pairs, judged, failed, parts)
    about |= {"groups": persons.about, "annotators": noise, "notes": notes}
    return Evaluation(about, numbers, slices, parts, severity)


def _slices(
    groups: Mapping[str, Mapping[str, NDArray[np.bool_]]],
    parts: Mapping[str, EvaluationPart],
    request: EvaluationRequest,
    phase: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Return kind of slice -> its name -> the numbers over its photos.

    groups: kind -> name -> (N,), whether each judged photo belongs to it.
    """
    slices: dict[str, dict[str, Any]] = {}
    for kind, named in groups.items():
        for name, members in named.items():
            phase(f"measuring: {SLICES[kind]} {name}")
            measured = {
                part_name: part.measure(members[part.places], request.resampling)
                for part_name, part in parts.items()
                if members[part.places].any()
            }
            slices.setdefault(kind, {})[name] = {"photos": int(members.sum()), **measured}
    return slices


def _notes_on_truth(truth: Truth, judged: Judged, request: EvaluationRequest) -> Iterator[str]:
    """Yield what people should know about the annotations that were compared."""
    for name in request.unused(_names(truth)):
        yield f"--map {name}: the truth has no class with this name"

    if swapped := [photo for photo in judged.photos if photo.swapped]:
        number = sum(len(photo.swapped) for photo in swapped)
        yield (
            f"the corners of {number:,} of the truth's boxes were swapped and have been corrected, in "
            f"{', '.join(photo.name for photo in swapped[:_SHOWN])}{', …' if len(swapped) > _SHOWN else ''}"
        )

    if crowds := sum(len(photo.crowd_labels) for photo in judged.photos):
        yield (
            f"{crowds:,} regions of the truth are marked as a crowd: boxes that lie only in them count neither as right nor "
            "as false"
        )


def _fine(
    pairs: Pairs, scored: ScoringTables, request: EvaluationRequest
) -> tuple[NDArray[np.int64], list[dict[str, Any]]]:
    """Return the places of the pairs to judge, those with an `ok` row, and the other rows."""
    asked = np.array(
        [request.only is None or scored.image_ids[row] in request.only for row in pairs.rows],
        np.bool_,
    )
    status = scored.texts("status", pairs.rows)
    fine = np.array([value == Status.OK for value in status], np.bool_)
    failed = (
        scored.images.select(["image_id", "status", "error"])
        .take(pairs.rows[asked & ~fine])
        .to_pylist()
    )
    return np.flatnonzero(asked & fine), failed


def _judged(
    annotated: Sequence[AnnotatedPhoto],
    pairs: Pairs,
    places: NDArray[np.int64],
    scored: ScoringTables,
    request: EvaluationRequest,
    notes: list[str],
) -> tuple[Judged, Persons]:
    """Return the judged photos and who is on them. places: of the pairs to judge."""
    photos, rows = tuple(annotated[n] for n in pairs.truth[places]), pairs.rows[places]
    persons = find_persons(photos, rows, scored, request, notes)
    return Judged(photos, tuple(scored.image_ids[n] for n in rows), rows, persons.numbers), persons


def _parts(
    judged: Judged,
    scored: ScoringTables,
    request: EvaluationRequest,
    phase: Callable[[str], None],
    notes: list[str],
) -> dict[str, EvaluationPart]:
    parts: dict[str, EvaluationPart] = {}
    if any(photo.boxes is not None for photo in judged.photos):
        phase("matching boxes")
        parts[LESIONS] = Lesions(judged, scored, request)
    if any(photo.severity is not None for photo in judged.photos):
        grades = scored.graded_by.scheme.grades
        if len(grades) == len(SEVERITIES):
            parts[GRADES] = Severities(judged, scored)
        else:
            notes.append(
                f"grades are not judged: the truth has {len(SEVERITIES)} severities, and the scheme "
                f"{scored.graded_by.scheme.name!r} has {len(grades)} grades"
            )
    if any(photo.masks is not None for photo in judged.photos):
        masks = scored.masks()
        if masks is None:
            notes.append(
                "masks are not judged: this scoring was started without --save-masks; score into another DEST with it"
            )
        else:
            phase("comparing masks")
            parts[REGIONS] = Regions(judged, masks, request)
    if any(photo.classes is not None for photo in judged.photos):
        heads = {
            head: Diseases(judged, scored, request, head, columns)
            for head, columns in scored.heads().items()
        }
        parts |= {f"{DISEASES}.{head}": part for head, part in heads.items() if part.concerned}
        if not any(part.concerned for part in heads.values()):
            known = (
                ", ".join(name for part in heads.values() for name in part.classes)
                or "no classifier"
            )
            names = sorted({name for photo in judged.photos for name in photo.classes or ()})
            notes.append(
                f"classes are not judged: the truth has {', '.join(names[:8])}, the pack has {known}; see --map"
                if names
                else f"classes are not judged: none of the {len(judged)} annotated photos with a row has a class"
            )
    return parts


def _about(
    request: EvaluationRequest,
    scored: ScoringTables,
    truth: Truth,
    annotated: Sequence[AnnotatedPhoto],
    pairs: Pairs,
    judged: Judged,
    failed: Sequence[Mapping[str, Any]],
    parts: Mapping[str, EvaluationPart],
) -> dict[str, Any]:
    how = request.resampling
    face = scored.texts("face", judged.rows)
    return {
        "destination": scored.uri,
        "scoring": scored.scoring.fingerprint,
        "pack": scored.scoring.pack,
        "grading": scored.grading,
        "truth": str(request.truth),
        "format": truth.format,
        "matched_by": pairs.way,
        "photos": {
            "with_truth": len(annotated),
            "rows": len(scored.image_ids),
            "judged": len(judged),
        },
        "truth_without_photo": list(pairs.unseen),
        "photos_without_truth": list(pairs.unsaid),
        "ambiguous": list(pairs.ambiguous),
        "failed": list(failed),
        "without_face": [
            name for name, has_face in zip(judged.image_ids, face, strict=True) if not has_face
        ],
        "unusable": {
            name: part.unusable
            for name, part in parts.items()
            if isinstance(part, Lesions | Regions)
        },
        "unknown_classes": {
            name: dict(part.unknown)
            for name, part in parts.items()
            if isinstance(part, Lesions | Diseases)
        },
        "merged_into_background": next(
            (list(p.merged) for p in parts.values() if isinstance(p, Regions)), []
        ),
        "bootstrap": {
            "replicates": how.replicates,
            "level": how.level,
            "seed": how.seed,
            "over": "photos" if judged.groups is None else "groups",
        },
    }


def _nothing(
    request: EvaluationRequest,
    scored: ScoringTables,
    annotated: Sequence[AnnotatedPhoto],
    pairs: Pairs,
) -> str:
    where = f"{request.truth}, {scored.uri}"
    if len(pairs.rows):
        return f"{where}: none of the {len(pairs.rows)} annotated photos was scored; `skinbatch status` shows why"
    if pairs.ambiguous:
        return f"{where}: several photos have the same {pairs.way}, such as {', '.join(pairs.ambiguous[:3])}"
    names, ids = [photo.name for photo in annotated[:1]], scored.image_ids[:1]
    return (
        f"{where}: no annotated photo has a row: rows have names like {(ids or ['(none)'])[0]!r}, annotated photos like "
        f"{(names or ['(none)'])[0]!r}; name the truth of this destination's source"
    )


def _names(truth: Truth) -> list[str]:
    return [
        *truth.class_names,
        *{
            name
            for photo in truth.photos
            for name in (*(photo.labels or ()), *(photo.classes or ()))
        },
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return {"value": _plain(value.value), "low": _plain(value.low), "high": _plain(value.high)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
