"""Follow the counts and grades of each face over time: `skinbatch series` (paper 003, monitoring)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from skinbatch.errors import UsageError
from skinbatch.report import svg
from skinbatch.report.page import render
from skinbatch.report.words import lesions, plain
from skinbatch.runs import destination
from skinbatch.runs.results import Results
from skinbatch.runs.status import unfinished
from skinbatch.tables.names import META_PREFIX, closest, safe_text, similar

# Subjects that a page draws; those with most photos come first.
DRAWN = 200

_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Visit:
    """Hold one photo of a series. time: as the source spells it. Counts and grade are None without a face."""

    time: str
    image_id: str
    status: str
    count_total: int | None
    grade: str | None
    grade_level: int | None
    view: str | None


@dataclass(frozen=True, slots=True)
class Subject:
    """Hold the photos of one face, by rising time."""

    name: str
    visits: tuple[Visit, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Hold the series of all subjects.

    unmatched: photos without a subject or time. notes: what a reader should know, such as how much
    of the scoring is missing.
    """

    subjects: tuple[Subject, ...]
    unmatched: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_series(results: Results, subject: str, time: str) -> Series:
    """Return the photos of each subject in order of time.

    Args:
        results: of a destination, by any grading.
        subject: name of a column, such as `meta_subject`, or of its field in the source, such as
            `subject`; or a regular expression over image_id whose first group, or else whole match,
            is the subject.
        time: the same for the time. Numbers and ISO dates are sorted by value; other texts by
            letters.

    Raises:
        UsageError: a column does not exist, a regular expression is wrong, or no photo has both.
    """
    table = results.images()
    subject_of = _reader(subject, "--subject", table.column_names)
    time_of = _reader(time, "--time", table.column_names)

    by_subject: dict[str, list[Visit]] = {}
    unmatched = []
    for row in table.to_pylist():
        who, when = subject_of(row), time_of(row)
        if who is None or when is None:
            unmatched.append(row["image_id"])
            continue
        visit = Visit(
            when,
            *(
                row[name]
                for name in ("image_id", "status", "count_total", "grade", "grade_level", "view")
            ),
        )
        by_subject.setdefault(who, []).append(visit)

    if not by_subject:
        names = ", ".join(repr(name) for name in unmatched[:_NAMES_SHOWN])
        hints = "".join(_similar_columns(text, table.column_names) for text in (subject, time))
        raise UsageError(
            f"no photo has a subject by {subject!r} and a time by {time!r}; photos have names such as {names}{hints}"
        )
    key = _order([visit.time for visits in by_subject.values() for visit in visits])
    subjects = (
        Subject(name, tuple(sorted(visits, key=lambda visit: (key(visit.time), visit.image_id))))
        for name, visits in by_subject.items()
    )
    missing = unfinished(results)
    notes = () if missing is None else (missing,)
    return Series(
        tuple(sorted(subjects, key=lambda s: (-len(s.visits), s.name))), tuple(unmatched), notes
    )


def _reader(
    text: str, option: str, columns: list[str]
) -> Callable[[Mapping[str, Any]], str | None]:
    """Return a function from a row to its subject or time."""
    column = next((name for name in (text, META_PREFIX + safe_text(text)) if name in columns), None)
    if column is not None:
        return lambda row: None if row[column] is None else str(row[column])
    if text.startswith(META_PREFIX):
        fields = [name for name in columns if name.startswith(META_PREFIX)]
        raise UsageError(f"{option}: there is no column {text!r}{closest(text, fields)}")
    try:
        pattern = re.compile(text)
    except re.error as e:
        raise UsageError(
            f"{option}: {text!r} is neither a column nor a regular expression: {e}"
        ) from None

    def matched(row: Mapping[str, Any]) -> str | None:
        match = pattern.search(row["image_id"])
        if match is None:
            return None
        return match[1] if pattern.groups else match[0]

    return matched


def _similar_columns(text: str, columns: list[str]) -> str:
    """Return the end of a message about a text that may be a misspelled column."""
    names = similar(text, columns) if text.isidentifier() else []
    return f"; columns similar to {text!r}: {', '.join(names)}" if names else ""


def _order(times: list[str]) -> Callable[[str], Any]:
    """Return how times are sorted: as numbers or dates if all of them are, else as text."""
    for parse in (float, lambda text: datetime.fromisoformat(text).replace(tzinfo=None)):
        try:
            for time in times:
                parse(time)
        except ValueError:
            continue
        return parse
    return str


def as_text(series: Series) -> str:
    """Return one line for each photo, subject by subject."""
    lines = []
    for subject in series.subjects:
        lines.append(
            f"{subject.name}: {len(subject.visits)} photo{'s' if len(subject.visits) != 1 else ''}"
        )
        lines += [f"  {visit.time}  {_words(visit)}  {visit.image_id}" for visit in subject.visits]
    if series.unmatched:
        shown = ", ".join(series.unmatched[:_NAMES_SHOWN])
        more = " …" if len(series.unmatched) > _NAMES_SHOWN else ""
        lines.append(f"without subject or time: {len(series.unmatched)} ({shown}{more})")
    lines += [f"Note: {note}." for note in series.notes]
    return "\n".join(lines)


def _words(visit: Visit) -> str:
    if visit.status != "ok":
        return visit.status
    if visit.count_total is None:
        return "no face"
    return f"{lesions(visit.count_total)}, {plain(visit.grade)}, {visit.view}"


def series_page(series: Series, results: Results, *, version: str) -> str:
    """Return the series as one HTML page, with a plot for each subject."""
    key = _order([visit.time for subject in series.subjects for visit in subject.visits])
    subjects = [
        {
            "name": subject.name,
            "plot": _plot(subject, key),
            "visits": [(v.time, _words(v), v.image_id) for v in subject.visits],
        }
        for subject in series.subjects[:DRAWN]
    ]
    return render(
        "series.html.j2",
        dest=results.store.uri,
        subjects=subjects,
        total=len(series.subjects),
        unmatched=len(series.unmatched),
        notes=series.notes,
        version=version,
        made=destination.now(),
    )


def _plot(subject: Subject, key: Callable[[str], Any]) -> str:
    """Return the counts over the visits, and the grades where they change.

    key: how times are sorted. Visits are placed by number or date, or equally spaced by other times.
    """
    times = [visit.time.strip() for visit in subject.visits]
    counts = [
        float("nan") if visit.count_total is None else float(visit.count_total)
        for visit in subject.visits
    ]
    grades = [plain(visit.grade) for visit in subject.visits]

    moments = [key(time) for time in times]
    places: list[float] | None = None
    if all(isinstance(moment, datetime) for moment in moments):
        places = [(moment - moments[0]).total_seconds() for moment in moments]
        times = [moment.date().isoformat() for moment in moments]
    elif all(isinstance(moment, float) for moment in moments):
        places = moments
    return svg.steps(times, counts, grades, "Lesions", "lesions", places)
