"""Compare the grades of the tables with the severity that people gave."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinbatch.evaluate.request import Judged
from skinbatch.evaluate.scoring_tables import ScoringTables
from skinbatch.evaluate.slices import SEVERITIES
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.grades import agreement, confusion

Bools = NDArray[np.bool_]


class Severities:
    """Judge the photos whose severity people gave.

    Grades are those of the tables, by the scoring's threshold and scheme; -1 for photos without a
    face.

    places: (n,) indices among the judged photos.
    """

    def __init__(self, judged: Judged, scored: ScoringTables) -> None:
        given = [
            (n, photo.severity)
            for n, photo in enumerate(judged.photos)
            if photo.severity is not None
        ]
        self.places = np.array([n for n, _ in given], np.int64)
        self._truth = np.array([severity for _, severity in given], np.int64)
        level = scored.numbers("grade_level", judged.rows[self.places])
        self._found = np.where(np.isnan(level), -1, level).astype(np.int64)
        self._groups = judged.groups_of(self.places)

    def measure(self, keep: Bools, how: Resampling) -> dict[str, Any]:
        """Return the numbers of some photos. keep: (n,) bool."""
        truth, predicted = self._truth[keep], self._found[keep]
        groups = None if self._groups is None else self._groups[keep]
        return {
            "photos": len(truth),
            "without_grade": int((predicted < 0).sum()),
            "grades": list(SEVERITIES),
            "confusion": confusion(truth, predicted, len(SEVERITIES)).tolist(),
            **agreement(truth, predicted, len(SEVERITIES), how, groups=groups),
        }
