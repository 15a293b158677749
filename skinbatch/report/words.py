"""Put numbers and names of the tables into words for people."""

from __future__ import annotations

from skinbatch.grading.schemes import Scheme


def lesions(count: float) -> str:
    """Return a number of lesions in words.

    >>> lesions(1), lesions(5)
    ('1 lesion', '5 lesions')
    """
    return f"{count:,.0f} lesion{'' if count == 1 else 's'}"


def plain(name: str | None) -> str:
    """Return the name of a grade or class without underscores."""
    return (name or "").replace("_", " ")


def grades_of(scheme: Scheme) -> str:
    """Return how a scheme grades, in sentences.

    >>> grades_of(Scheme("trial", ("clear", "mild", "severe"), (0, 10), area="whole"))
    'Grades by number of lesions: clear (0), mild (1 to 10), severe (from 11).'
    """
    grades: list[str] = []
    lowest = 0
    for name, highest in zip(scheme.grades, scheme.upper, strict=False):
        span = f"{lowest}" if highest == lowest else f"{lowest} to {highest}"
        grades.append(f"{plain(name)} ({span})")
        lowest = highest + 1
    grades.append(f"{plain(scheme.grades[-1])} (from {lowest})")

    kinds = "" if scheme.classes is None else f" ({', '.join(map(plain, scheme.classes))})"
    sentence = f"Grades by number of lesions{kinds}: {', '.join(grades)}."
    if scheme.area == "half":
        sentence += " In a frontal photo, the worse half of the face is graded."
    return sentence
