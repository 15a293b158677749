"""Judge several scorings by the same photos of one truth: `skinbatch compare --truth`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.pairing import pair_photos
from skinbatch.annotations.read import read_truth
from skinbatch.errors import UsageError
from skinbatch.evaluate.evaluation import DISEASES, GRADES, LESIONS, REGIONS, Evaluation, evaluate
from skinbatch.evaluate.lesions import ALL
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.metrics.bootstrap import Estimate
from skinbatch.metrics.classification import MEAN
from skinbatch.metrics.side_by_side import Number, SideBySide
from skinbatch.runs.results import open_results
from skinbatch.storage.store import Store
from skinbatch.types import Status

# Photos that a note names.
_SHOWN = 5


def side_by_side(
    scorings: Sequence[tuple[Store, str | None]],
    request: EvaluationRequest,
    phase: Callable[[str], None] = lambda text: None,
) -> SideBySide:
    """Judge scorings by the annotated photos that all of them have scored.

    Args:
        scorings: destinations, each with the fingerprint of a scoring or None for its newest.
        request: the truth and the settings of the evaluation.
        phase: called with a line of text at each step.

    Returns:
        One number of each kind for each scoring, with intervals from the same resamples.

    Raises:
        UsageError: no photo was scored by all, or `evaluate` raises it for one of them.
    """
    phase(f"reading {request.truth}")
    truth = read_truth(request.truth, request.format, photos=request.photos)
    photos = [photo for photo in truth.photos if photo.is_annotated]
    judged = [_judged(store, fingerprint, photos) for store, fingerprint in scorings]
    common = frozenset.intersection(*(frozenset(names) for names in judged))
    if not common:
        raise UsageError(
            f"--truth {request.truth}: no photo of it was scored by all of the {len(scorings)} scorings"
        )

    evaluations = []
    for store, fingerprint in scorings:
        one = replace(request, scoring=fingerprint, only=common, sliced=False)
        evaluations.append(evaluate(store, one, phase))

    judged_photos = {names[image_id] for names in judged for image_id in common}
    left_out = [photo.name for photo in photos if photo.name not in judged_photos]
    notes = list(dict.fromkeys(note for each in evaluations for note in each.about["notes"]))
    if left_out:
        shown = ", ".join(left_out[:_SHOWN]) + (", …" if len(left_out) > _SHOWN else "")
        notes.append(
            f"{len(left_out):,} of {len(photos):,} annotated photos are not judged, because not every scoring has a "
            f"result for them: {shown}"
        )
    return SideBySide(
        truth=str(request.truth),
        photos=int(evaluations[0].about["photos"]["judged"]),
        over=str(evaluations[0].about["bootstrap"]["over"]),
        numbers=tuple(_numbers(evaluations)),
        notes=tuple(notes),
    )


def _judged(
    store: Store, fingerprint: str | None, photos: Sequence[AnnotatedPhoto]
) -> dict[str, str]:
    """Return image_id -> name in the truth, of the photos that were scored and are annotated."""
    table = open_results(store, fingerprint).images(["image_id", "uri", "status"])
    image_ids, uris, statuses = (
        table.column(name).to_pylist() for name in ("image_id", "uri", "status")
    )
    pairs = pair_photos(photos, image_ids, uris)
    return {
        image_ids[row]: photos[n].name
        for n, row in zip(pairs.truth.tolist(), pairs.rows.tolist(), strict=True)
        if statuses[row] == Status.OK
    }


def _numbers(evaluations: Sequence[Evaluation]) -> list[Number]:
    """Return the numbers that at least one scoring has, in a fixed order."""
    each = [_of(evaluation) for evaluation in evaluations]
    names = dict.fromkeys(name for numbers in each for name in numbers)
    undefined = Estimate(float("nan"))
    return [
        Number(
            name,
            2 if name.startswith("count") else 3,
            tuple(numbers.get(name, undefined) for numbers in each),
        )
        for name in names
    ]


def _of(evaluation: Evaluation) -> dict[str, Estimate]:
    """Return the main numbers of one scoring by name."""
    numbers: dict[str, Estimate] = {}
    parts = evaluation.numbers
    if LESIONS in parts:
        best = next(iter(parts[LESIONS]["detection"][ALL].values()))
        numbers |= {"AP50": best["ap50"], "AP": best["ap"], "AR": best["ar"]}
        own: Mapping[str, Any] = next(
            error for error in parts[LESIONS]["count_error"] if error["own"]
        )
        numbers |= {"count MAE": own["mae"], "count bias": own["mean"]}
    if GRADES in parts:
        numbers |= {
            "grade accuracy": parts[GRADES]["accuracy"],
            "grade quadratic kappa": parts[GRADES]["quadratic_kappa"],
        }
    if REGIONS in parts:
        numbers |= {
            f"Dice {name}": region["dice"] for name, region in parts[REGIONS]["classes"].items()
        }
    for name, part in parts.items():
        if name.startswith(DISEASES):
            mean = part["classes"][MEAN]
            numbers |= {
                f"{part['head']} recall": mean["recall"],
                f"{part['head']} AUC": mean["auc"],
            }
    return numbers
