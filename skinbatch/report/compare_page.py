"""Show comparisons of scorings as text and as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skinbatch.metrics.side_by_side import SideBySide
from skinbatch.report import svg
from skinbatch.report.comparison import LETTERS, Compared, Comparison
from skinbatch.report.page import render
from skinbatch.runs import destination


def as_text(comparisons: Sequence[Comparison], judged: SideBySide | None = None) -> str:
    """Return comparisons with the first scoring as text. judged: all of them against a truth."""
    scorings = [comparisons[0].a, *(c.b for c in comparisons)]
    lines = [f"{letter}  {scoring}" for letter, scoring in zip(LETTERS, scorings, strict=False)]
    if judged is not None:
        lines += ["", judged.as_text(LETTERS[: len(scorings)]), ""]

    for b, c in zip(LETTERS[1:], comparisons, strict=False):
        boxes = f"{c.boxes_same:,} of {c.boxes_a:,} in A are in {b}, which has {c.boxes_b - c.boxes_same:,} others"
        agreement = f"box agreement {c.box_agreement:.3f}{_ends(c, 'box_agreement')}"
        limits = f"95 % between {c.count_low:+.2f} and {c.count_high:+.2f}"
        if len(comparisons) > 1:
            lines.append(f"{b} compared with A")
        lines += [
            f"  photos  {c.photos:,} in both, {c.only_a:,} only in A, {c.only_b:,} only in {b}",
            f"  drift   {c.drift:.3f}{_ends(c, 'drift')} of them have a different status, face or grade",
            f"  grades  {c.same_grade:.3f}{_ends(c, 'same_grade')} the same, quadratic kappa "
            f"{c.quadratic_kappa:.3f}{_ends(c, 'quadratic_kappa')}",
            f"  counts  {b} - A {c.count_bias:+.2f}{_ends(c, 'count_bias', 2)} on average, {limits}",
            f"  boxes   {boxes}; {agreement}",
        ]
        lines += [
            f"  {photo.image_id}: {photo.before} -> {photo.after}" for photo in c.changed[:10]
        ]
    lines.append(
        f"In brackets: 95 % percentile intervals of bootstrap samples of {comparisons[0].over}."
    )
    lines += [f"Note: {note}." for note in _notes(comparisons)]
    return "\n".join(lines)


def _notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the notes of all comparisons, each once."""
    return list(dict.fromkeys(note for c in comparisons for note in c.notes))


def _ends(c: Comparison, name: str, digits: int = 3) -> str:
    low, high = c.intervals[name]
    return "" if np.isnan(low) else f" ({low:.{digits}f} to {high:.{digits}f})"


def compare_page(
    compared: Sequence[Compared], *, version: str, judged: SideBySide | None = None
) -> str:
    """Return comparisons with the first scoring as one HTML page.

    compared: of B, C and so on with A. judged: all of them against a truth.
    """
    shown = [
        {"letter": letter, "c": each.comparison, "plots": _plots(each, letter)}
        for letter, each in zip(LETTERS[1:], compared, strict=False)
    ]
    return render(
        "compare.html.j2",
        shown=shown,
        notes=_notes([each.comparison for each in compared]),
        judged=judged,
        letters=LETTERS,
        version=version,
        made=destination.now(),
    )


def _plots(compared: Compared, letter: str) -> list[str]:
    counts = compared.counts[~np.isnan(compared.counts).any(axis=1)]
    c = compared.comparison
    if not len(counts):
        return []
    lines = {c.count_bias: "mean", c.count_low: "-1.96 sd", c.count_high: "+1.96 sd"}
    return [
        svg.scatter(
            counts.mean(axis=1),
            counts[:, 1] - counts[:, 0],
            "Counts (Bland-Altman)",
            f"mean of A and {letter}",
            f"{letter} - A",
            lines,
        ),
        svg.scatter(counts[:, 0], counts[:, 1], "Counts", "A", letter, diagonal=True),
    ]
