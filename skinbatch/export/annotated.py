"""Give out the boxes of a truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from skinbatch.annotations.annotated_photos import Truth
from skinbatch.errors import UsageError
from skinbatch.export.boxed import ExportedPhoto

NOT_ANNOTATED = "not annotated"


class AnnotatedBoxes:
    """Give out the photos of a truth whose boxes are annotated, including photos with none.

    Raises UsageError for a truth that has no boxes at all.
    """

    def __init__(self, truth: Truth) -> None:
        if all(photo.boxes is None for photo in truth.photos):
            raise UsageError(
                f"{truth.root}: has no boxes ({truth.format}); export annotations that have them"
            )
        self.class_names = truth.class_names
        self.complete = True
        self.left_out: Counter[str] = Counter()
        self.notes: tuple[str, ...] = ()
        self._truth = truth

    def photos(self) -> Iterator[ExportedPhoto]:
        for photo in self._truth.photos:
            if photo.boxes is None or photo.labels is None:
                self.left_out[NOT_ANNOTATED] += 1
            else:
                yield ExportedPhoto(
                    photo.name,
                    photo.width,
                    photo.height,
                    photo.boxes,
                    photo.labels,
                    difficult=photo.difficult,
                    crowd_boxes=photo.crowd_boxes,
                    crowd_labels=photo.crowd_labels,
                    not_kept=photo.not_kept,
                    swapped=len(photo.swapped),
                    address=f"{self._truth.root.resolve().name}/{photo.name}",
                )
