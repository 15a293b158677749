"""Grading schemes: from lesion counts to a severity."""

from __future__ import annotations

from typing import Protocol

from skinbatch.grading.counting import Counts
from skinbatch.types import View


class Scheme(Protocol):
    """name: as in `grade_scheme`. grades: names by level, from 0."""

    @property
    def name(self) -> str: ...

    @property
    def grades(self) -> tuple[str, ...]: ...

    def level(self, counts: Counts, view: View) -> int:
        """Index into `grades`."""


class Hayashi:
    """Hayashi et al. 2008: inflammatory lesions (papules and pustules) of one half of the face.

    0-5 mild, 6-20 moderate, 21-50 severe, more very severe. A frontal photo shows both halves: the worse one decides.
    A half view shows one: all its lesions count.
    """

    name = "hayashi"
    grades = ("mild", "moderate", "severe", "very_severe")
    _most = (5, 20, 50)

    def level(self, counts: Counts, view: View) -> int:
        lesions = counts.total
        if view == "frontal" and counts.left is not None and counts.right is not None:
            lesions = max(counts.left, counts.right)
        return sum(lesions > most for most in self._most)


SCHEMES: dict[str, Scheme] = {"hayashi": Hayashi()}
"""By the name in [grading] scheme."""
