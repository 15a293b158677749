"""Compare found lesions with those that people drew: boxes and counts."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.displayed import SAME_SHAPE
from skinbatch.errors import UsageError
from skinbatch.evaluate.counted import counts_at
from skinbatch.evaluate.request import EvaluationRequest, Judged
from skinbatch.evaluate.scoring_tables import ScoringTables, spelled
from skinbatch.metrics.bootstrap import Resampling, bootstrap
from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.counts import count_error
from skinbatch.metrics.detection import COCO_MOST, MOST, Curves, Matches, curves, detection, match
from skinbatch.metrics.verdicts import SAME_LESION, PhotoVerdict, judge
from skinbatch.tables.names import composed

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# Two sets of boxes are judged: every box that was kept, and those that the pipeline would count,
# because their centre is on the face's skin. The true boxes are the same in both. A true box off
# the skin therefore counts as missed in the second.
ALL, ON_SKIN = "all boxes", "on the skin"
MERGED = "all classes"
# Label of a class that is mapped to none of the model's classes.
_NONE = -2
_GRID = np.arange(0.01, 0.996, 0.01).round(2)


class Lesions:
    """Judge the photos whose boxes people drew.

    A photo without a face has no boxes, and counts as one where nothing was found.

    places: (n,) indices among the judged photos.
    """

    def __init__(self, judged: Judged, scored: ScoringTables, request: EvaluationRequest) -> None:
        self.unusable: list[str] = []
        self._scale = self._scales(judged, scored)
        self.places = np.array(sorted(self._scale), np.int64)
        self._groups = judged.groups_of(self.places)
        rows = judged.rows[self.places]
        predicted = scored.boxes(rows)
        self.predicted_boxes, on_skin = predicted.boxes, predicted.on_skin
        self.image_ids = [judged.image_ids[n] for n in self.places]
        model = [spelled(composed(name)) for name in predicted.classes]
        self.unknown: Counter[str] = Counter()
        self._read_truth(judged, request, model)
        regions = {ALL: self.predicted_boxes, ON_SKIN: self.predicted_boxes.only(on_skin)}
        self._merged = {
            region: match(self.truth, boxes, self._crowds) for region, boxes in regions.items()
        }
        shared = [k for k in range(len(model)) if (self.truth.label == k).any()]
        # If both sides have one class, its numbers are the merged ones.
        several = len(model) > 1 or bool(self.unknown) or bool((self._crowds.label == -1).any())
        self._by_class = {
            region: {
                model[k]: match(*(b.only(b.label == k) for b in (self.truth, boxes, self._crowds)))
                for k in shared
            }
            for region, boxes in regions.items()
            if several
        }
        self.true_counts = self.truth.per_photo()
        own = scored.numbers("count_total", rows)
        self.own_threshold = scored.threshold
        self.own_counts = np.where(np.isnan(own), 0, own).astype(np.int64)
        self._counted = self.predicted_boxes.only(
            on_skin & (self.predicted_boxes.score >= self.own_threshold)
        )
        self._verdicts = judge(self.truth, self._counted, self._crowds)
        method = scored.graded_by.counting
        self.thresholds = tuple(sorted(set(request.thresholds)))
        self.counts = counts_at(predicted, self.thresholds, method)
        # Below the lowest score nothing changes. Connected components are too slow to count ninety
        # times.
        grid = (
            _GRID[self.predicted_boxes.score.min(initial=1.0) <= _GRID]
            if method == "boxes"
            else self.thresholds
        )
        self.grid = np.unique([*grid, self.own_threshold])
        self.grid_counts = counts_at(predicted, self.grid.tolist(), method)

    def measure(self, keep: Bools, how: Resampling) -> dict[str, Any]:
        """Return the numbers of some photos. keep: (n,) bool."""
        groups = None if self._groups is None else self._groups[keep]
        merged = {
            region: self._detection({MERGED: m}, keep, how, groups)
            for region, m in self._merged.items()
        }
        by_class = {
            region: self._detection(m, keep, how, groups)
            for region, m in self._by_class.items()
            if m
        }
        errors = [
            {"threshold": t, "own": False}
            | count_error(self.true_counts[keep], self.counts[keep, k], how, groups=groups)
            for k, t in enumerate(self.thresholds)
        ]
        own = count_error(self.true_counts[keep], self.own_counts[keep], how, groups=groups)
        return {
            "photos": int(keep.sum()),
            "true_boxes": int(self.true_counts[keep].sum()),
            "boxes": int(self.predicted_boxes.per_photo()[keep].sum()),
            "detection": {
                region: {most: of[MERGED] for most, of in caps.items()}
                for region, caps in merged.items()
            },
            "detection_by_class": by_class,
            "count_error": [*errors, {"threshold": self.own_threshold, "own": True} | own],
            "counted": self._of_counted(keep, how, groups),
        }

    def by_photo(self) -> list[PhotoVerdict]:
        """Return the right, false and missed boxes of each photo, as counted by the grading."""
        right = self._verdicts.right
        false, taken = ~right & ~self._verdicts.ignored, self._verdicts.taken
        photos = np.arange(len(self.places) + 1)
        starts = np.searchsorted(self._counted.photo, photos)
        starts_of_truth = np.searchsorted(self.truth.photo, photos)

        verdicts = []
        for n, image_id in enumerate(self.image_ids):
            mine = slice(starts[n], starts[n + 1])
            theirs = slice(starts_of_truth[n], starts_of_truth[n + 1])
            boxes, true_boxes = self._counted.xyxy[mine], self.truth.xyxy[theirs]
            verdicts.append(
                PhotoVerdict(
                    image_id,
                    int(self.own_counts[n]),
                    right=boxes[right[mine]],
                    false=boxes[false[mine]],
                    found=true_boxes[taken[theirs]],
                    missed=true_boxes[~taken[theirs]],
                )
            )
        return verdicts

    def curves(self) -> dict[str, Curves]:
        """Return precision over recall of all photos, with classes merged."""
        return {region: curves(matches) for region, matches in self._merged.items()}

    def _of_counted(self, keep: Bools, how: Resampling, groups: Ints | None) -> dict[str, Any]:
        """Return how many counted boxes are right, false and missed, with precision and recall."""
        right = self._verdicts.right
        false = ~right & ~self._verdicts.ignored
        photos = len(self.places)
        parts = np.stack(
            [
                np.bincount(self._counted.photo[right], minlength=photos)[keep],
                np.bincount(self._counted.photo[false], minlength=photos)[keep],
                self.true_counts[keep],
            ],
            axis=1,
        ).astype(np.float64)

        def shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.stack(
                    [sums[:, 0] / (sums[:, 0] + sums[:, 1]), sums[:, 0] / sums[:, 2]], axis=1
                )

        precision, recall = bootstrap(parts, shares, how, groups=groups)
        hits, wrong, true = (int(total) for total in parts.sum(axis=0))
        return {
            "iou": SAME_LESION,
            "right": hits,
            "false": wrong,
            "missed": true - hits,
            "precision": precision,
            "recall": recall,
        }

    def _detection(
        self, matches: dict[str, Matches], keep: Bools, how: Resampling, groups: Ints | None
    ) -> dict[str, dict[str, Any]]:
        """Return the numbers of each class for each number of boxes considered in a photo."""
        kept = {name: m.of_photos(keep) for name, m in matches.items()}
        by_most = {
            str(MOST): detection(
                {name: m.most(MOST) for name, m in kept.items()}, how, groups=groups
            )
        }
        if any((m.rank >= COCO_MOST).any() for m in kept.values()):
            by_most[str(COCO_MOST)] = detection(
                {name: m.most(COCO_MOST) for name, m in kept.items()}, how, groups=groups
            )
        else:
            by_most[str(COCO_MOST)] = by_most[str(MOST)]
        return by_most

    def _scales(self, judged: Judged, scored: ScoringTables) -> dict[int, NDArray[np.float32]]:
        """Return, for photos that were annotated at another size, (4,) factors for their boxes.

        Photos that were annotated in another shape are unusable.
        """
        widths, heights = (scored.numbers(side, judged.rows) for side in ("width", "height"))
        scales = {}
        for n, photo in enumerate(judged.photos):
            if photo.boxes is None:
                continue
            x, y = widths[n] / (photo.width or widths[n]), heights[n] / (photo.height or heights[n])
            if abs(x / y - 1) > SAME_SHAPE:
                self.unusable.append(photo.name)
            else:
                scales[n] = np.array([x, y, x, y], np.float32)
        if not scales:
            raise UsageError(
                f"{scored.uri}: none of the truth's photos with boxes has the shape of the scored one, such as "
                f"{self.unusable[0]}; give the truth of these photos"
            )
        return scales

    def _read_truth(self, judged: Judged, request: EvaluationRequest, model: Sequence[str]) -> None:
        """Read the true boxes; labels are indices of the model's classes, -1 for others.

        Empty boxes cannot be found and are left out, as are those whose class is mapped to none.
        Crowd regions are treated alike, but are no boxes.
        """
        number = {name: k for k, name in enumerate(model)}

        @functools.cache
        def meaning(name: str) -> int:
            meant = request.renamed(name)
            return _NONE if meant is None else number.get(meant, -1)

        true, crowds = [], []
        for n in self.places:
            photo, scale = judged.photos[n], self._scale[int(n)]
            assert photo.boxes is not None
            labels = (
                np.full(len(photo.boxes), -1)
                if photo.labels is None
                else _of(meaning, photo.labels)
            )
            self.unknown.update(name for name in photo.labels or () if meaning(name) == -1)
            regions = (
                photo.crowd_boxes if photo.crowd_boxes is not None else np.zeros((0, 4), np.float32)
            )
            usable, usable_regions = _usable(photo.boxes), _usable(regions)
            if not usable.all() or not usable_regions.all():
                self.unusable.append(photo.name)
            true.append(_those(photo.boxes * scale, labels, usable))
            crowds.append(_those(regions * scale, _of(meaning, photo.crowd_labels), usable_regions))
        self.truth, self._crowds = (
            Boxes.stack([boxes for boxes, _ in each], labels=[labels for _, labels in each])
            for each in (true, crowds)
        )


def _of(meaning: Callable[[str], int], names: Sequence[str]) -> Ints:
    return np.array([meaning(name) for name in names], np.int64)


def _usable(boxes: NDArray[np.float32]) -> Bools:
    return np.asarray(
        np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1), np.bool_
    )


def _those(
    boxes: NDArray[np.float32], labels: Ints, usable: Bools
) -> tuple[NDArray[np.float32], Ints]:
    """Return the usable boxes whose class is not mapped to none."""
    keep = usable & (labels != _NONE)
    return boxes[keep], labels[keep]
