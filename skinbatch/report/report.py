"""Make a report of a scoring: one HTML file that opens from disk, `skinbatch report`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from skinbatch.annotations.grouping import Grouping
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.grading.counting import Method
from skinbatch.report import svg
from skinbatch.report.against import Judgement, against
from skinbatch.report.gallery import Thumbnail, thumbnails
from skinbatch.report.group_figures import group_figures
from skinbatch.report.lookalikes import LookAlikes, find_lookalikes
from skinbatch.report.page import render
from skinbatch.report.run_history import PARTS, RunHistory, read_history
from skinbatch.report.summary import LISTED, Summary, WorthALook, also
from skinbatch.report.tally import gather
from skinbatch.report.words import grades_of, lesions, plain
from skinbatch.runs import destination
from skinbatch.runs.destination import Scoring
from skinbatch.runs.gradings import Grading, describe
from skinbatch.runs.results import Results
from skinbatch.runs.status import unfinished

# What each counting method counts.
_COUNTED: Mapping[Method, str] = {
    "boxes": "Boxes on the skin",
    "components": "Connected areas of boxes on the skin",
}

# Histograms of the page: column -> title, unit, marks.
_HISTOGRAMS: Mapping[str, tuple[str, str, Mapping[float, str]]] = {
    "count_total": ("Lesions", "lesions on a photo", {}),
    "skin_fraction": ("Skin", "share of the photo", {}),
    "ita_degrees": (
        "Skin tone (ITA)",
        "degrees; dark skin left, light skin right",
        {-30.0: "brown", 10.0: "tan", 41.0: "light"},
    ),
    "sharpness": ("Sharpness", "variance of the Laplacian", {}),
    "brightness": ("Brightness", "0 (black) to 255 (white)", {}),
}


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Describe a report.

    thumbnails: most photos that are shown; 0 shows none, as faces are personal data. version: of
    skinbatch. group: how photos of one person are known; numbers then also have intervals over
    persons. look_alikes: also find photos that look the same, for which all are read again.
    judgement: how the scoring agrees with a truth.
    """

    thumbnails: int = 0
    version: str = ""
    group: Grouping | None = None
    look_alikes: bool = False
    judgement: Judgement | None = None


def make_report(
    results: Results,
    request: ReportRequest,
    config: Config,
    progress: Callable[[str], None] = lambda text: None,
) -> str:
    """Return a report as one HTML page without any reference to another file.

    Args:
        results: of a destination, by any grading.
        config: how the source is reached, for thumbnails and look-alikes.
        progress: called with a line of text at each step.

    Raises:
        UsageError: nothing has been scored yet.
    """
    scoring = destination.read_scoring(results.store, results.fingerprint)
    assert scoring is not None, "the results are of this scoring"
    # A wrong --group ends the report before the tables are read.
    groups = None if request.group is None else group_figures(results, request.group)
    grading = results.graded_by
    findings = gather(
        results,
        scoring,
        grading.scheme,
        grading.threshold,
        lambda photos: progress(f"{photos:,} photos read") if photos % 10_000 < 512 else None,
    )
    if not findings.photos:
        raise UsageError(
            f"{results.store.uri}: nothing has been scored yet, so there is nothing to report"
        )

    lists = list(findings.lists)
    if request.look_alikes:
        lists.append(_look_alikes(find_lookalikes(results, config, progress)))
    truth = None
    if request.judgement is not None:
        truth = against(results, request.judgement, request.thumbnails, config, progress)

    progress("drawing")
    history = read_history(results, config.prices)
    gallery = None
    if request.thumbnails:
        gallery = thumbnails(results, request.thumbnails, config, progress)

    content = _content(results, scoring, findings, history, gallery)
    return render(
        "report.html.j2",
        **content,
        groups=groups,
        lists=lists,
        truth=truth,
        version=request.version,
    )


def _content(
    results: Results,
    scoring: Scoring,
    findings: Summary,
    history: RunHistory,
    gallery: list[Thumbnail] | None,
) -> dict[str, Any]:
    """Return the values that the template shows."""
    grading = results.graded_by
    return {
        "name": results.store.uri.rstrip("/").rsplit("/", 1)[-1],
        "title": f"Skin lesions on {findings.photos:,} photo{'' if findings.photos == 1 else 's'}",
        "dest": results.store.uri,
        "sentence": _sentence(findings),
        "notes": [*_notes(results), *history.notes],
        "cards": _cards(findings),
        "graded": f"{grades_of(grading.scheme)} {_COUNTED[grading.counting]} with a score of at least "
        f"{grading.threshold:g} are counted. This is the scheme {grading.scheme.name}.",
        "plots": _plots(findings, scoring),
        "photos": f"{findings.photos:,}",
        "photos_number": findings.photos,
        "gallery": gallery,
        "filters": _filters(gallery or []),
        "statuses": list(findings.statuses.items()),
        "errors": findings.errors,
        "course_plots": _history_plots(history),
        "runs": history.runs[-20:],
        "provenance": _provenance(results, scoring, grading, history),
        "made": destination.now(),
    }


def _sentence(summary: Summary) -> str:
    """Return the sentence that opens the page."""
    ok = summary.statuses.get("ok", 0)
    grades = ", ".join(f"{n:,} {plain(name)}" for name, n in summary.grades.items() if n)
    failed = f", {summary.photos - ok:,} could not be scored" if ok < summary.photos else ""
    return (
        f"{ok:,} of {summary.photos:,} photos were scored{failed}. {summary.faces:,} show a face, with "
        f"{lesions(summary.lesions)} in all. Grades: {grades or 'none'}."
    )


def _notes(results: Results) -> list[str]:
    return [note for note in (results.note, unfinished(results)) if note is not None]


def _look_alikes(alike: LookAlikes) -> WorthALook:
    """Return groups of photos that look the same as a list of photos worth a look."""
    why = (
        "A photo looks the same as others, perhaps in another size, compression or light, turned or mirrored, so one "
        f"face counts more than once. {alike.compared:,} photos were compared."
    )
    if alike.unread:
        why += f" {alike.unread:,} could not be read again, such as: {alike.problem}"
    return WorthALook(
        "Near-duplicates",
        why,
        sum(len(group) for group in alike.groups),
        len(alike.groups),
        tuple((group[0], also(group[1:])) for group in alike.groups[:LISTED]),
    )


def _cards(summary: Summary) -> list[tuple[str, str]]:
    ok = summary.statuses.get("ok", 0)
    return [
        ("photos", f"{summary.photos:,}"),
        ("scored", f"{ok:,}"),
        ("failed", f"{summary.photos - ok:,}"),
        ("faces", f"{summary.faces:,}"),
        ("lesions counted", f"{summary.lesions:,}"),
        ("boxes stored", f"{summary.boxes:,}"),
    ]


def _plots(summary: Summary, scoring: Scoring) -> list[str]:
    plots = [svg.bars(summary.grades, "Grades")] if any(summary.grades.values()) else []
    if len(summary.views) > 1:
        plots.append(svg.bars(summary.views, "Views"))
    for column, (title, unit, marks) in _HISTOGRAMS.items():
        if summary.histograms[column].total:
            plots.append(svg.histogram(summary.histograms[column], title, unit, marks))
    if summary.classes:
        plots.append(svg.bars(summary.classes, "Named diseases"))
    for column in scoring.prob_columns:
        title = column.replace("prob_", "").replace("_", " ").strip().capitalize()
        if summary.histograms[column].total:
            plots.append(svg.histogram(summary.histograms[column], title, "probability"))
    return plots


def _history_plots(history: RunHistory) -> list[str]:
    plots = []
    if history.minutes:
        plots.append(
            svg.lines(
                history.minutes,
                history.photos_per_second,
                "Throughput",
                "minutes of running",
                "photos a second",
            )
        )
    if history.seconds:
        seconds = {PARTS[part]: value for part, value in history.seconds.items()}
        plots.append(svg.shares(seconds, "Where the time went", "seconds of all threads"))
    return plots


def _provenance(
    results: Results, scoring: Scoring, grading: Grading, history: RunHistory
) -> list[tuple[str, str]]:
    described = destination.require_destination(results.store)
    stages = scoring.numbers.get("pack", {})
    models = "; ".join(
        f"{stage} {stages.get(stage, {}).get('arch', '')} {sha256[:12]}"
        for stage, sha256 in scoring.weights.items()
    )
    settings = {
        **scoring.numbers.get("model", {}),
        "pipeline version": scoring.numbers.get("pipeline_version"),
    }
    rows = [
        ("source", described.source),
        ("destination", results.store.uri),
        ("scoring", f"{scoring.fingerprint}, first run {scoring.created}"),
        ("snapshot", results.snapshot or "none yet"),
        ("pack", scoring.pack),
        ("models (SHA-256)", models),
        ("settings", ", ".join(f"{plain(name)} {value}" for name, value in settings.items())),
        ("grading", describe(grading)),
        ("machines", "; ".join(history.machines) or "unknown"),
    ]
    if scoring.taken:
        rows.append(("taken", f"{', '.join(scoring.taken)} from scoring {scoring.taken_from}"))
    if results.grading is not None:
        rows.append(
            ("grading made", f"{results.grading.record.gid}, {results.grading.record.created}")
        )
    return rows


def _filters(gallery: list[Thumbnail]) -> list[dict[str, Any]]:
    filters = []
    for key, label, values in (
        ("grade", "grade", [photo.grade for photo in gallery]),
        ("class", "disease", [photo.top_class for photo in gallery]),
        ("status", "status", [photo.status for photo in gallery]),
    ):
        options = sorted({value for value in values if value})
        filters.append({"key": key, "label": label, "options": options})
    return filters
