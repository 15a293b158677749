"""Turn detections on a face into everything that a row holds about lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skinbatch.config import GradingSettings
from skinbatch.grading.counting import count_lesions, mark_boxes
from skinbatch.grading.face import Face
from skinbatch.grading.schemes import SCHEMES, scheme_column
from skinbatch.types import Detections, GradedBox, View


@dataclass(frozen=True, slots=True)
class Graded:
    """Hold the lesion fields of ImageResult, under the same names.

    Without a face, all of them are None and there are no boxes.
    """

    view: View | None = None
    count_total: int | None = None
    count_left: int | None = None
    count_right: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    saturated: bool | None = None
    grade: str | None = None
    grade_level: int | None = None
    grade_scheme: str | None = None
    boxes: tuple[GradedBox, ...] = ()


def grade(
    detections: Detections,
    detector_classes: Sequence[str],
    face: Face,
    settings: GradingSettings,
    threshold: float,
) -> Graded:
    """Mark, count and grade the detections of one photo.

    Args:
        detections: pixels of the displayed original, clipped to it.
        settings: `view` set to frontal applies only to faces with a nose. Without one there are no
            halves to compare, and the view is half.
        threshold: the pack's, used if the settings have none.
    """
    if not face.found:
        return Graded(view=face.view)
    view = face.view if settings.view == "auto" or face.nose is None else settings.view
    assert view is not None
    chosen = threshold if settings.threshold is None else settings.threshold
    boxes = mark_boxes(detections, detector_classes, face, chosen)
    counts = count_lesions(boxes, detector_classes, settings.counting, nose=face.nose is not None)
    scheme = SCHEMES[settings.scheme]
    level = scheme.level(counts, view)
    return Graded(
        view=view,
        count_total=counts.total,
        count_left=counts.left,
        count_right=counts.right,
        counts=counts.by_class,
        saturated=detections.saturated,
        grade=scheme.grades[level],
        grade_level=level,
        grade_scheme=scheme_column(scheme, view),
        boxes=boxes,
    )
