"""Turn lesion counts into a severity grade."""

from __future__ import annotations

from typing import Protocol

from skinbatch.grading.counting import Counts
from skinbatch.types import View


class Scheme(Protocol):
    """Describe a grading scheme. name: as in `grade_scheme`. grades: names by level, from 0."""

    @property
    def name(self) -> str: ...

    @property
    def grades(self) -> tuple[str, ...]: ...

    def level(self, counts: Counts, view: View) -> int:
        """Return the index into `grades`."""


class Hayashi:
    """Grade by Hayashi et al. 2008: inflammatory lesions of one half of the face.

    Inflammatory lesions are papules and pustules. 0-5 are mild, 6-20 moderate, 21-50 severe, more
    are very severe. A frontal photo shows both halves, and the worse one decides. A half view shows
    one, and all its lesions count, as do those of a close-up.
    """

    name = "hayashi"
    grades = ("mild", "moderate", "severe", "very_severe")
    _most = (5, 20, 50)

    def level(self, counts: Counts, view: View) -> int:
        lesions = counts.total
        if view == "frontal" and counts.left is not None and counts.right is not None:
            lesions = max(counts.left, counts.right)
        return sum(lesions > most for most in self._most)


def scheme_column(scheme: Scheme, view: View) -> str:
    """Return what `grade_scheme` says. A close-up is marked: its grade is by the lesions of a part of the face.

    Example:
        >>> scheme_column(SCHEMES["hayashi"], "closeup")
        'hayashi-closeup'
    """
    return f"{scheme.name}-closeup" if view == "closeup" else scheme.name


# Schemes by their name in `[grading] scheme`.
SCHEMES: dict[str, Scheme] = {"hayashi": Hayashi()}
