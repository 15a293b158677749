"""Describe how two scorings of the same photos differ."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skinbatch.report.column_arrays import Floats

# Names of the compared scorings.
LETTERS = string.ascii_uppercase


@dataclass(frozen=True, slots=True)
class Changed:
    """Name a photo that changed. before, after: count and grade, or status, in words."""

    image_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Hold how two scorings of the same photos differ.

    a, b: what was compared, in words. photos: that both have. only_a, only_b: photos that one has.
    drift: share of the common photos whose status, face or grade differs. same_grade: share, and
    quadratic_kappa, of the photos with a grade in both. confusion: rows are grades of A, columns of
    B. count_bias, count_low, count_high: mean of B minus A and its limits of agreement (mean +/-
    1.96 standard deviations; Bland, Altman, Lancet 327 (1986) 307-310). boxes_a, boxes_b,
    boxes_same: counted boxes, and those of A that B has too, by IoU 0.5. box_agreement: boxes_same
    as a share of the mean of boxes_a and boxes_b. intervals: name of a number -> the ends of its 95 %
    bootstrap interval, NaN where it is undefined. over: what is resampled, photos or groups. notes:
    what a reader should know, such as how much of a scoring is missing.
    """

    a: str
    b: str
    photos: int
    only_a: int
    only_b: int
    drift: float
    same_grade: float
    quadratic_kappa: float
    grades: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    count_bias: float
    count_low: float
    count_high: float
    boxes_a: int
    boxes_b: int
    boxes_same: int
    box_agreement: float
    intervals: Mapping[str, tuple[float, float]]
    over: str
    changed: tuple[Changed, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain values; an undefined number is None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Compared:
    """Hold a comparison and what its page draws. counts: (P, 2) of A and B, NaN without a count."""

    comparison: Comparison
    counts: Floats


def _plain(value: Any) -> Any:
    if isinstance(value, float) and np.isnan(value):
        return None
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
