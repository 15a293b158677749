"""Turn lesion counts into a severity grade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skinbatch.grading.counting import Counts
from skinbatch.types import View

Ints = NDArray[np.int64]

# What a scheme counts in a frontal photo: the worse half of the face, or the whole face.
Area = Literal["half", "whole"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """Describe a grading scheme by counts.

    name: as in `grade_scheme`. grades: names by level, from 0. upper: the highest count of each
    grade but the last, rising. area: `half` takes the worse half of a frontal face, `whole` takes
    all lesions; a half view shows one half and a close-up a part, and all their lesions count. classes: the detector's
    classes that are graded; None: all of them.

    Raises ValueError if grades and upper do not belong together.
    """

    name: str
    grades: tuple[str, ...]
    upper: tuple[int, ...]
    area: Area = "half"
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.grades) != len(self.upper) + 1:
            raise ValueError(
                f"scheme {self.name!r}: {len(self.grades)} grades need {len(self.grades) - 1} upper "
                f"counts, and there are {len(self.upper)}"
            )
        if any(b <= a for a, b in zip(self.upper, self.upper[1:], strict=False)):
            raise ValueError(f"scheme {self.name!r}: upper counts have to rise: {self.upper}")

    def level(self, counts: Counts, view: View) -> int:
        """Return the index into `grades` for one photo."""
        lesions = counts.total
        if self.area == "half" and view == "frontal" and None not in (counts.left, counts.right):
            lesions = max(counts.left or 0, counts.right or 0)
        return sum(lesions > most for most in self.upper)

    def levels(self, total: Ints, left: Ints, right: Ints, halves: NDArray[np.bool_]) -> Ints:
        """Return (P,) indices into `grades`.

        total, left, right: (P,) lesions. halves: (P,) whether the photo is frontal and has both
        half-face counts.
        """
        lesions = total
        if self.area == "half":
            lesions = np.where(halves, np.maximum(left, right), total)
        return np.searchsorted(np.asarray(self.upper, np.int64), lesions, side="left").astype(
            np.int64
        )


# Hayashi et al., J. Dermatol. 35 (2008) 255-260: inflammatory lesions (papules and pustules) of
# one half of the face.
HAYASHI = Scheme("hayashi", ("mild", "moderate", "severe", "very_severe"), (5, 20, 50))

# Wu et al., ICCV 2019: the four severities of ACNE04, by all lesions that the photo shows.
ACNE04 = Scheme("acne04", ("0", "1", "2", "3"), (5, 20, 50), area="whole")

# Five levels named like the Investigator's Global Assessment. The real IGA is a judgement of the
# whole face by a physician. This scheme puts counts into bins, Hayashi's with a level for clear skin.
IGA_LIKE = Scheme(
    "iga-like",
    ("clear", "almost_clear", "mild", "moderate", "severe"),
    (0, 5, 20, 50),
    area="whole",
)


def scheme_column(scheme: Scheme, view: View) -> str:
    """Return the content of the column `grade_scheme`.

    A close-up is marked, as its grade is by the lesions of a part of the face.

    Example:
        >>> scheme_column(SCHEMES["hayashi"], "closeup")
        'hayashi-closeup'
    """
    return f"{scheme.name}-closeup" if view == "closeup" else scheme.name


# Schemes by their name in `[grading] scheme`.
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (HAYASHI, ACNE04, IGA_LIKE)}
