"""Print an evaluation as tables, with the papers' figures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from skinbatch.evaluate import papers, persons
from skinbatch.evaluate.evaluation import DISEASES, GRADES, LESIONS, REGIONS, SLICES, Evaluation
from skinbatch.evaluate.lesions import ALL
from skinbatch.metrics.bootstrap import Estimate
from skinbatch.metrics.calibration import BINS
from skinbatch.metrics.classification import MEAN

# Most photo names that are printed for a list. The JSON output holds all of them.
_FIRST = 3
_SHOWN = {
    "ap50": "AP50",
    "ap": "AP",
    "ar": "AR",
    "mae": "MAE",
    "rmse": "RMSE",
    "mean": "mean",
    "sd": "SD",
}
_DECIDED = {"recall": "recall", "precision": "precision", "specificity": "specificity", "f1": "F1"}
_RANKED = {
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "average_precision": "average precision",
}
Cells = Sequence[str]


def as_text(evaluation: Evaluation) -> str:
    """Return all tables, and what could not be judged and why."""
    lines = [*_head(evaluation.about)]
    numbers = evaluation.numbers
    if LESIONS in numbers:
        lines += _detection(numbers[LESIONS])
        lines += _counts(numbers[LESIONS])
    if "severity" in evaluation.slices and LESIONS in numbers:
        lines += _counts_by_severity(evaluation.slices["severity"])
    if GRADES in numbers:
        lines += _grades(numbers[GRADES])
    if REGIONS in numbers:
        lines += _masks(numbers[REGIONS])
    for name, part in numbers.items():
        if name.startswith(DISEASES):
            lines += _classes(part)
            lines += _calibration(part)
    for kind, groups in evaluation.slices.items():
        lines += _slices(f"By {SLICES[kind]}", groups, evaluation.about)
    return "\n".join([*lines, *_foot(evaluation)])


def number(value: Estimate, digits: int = 3) -> str:
    """Return `0.213 (0.190 to 0.237)`, or `–` if the number is undefined."""
    if not np.isfinite(value.value):
        return "–"
    ends = f" ({value.low:.{digits}f} to {value.high:.{digits}f})" if np.isfinite(value.low) else ""
    return f"{value.value:.{digits}f}{ends}"


def table(title: str, header: Cells, rows: Sequence[Cells]) -> list[str]:
    """Return title, header and rows in columns, the first aligned to the left."""
    cells = [header, *rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    aligned = [
        "  "
        + "   ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in cells
    ]
    return ["", title, *(line.rstrip() for line in aligned)]


def _head(about: Mapping[str, Any]) -> Iterator[str]:
    photos = about["photos"]
    regraded = about["grading"].get("grading")
    graded = f", grading {regraded}" if regraded else ""
    yield f"{about['destination']}, scoring {about['scoring']} (pack {about['pack']}){graded}"
    yield f"against {about['truth']} ({about['format']}), photos matched by their {about['matched_by']}"
    yield f"  {photos['judged']:,} photos judged; {photos['with_truth']:,} are annotated, {photos['rows']:,} have a row"
    yield from persons.in_words(about["groups"], photos["judged"])
    failed = [f"{row['image_id']} ({row['status']})" for row in about["failed"]]
    for what, names in (
        ("annotated, but without a row", about["truth_without_photo"]),
        ("with a row, but not annotated", about["photos_without_truth"]),
        ("whose name fits several photos", about["ambiguous"]),
        ("annotated, but failed", failed),
        ("in which no face was found", about["without_face"]),
        (
            "with empty boxes, or boxes of a photo of another shape (left out)",
            about["unusable"].get(LESIONS, ()),
        ),
        (
            "with masks of another shape, unreadable ones, or none (left out)",
            about["unusable"].get(REGIONS, ()),
        ),
    ):
        if names:
            more = ", …" if len(names) > _FIRST else ""
            yield f"  {len(names):,} {what}: {', '.join(names[:_FIRST])}{more}"
    for part, classes in about["unknown_classes"].items():
        if classes:
            listed = ", ".join(f"{name} ({n:,})" for name, n in sorted(classes.items()))
            what = (
                "judged only with all classes merged"
                if part == LESIONS
                else "of none of the classifier's classes"
            )
            yield f"  {'boxes' if part == LESIONS else 'photos'} of classes that the pack does not have, {what}: {listed}"


def _detection(part: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            f"{region}, best {most} a photo",
            *(number(by_class_numbers[n]) for n in ("ap50", "ap", "ar")),
        ]
        for region, caps in part["detection"].items()
        for most, by_class_numbers in caps.items()
    ]
    rows.append([papers.ACNE, f"{papers.AP50:.3f}", "", ""])
    title = f"Detection: {part['photos']:,} photos, {part['true_boxes']:,} true boxes, {part['boxes']:,} found; classes merged"
    lines = table(title, ["", "AP50", "AP (IoU 0.50 to 0.95)", "AR"], rows)
    counted = part["counted"]
    lines.append(
        f"  Counted boxes at IoU {counted['iou']:g}: {counted['right']:,} right, {counted['false']:,} false, "
        f"{counted['missed']:,} missed; precision {number(counted['precision'])}, recall {number(counted['recall'])}"
    )
    by_class = part["detection_by_class"].get(ALL)
    if by_class:
        (most, by_class_numbers), *_ = by_class.items()
        rows = [
            [name, *(number(each[n]) for n in ("ap50", "ap", "ar"))]
            for name, each in by_class_numbers.items()
        ]
        lines += table(
            f"By class: {ALL}, best {most} a photo",
            ["", "AP50", "AP (IoU 0.50 to 0.95)", "AR"],
            rows,
        )
    return lines


def _counts(part: Mapping[str, Any]) -> list[str]:
    names = ("mae", "rmse", "mean", "sd")
    rows = [
        [_threshold(error), *(number(error[n], 2) for n in names)] for error in part["count_error"]
    ]
    paper = f"{papers.ACNE}, {papers.COUNT_THRESHOLD}"
    rows.append([paper, *(f"{papers.COUNT_ERROR[n]:.2f}" for n in names)])
    return table(
        f"Count error, lesions a photo (found minus true): {part['photos']:,} photos",
        ["score from", *(_SHOWN[n] for n in names)],
        rows,
    )


def _counts_by_severity(groups: Mapping[str, Any]) -> list[str]:
    shown = {name: group[LESIONS] for name, group in groups.items() if LESIONS in group}
    if not shown:
        return []
    header = [
        "",
        "photos",
        *(_threshold(e) for e in next(iter(shown.values()))["count_error"]),
        papers.ACNE,
    ]
    rows = [
        [
            name,
            f"{part['photos']:,}",
            *(number(e["mae"], 2) for e in part["count_error"]),
            f"{papers.COUNT_MAE[name]:.2f}",
        ]
        for name, part in shown.items()
    ]
    return table("MAE of the count by severity, at scores from", header, rows)


def _grades(part: Mapping[str, Any]) -> list[str]:
    names = [*part["grades"], "no grade"]
    rows = [
        [true, *(f"{n:,}" for n in cells)]
        for true, cells in zip(part["grades"], part["confusion"], strict=True)
    ]
    title = f"Grades: accuracy {number(part['accuracy'])}, quadratic kappa {number(part['quadratic_kappa'])}; rows are true"
    return table(title, ["", *names], rows)


def _masks(part: Mapping[str, Any]) -> list[str]:
    names = {
        "dice": "Dice",
        "iou": "IoU",
        "photo_dice": "Dice, mean of photos",
        "photo_iou": "IoU, mean of photos",
    }
    rows = [
        [name, *(number(numbers[n]) for n in names), _paper(papers.DICE, name)]
        for name, numbers in part["classes"].items()
    ]
    header = ["", *names.values(), f"{papers.FACES}, Dice"]
    return table(f"Masks: {part['photos']:,} photos, pixels of all together", header, rows)


def _classes(part: Mapping[str, Any]) -> list[str]:
    of = f"{part['of_none']:,} of none of them"
    if not part["without_face"]:
        title = f"Classes ({part['head']}): {part['photos']:,} photos, {of}, all with a face; chosen by {part['chosen_by']}"
        return _classes_of(part, part["apart"], title, "The same, and by probability alone")
    lines = _classes_of(
        part,
        part["apart"],
        f"Classes ({part['head']}), the whole pipeline: {part['photos']:,} photos, {of}, {part['without_face']:,} without a face "
        f"(nothing chosen, probability 0); chosen by {part['chosen_by']}",
        "The same, and by probability alone: photos without a face rank last, so this also measures whether faces are found",
        part["without_face_of_class"],
    )
    if seen := _seen(part):
        of = f"{seen['of_none']:,} of none of them"
        lines += _classes_of(
            seen,
            part["apart"],
            f"Classes ({part['head']}), the classifier alone: the {seen['photos']:,} photos with a face, {of}",
            "The same photos with a face, and by probability alone",
        )
    return lines


def _calibration(part: Mapping[str, Any]) -> list[str]:
    """Return how far probabilities agree with the truth, and how often named classes are right."""
    if "calibration" not in part:
        return []
    rows = [[name, number(numbers["error"])] for name, numbers in part["calibration"].items()]
    lines = table(
        f"Calibration ({part['head']}): mean distance of a probability from the share of photos with the class, in {BINS} bins",
        ["", "expected calibration error"],
        rows,
    )
    named = part["named"]
    share = f" ({named['right'] / named['photos']:.3f})" if named["photos"] else ""
    return [
        *lines,
        f"  A class is named on {named['photos']:,} photos, correctly on {named['right']:,} of them{share}, and on "
        f"{named['of_none_named']:,} of the {named['of_none']:,} photos of none of the classes.",
    ]


def _classes_of(
    part: Mapping[str, Any],
    apart: Sequence[str],
    title: str,
    ranked: str,
    faceless: Mapping[str, int] | None = None,
) -> list[str]:
    """Return the numbers of chosen classes and of probabilities, each with a title.

    faceless: photos of each class without a face.
    """
    counts = part["of_class"]
    names = [*counts, MEAN]
    marks = {name: f"{name} (apart)" if name in apart else name for name in names}
    counted = {"photos": counts} | ({"without a face": faceless} if faceless is not None else {})
    rows = [
        [
            marks[name],
            *(f"{of[name]:,}" if name in of else "" for of in counted.values()),
            *(number(part["classes"][name][n], 2) for n in _DECIDED),
            _paper(papers.RECALL, name),
            _paper(papers.PRECISION, name),
        ]
        for name in names
    ]
    paper = [f"{papers.DISEASES}: recall", "precision"]
    lines = table(title, ["", *counted, *_DECIDED.values(), *paper], rows)
    rows = [
        [marks[name], *(number(part["classes"][name][n], 2) for n in _RANKED)] for name in names
    ]
    return lines + table(ranked, ["", *_RANKED.values()], rows)


def _seen(part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the numbers of a classifier over photos with a face, or None if no photo has one."""
    seen: Mapping[str, Any] | None = part.get("with_face") if part["without_face"] else part
    return seen


def _slices(title: str, groups: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    """Return one line for each group, with the main number of each part."""
    names: dict[str, None] = {}
    rows = {}
    faceless = {
        part
        for parts in groups.values()
        for part, numbers in parts.items()
        if part.startswith(DISEASES) and numbers["without_face"]
    }
    for group, parts in groups.items():
        row = {"photos": f"{parts['photos']:,}"}
        for part, numbers in parts.items():
            row |= _main(part, numbers)
            if part in faceless and (seen := _seen(numbers)):
                row |= {
                    f"{name}, with a face": value
                    for name, value in _of_classifier(numbers["head"], seen).items()
                }
        names |= dict.fromkeys(row)
        rows[group] = row
    return table(
        title,
        ["", *names],
        [[group, *(row.get(n, "–") for n in names)] for group, row in rows.items()],
    )


def _main(part: str, numbers: Any) -> dict[str, str]:
    if part == LESIONS:
        own = next(error for error in numbers["count_error"] if error["own"])
        best = next(iter(numbers["detection"][ALL].values()))
        return {
            "AP50": number(best["ap50"]),
            "count MAE": number(own["mae"], 2),
            "count mean": number(own["mean"], 2),
        }
    if part == GRADES:
        return {"grade accuracy": number(numbers["accuracy"], 2)}
    if part == REGIONS:
        return {
            f"Dice {name}": number(each["dice"])
            for name, each in numbers["classes"].items()
            if name != MEAN
        }
    if part.startswith(DISEASES):
        return _of_classifier(numbers["head"], numbers)
    return {}


def _of_classifier(head: str, numbers: Mapping[str, Any]) -> dict[str, str]:
    mean = numbers["classes"][MEAN]
    return {f"{head} recall": number(mean["recall"], 2), f"{head} AUC": number(mean["auc"], 2)}


def _foot(evaluation: Evaluation) -> Iterator[str]:
    about = evaluation.about
    how = about["bootstrap"]
    yield ""
    if how["replicates"]:
        yield (
            f"In brackets: {100 * how['level']:.0f} % percentile intervals of {how['replicates']:,} bootstrap samples of "
            f"{how['over']}, seed {how['seed']}."
        )
    yield from noise(about["annotators"])
    if LESIONS in evaluation.numbers:
        yield (
            "All boxes: whatever their score and place. On the skin: those that the pipeline would count; the true boxes are the "
            "same."
        )
        yield papers.ACNE_NOTE[0].upper() + papers.ACNE_NOTE[1:] + "."
    if REGIONS in evaluation.numbers:
        if about["merged_into_background"]:
            merged = ", ".join(about["merged_into_background"])
            yield f"True {merged} are background here: the segmenter does not distinguish them."
        yield papers.FACES_NOTE[0].upper() + papers.FACES_NOTE[1:] + "."
    if any(name.startswith(DISEASES) for name in evaluation.numbers):
        yield papers.DISEASES_NOTE[0].upper() + papers.DISEASES_NOTE[1:] + "."
    for note in about["notes"]:
        yield f"Note: {note}."


def noise(agreement: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences about how far the annotators agree with themselves."""
    if agreement["pairs"]:
        yield (
            f"{agreement['pairs']:,} pairs of photos of this truth have the same bytes: the annotators' counts differ by "
            f"{number(agreement['count_difference'], 1)} on average, their severity is the same for "
            f"{number(agreement['same_severity'], 2)}."
        )
    if known := agreement["known"]:
        yield (
            f"The annotators of {known['of']} counted {known['pairs']} pairs of equal photos twice: counts differ by "
            f"{known['count_difference']:.1f} on average, grades agree for {100 * known['same_severity']:.0f} %."
        )


def _threshold(error: Mapping[str, Any]) -> str:
    return f"{error['threshold']:g} (the scoring's)" if error["own"] else f"{error['threshold']:g}"


def _paper(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:.3f}" if name in figures else ""
