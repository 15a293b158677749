"""Lay out how a scoring agrees with people's annotations: numbers, doubts, photos side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skinbatch.config import Config
from skinbatch.errors import SkinbatchError
from skinbatch.metrics.verdicts import PhotoVerdict
from skinbatch.report.gallery import picture_of
from skinbatch.report.photo_again import Originals, find_rows
from skinbatch.runs.results import Results

# Photos that each list names.
LISTED = 100

# Photos that the table of contradictions shows.
WORST = 20

_COLUMNS = ("image_id", "uri", "sha256", "status", "error", "unit_id", "width", "height")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Hold what `evaluate` found, as plain values.

    evaluation: the content of evaluation.json. verdicts: of the judged photos. noise: sentences
    about how far the annotators agree with themselves. groups: sentences about photos that show one
    person.
    """

    evaluation: Mapping[str, Any]
    verdicts: Sequence[PhotoVerdict]
    noise: Sequence[str]
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Headline:
    """Hold one number as text. interval: `0.25 to 0.30`, or empty."""

    label: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Unpaired:
    """Name photos that were not judged. names: the first of them."""

    title: str
    total: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComparedPhoto:
    """Hold one photo with people's boxes on the left and the model's on the right.

    picture: a JPEG as base64 text, or "" with a problem. width, height: of the photo, in whose
    pixels the verdict's boxes are.
    """

    verdict: PhotoVerdict
    width: int
    height: int
    picture: str
    problem: str


@dataclass(frozen=True, slots=True)
class Against:
    """Hold the part of a report that a truth adds.

    grades, confusion: names, and (L, L + 1) photos; rows are true grades, the last column photos
    without a grade. persons: the headlines of photos whose person was trained on, and of others, if
    that is known. pictures: None without thumbnails.
    """

    truth: str
    judged: int
    with_truth: int
    headlines: tuple[Headline, ...]
    intervals: str
    noise: tuple[str, ...]
    groups: tuple[str, ...]
    persons: Mapping[str, tuple[Headline, ...]]
    unpaired: tuple[Unpaired, ...]
    grades: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    worst: tuple[PhotoVerdict, ...]
    pictures: tuple[ComparedPhoto, ...] | None
    notes: tuple[str, ...]


def against(
    results: Results,
    judgement: Judgement,
    most: int,
    config: Config,
    progress: Callable[[str], None] = lambda text: None,
) -> Against:
    """Return what a report shows about a truth.

    Args:
        most: photos that are shown side by side, those with most false and missed boxes first.
        config: how the source is reached.
    """
    evaluation = judgement.evaluation
    about, numbers = evaluation["about"], evaluation["all"]
    grades = numbers.get("grades", {})
    worst = sorted(judgement.verdicts, key=lambda v: (-len(v.false) - len(v.missed), v.image_id))
    pictures = None
    if most and worst:
        pictures = tuple(_side_by_side(results, worst[:most], config, progress))

    how = about["bootstrap"]
    intervals = f"{100 * how['level']:.0f} % intervals of {how['replicates']:,} bootstrap samples of {how['over']}"
    return Against(
        truth=about["truth"],
        judged=about["photos"]["judged"],
        with_truth=about["photos"]["with_truth"],
        headlines=tuple(_headlines(numbers)),
        intervals=intervals if how["replicates"] else "no intervals were asked for",
        noise=tuple(judgement.noise),
        groups=tuple(judgement.groups),
        persons={
            f"{name} ({part['photos']:,} photos)": tuple(_headlines(part))
            for name, part in evaluation["slices"].get("person", {}).items()
        },
        unpaired=tuple(_unpaired(about)),
        grades=tuple(grades.get("grades", ())),
        confusion=tuple(tuple(row) for row in grades.get("confusion", ())),
        worst=tuple(v for v in worst[:WORST] if len(v.false) + len(v.missed)),
        pictures=pictures,
        notes=tuple(about["notes"]),
    )


def _headlines(numbers: Mapping[str, Any]) -> list[Headline]:
    headlines = []
    if lesions := numbers.get("lesions"):
        headlines += _of_lesions(lesions)
    if grades := numbers.get("grades"):
        headlines += [
            _headline(
                "Correct grades",
                grades["accuracy"],
                "share of photos with the grade that people gave",
            ),
            _headline(
                "Grades, quadratic kappa",
                grades["quadratic_kappa"],
                "1 is full agreement, 0 agreement by chance",
            ),
        ]
    if masks := numbers.get("masks"):
        headlines += [
            _headline(f"Mask of {name}, Dice", each["dice"], "1 is the same area")
            for name, each in masks["classes"].items()
            if name not in ("background", "mean")
        ]
    for name, part in numbers.items():
        if name.startswith("classes."):
            mean = part["classes"]["mean"]
            headlines += [
                _headline(f"{part['head']}: recall", mean["recall"], "mean over the classes"),
                _headline(f"{part['head']}: AUC", mean["auc"], "0.5 is chance"),
            ]
    return headlines


def _of_lesions(part: Mapping[str, Any]) -> list[Headline]:
    counted = part["counted"]
    own = next(error for error in part["count_error"] if error["own"])
    detection = next(iter(part["detection"]["all boxes"].values()))
    share = f"{counted['right']:,} of {counted['right'] + counted['missed']:,} true lesions"
    right = f"{counted['right']:,} of {counted['right'] + counted['false']:,} counted boxes"
    return [
        _headline(
            "Lesions found (recall)", counted["recall"], f"{share}, by an overlap of half (IoU 0.5)"
        ),
        _headline("Correct boxes (precision)", counted["precision"], right),
        _headline("AP50", detection["ap50"], "precision over all scores, at IoU 0.5"),
        _headline("Count off by", own["mae"], "lesions a photo on average", digits=1),
        _headline(
            "Count too high by", own["mean"], "lesions a photo; below 0 is too low", digits=1
        ),
    ]


def _headline(
    label: str, estimate: Mapping[str, float | None], meaning: str, *, digits: int = 2
) -> Headline:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if value is None:
        return Headline(label, "–", "", meaning)
    interval = (
        f"{low:.{digits}f} to {high:.{digits}f}" if low is not None and high is not None else ""
    )
    return Headline(label, f"{value:.{digits}f}", interval, meaning)


def _unpaired(about: Mapping[str, Any]) -> list[Unpaired]:
    """Return lists of the photos that could not be judged; empty ones are left out."""
    failed = [f"{row['image_id']} ({row['status']}: {row['error']})" for row in about["failed"]]
    unusable = [name for names in about["unusable"].values() for name in names]
    lists = (
        ("Annotated, but not scored", about["truth_without_photo"]),
        ("Annotated, but could not be scored", failed),
        ("Annotated, but several photos have this name", about["ambiguous"]),
        ("Annotated with empty boxes, or on a copy of another shape", unusable),
        ("Scored, but no face was found", about["without_face"]),
        ("Scored, but not annotated", about["photos_without_truth"]),
    )
    return [Unpaired(title, len(names), tuple(names[:LISTED])) for title, names in lists if names]


def _side_by_side(
    results: Results,
    verdicts: Sequence[PhotoVerdict],
    config: Config,
    progress: Callable[[str], None],
) -> list[ComparedPhoto]:
    originals = Originals(results, config)
    rows = find_rows(results, [verdict.image_id for verdict in verdicts], _COLUMNS)
    pictures = []
    for verdict, row in zip(verdicts, rows, strict=True):
        picture = problem = ""
        try:
            picture = picture_of(originals.read(row))
        except SkinbatchError as e:
            problem = str(e)
        pictures.append(
            ComparedPhoto(verdict, int(row["width"]), int(row["height"]), picture, problem)
        )
        progress(f"{len(pictures):,} of {len(rows):,} photos side by side")
    return pictures
