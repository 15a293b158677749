"""Define `skinbatch report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skinbatch import __version__
from skinbatch.cli.options import (
    ClassMap,
    ConfigFile,
    Dest,
    Grading,
    Group,
    Json,
    Photos,
    Scoring,
    TrainedOn,
    class_names,
    print_json,
)
from skinbatch.config import load_config
from skinbatch.errors import UsageError

if TYPE_CHECKING:
    from skinbatch.engines.terminal import TerminalPresenter
    from skinbatch.evaluate.request import EvaluationRequest
    from skinbatch.report.against import Judgement
    from skinbatch.storage.store import Store


def report(
    dest: Dest,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", metavar="TRUTH", help="Annotations by people, in any format of `evaluate`."
        ),
    ] = None,
    thumbnails: Annotated[
        int,
        typer.Option(
            "--thumbnails", min=0, help="Show up to this many photos. Faces are personal data."
        ),
    ] = 0,
    look_alikes: Annotated[
        bool,
        typer.Option(
            "--look-alikes",
            help="Read all photos again and find those that look the same, such as a photo in another size.",
        ),
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")
    ] = Path("report.html"),
    names: ClassMap = None,
    group: Group = None,
    trained_on: TrainedOn = None,
    photos: Photos = None,
    scoring: Scoring = None,
    grading: Grading = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Write a report as one HTML file: the results, the photos to look at, and how the run went.

    The file opens from disk and needs nothing else. It contains photos only with `--thumbnails`.
    With `--truth` it also shows how far people and models agree, and `--thumbnails` shows their
    boxes side by side.
    """
    from skinbatch.engines.terminal import TerminalPresenter
    from skinbatch.evaluate.request import EvaluationRequest
    from skinbatch.reading import destination_store
    from skinbatch.report.page import write_page
    from skinbatch.report.person_groups import parse_group
    from skinbatch.report.report import ReportRequest, make_report
    from skinbatch.runs.results import open_results

    options = {"--map": names, "--trained-on": trained_on, "--photos": photos}
    for option, given in options.items():
        if truth is None and given:
            raise UsageError(f"{option} needs --truth; name the annotations with --truth")

    settings = load_config(config)
    with TerminalPresenter() as presenter:
        store = destination_store(dest, settings.storage)
        results = open_results(store, scoring, grading)
        judgement = None
        if truth is not None:
            asked = EvaluationRequest(
                truth,
                photos=photos,
                scoring=results.fingerprint,
                grading=results.grading.record.gid if results.grading else None,
                names=class_names(names or []),
                group=group,
                trained_on=trained_on,
                sliced=False,
            )
            judgement = _judged(store, asked, presenter)
        request = ReportRequest(thumbnails, __version__, parse_group(group), look_alikes, judgement)
        page = make_report(results, request, settings, presenter.phase)
        write_page(output, page)

    if as_json:
        print_json({"written": str(output), "bytes": len(page.encode())})
        return
    print(f"wrote {output} ({len(page.encode()) / 1000:,.0f} KB)")


def _judged(store: Store, asked: EvaluationRequest, presenter: TerminalPresenter) -> Judgement:
    """Return how the scoring agrees with a truth."""
    from skinbatch.evaluate.evaluation import evaluate
    from skinbatch.evaluate.persons import in_words
    from skinbatch.evaluate.text import noise
    from skinbatch.report.against import Judgement

    evaluation = evaluate(store, asked, presenter.phase)
    groups = in_words(evaluation.about["groups"], evaluation.about["photos"]["judged"])
    return Judgement(
        evaluation.as_json(),
        evaluation.verdicts(),
        tuple(noise(evaluation.about["annotators"])),
        tuple(line.strip() for line in groups),
    )
