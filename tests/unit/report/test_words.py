"""Test that numbers and names of the tables become words."""

from __future__ import annotations

import pytest

from skinbatch.grading.schemes import ACNE04, HAYASHI, Scheme
from skinbatch.report.words import grades_of, lesions, plain


def test_one_lesion_is_not_plural() -> None:
    assert [lesions(count) for count in (0, 1, 2, 1234)] == [
        "0 lesions",
        "1 lesion",
        "2 lesions",
        "1,234 lesions",
    ]
    assert plain("very_severe") == "very severe"
    assert plain(None) == ""


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        (
            HAYASHI,
            "Grades by number of lesions: mild (0 to 5), moderate (6 to 20), severe (21 to 50), very severe (from 51). In a "
            "frontal photo, the worse half of the face is graded.",
        ),
        (
            ACNE04,
            "Grades by number of lesions: 0 (0 to 5), 1 (6 to 20), 2 (21 to 50), 3 (from 51).",
        ),
        (
            Scheme("own", ("none", "few", "many"), (0, 2), "whole", ("papule", "inflamed_cyst")),
            "Grades by number of lesions (papule, inflamed cyst): none (0), few (1 to 2), many (from 3).",
        ),
    ],
)
def test_a_scheme_is_told_by_its_counts(scheme: Scheme, words: str) -> None:
    assert grades_of(scheme) == words
