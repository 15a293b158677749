"""Define the commands that write files for people and other tools: `export` and `settings`."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from importlib import resources
from typing import Annotated

import typer

from skinbatch.cli.options import (
    ConfigFile,
    Grading,
    Json,
    Photos,
    Sample,
    Scoring,
    Stratify,
    Suspect,
    Truth,
    Uncertain,
    Where,
    column_names,
    print_json,
)
from skinbatch.config import load_config


class BoxFormat(StrEnum):
    """Name the formats that `export` writes."""

    VOC = "voc"
    COCO = "coco"
    YOLO = "yolo"
    LABEL_STUDIO = "label-studio"
    CVAT = "cvat"


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A destination of `skinbatch score` (folder or s3://bucket/prefix), or annotated photos.",
        ),
    ],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="New folder or s3://bucket/prefix for the files.")
    ],
    format: Annotated[BoxFormat, typer.Option("--format", help="Format to write.")],
    score_threshold: Annotated[
        float | None,
        typer.Option(
            "--score-threshold",
            help="Export boxes on the skin with at least this score. (default: those that were counted)",
        ),
    ] = None,
    read_as: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Format of SOURCE, if it is annotated photos. (default: recognised by content)",
        ),
    ] = None,
    photos: Photos = None,
    where: Where = None,
    sample: Sample = None,
    stratify: Stratify = None,
    uncertain: Uncertain = None,
    suspect: Suspect = None,
    truth: Truth = None,
    scoring: Scoring = None,
    grading: Grading = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Write boxes for other tools or for correction by hand: Pascal VOC, COCO, YOLO, Label Studio or CVAT.

    Photos are not copied. Every scored or annotated photo has an entry, even without boxes. Reading
    the files back gives the same boxes to the last bit. Properties of annotations that the format
    cannot hold are counted as not kept. docs/annotations.md explains how to correct boxes in Label
    Studio and CVAT.
    """
    from skinbatch.console import counted
    from skinbatch.engines.terminal import TerminalPresenter
    from skinbatch.export.export import ExportRequest
    from skinbatch.export.export import export as run
    from skinbatch.selection.choose import Selection

    # --photos belongs to --truth if there is one, and to SOURCE otherwise.
    of_truth, of_source = (photos, None) if truth else (None, photos)
    selection = Selection(
        where, sample, column_names(stratify), uncertain, suspect, truth, of_truth
    )
    with TerminalPresenter() as presenter:
        report = run(
            source,
            out,
            ExportRequest(
                format.value,
                score_threshold,
                scoring,
                of_source,
                read_as,
                grading,
                selection,
            ),
            load_config(config).storage,
            lambda done: presenter.phase(f"{done} photos written") if done % 10_000 == 0 else None,
        )
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    print(f"{report.photos} photos with {report.boxes} boxes as {report.format} in {report.out}")
    print(f"  classes   {', '.join(report.classes) or 'none'}")
    if report.left_out:
        print(f"  left out  {counted(report.left_out)}")
    if report.swapped:
        print(
            f"  corrected {report.swapped} {'box' if report.swapped == 1 else 'boxes'} with swapped corners"
        )
    if report.not_kept:
        print(f"  not kept  {counted(report.not_kept)}")
    for note in report.notes:
        print(f"  note      {note}")


def settings() -> None:
    """Print every setting of a run with its default, as TOML to edit and give to `--config`.

    For example, `skinbatch settings > settings.toml`, then `skinbatch score PHOTOS OUT --config settings.toml`.
    """
    print(
        resources.files("skinbatch").joinpath("settings.toml").read_text(encoding="utf-8"), end=""
    )
