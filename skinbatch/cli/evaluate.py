"""Define `skinbatch evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

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
from skinbatch.engines.terminal import TerminalPresenter
from skinbatch.errors import UsageError


def evaluate(
    dest: Dest,
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="Annotations by people: boxes, severities, masks or classes, in any supported format.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for evaluation.json and the plots.")
    ] = Path("evaluation"),
    thresholds: Annotated[
        str,
        typer.Option(
            "--thresholds", help="Scores at which lesions are counted, besides the scoring's own."
        ),
    ] = "0.25,0.5,0.75",
    bootstrap: Annotated[
        int,
        typer.Option(
            "--bootstrap",
            min=0,
            help="Number of bootstrap samples for the intervals; 0 for no intervals.",
        ),
    ] = 1000,
    names: ClassMap = None,
    apart: Annotated[
        list[str] | None,
        typer.Option(
            "--apart", metavar="CLASS", help="A class to leave out of the means. May be repeated."
        ),
    ] = None,
    group: Group = None,
    trained_on: TrainedOn = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Format of TRUTH. (default: recognised by content)"),
    ] = None,
    photos: Photos = None,
    scoring: Scoring = None,
    grading: Grading = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Compare a destination with people's annotations: numbers, intervals and plots.

    Annotated boxes give AP, AR and count errors; severities give the confusion of grades; masks give
    Dice and IoU; classes give recall, precision, ROC and AUC. All numbers are given over all photos,
    by skin tone and by severity. Photos are matched by file if TRUTH has the scored files, otherwise
    by name, otherwise by base name.
    """
    from skinbatch.evaluate.evaluation import evaluate as run
    from skinbatch.evaluate.plots import draw
    from skinbatch.evaluate.request import EvaluationRequest
    from skinbatch.evaluate.text import as_text
    from skinbatch.metrics.bootstrap import Resampling
    from skinbatch.reading import destination_store

    request = EvaluationRequest(
        truth,
        format=form,
        photos=photos,
        scoring=scoring,
        grading=grading,
        thresholds=_scores(thresholds),
        resampling=Resampling(bootstrap),
        names=class_names(names or []),
        apart=tuple(apart or ()),
        group=group,
        trained_on=trained_on,
    )
    store = destination_store(dest, load_config(config).storage)
    with TerminalPresenter() as presenter:
        evaluation = run(store, request, presenter.phase)
        presenter.phase("drawing")
        try:
            out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(evaluation.as_json(), indent=2, ensure_ascii=False)
            (out / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        except OSError as e:
            raise UsageError(
                f"{out}: cannot be written: {e.strerror}; name another folder with --out"
            ) from None
        plots = draw(evaluation, out)
    if as_json:
        print_json(evaluation.as_json())
        return
    print(as_text(evaluation))
    print(f"wrote {', '.join(str(path) for path in (out / 'evaluation.json', *plots))}")


def _scores(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(
            f"--thresholds {text}: give scores separated by commas, such as 0.25,0.5,0.75"
        ) from None
