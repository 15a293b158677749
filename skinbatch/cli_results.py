"""Commands that work on the tables of a scoring: `skinbatch regrade`."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Annotated

import typer

from skinbatch import __version__
from skinbatch.cli_options import ConfigFile, Dest, Json, Scoring, print_json
from skinbatch.config import load_config


class Counting(StrEnum):
    """Name what is counted."""

    BOXES = "boxes"
    COMPONENTS = "components"


def regrade(
    dest: Dest,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Lowest score of a counted box. (default: that of the first run)"),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            "--scheme",
            help="hayashi, acne04, iga-like, or a TOML file with name, grades and upper. (default: that of the first run)",
        ),
    ] = None,
    counting: Annotated[
        Counting | None,
        typer.Option("--counting", help="Count boxes, or the areas that they cover. (default: that of the first run)"),
    ] = None,
    scoring: Scoring = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Count and grade the stored boxes again with another threshold, scheme or counting method.

    No photo is read. The result is a new grading beside the scoring, whose own tables do not change.

    A scheme file, for example:

        name = "trial-7"
        grades = ["clear", "mild", "severe"]
        upper = [0, 10]

    Here `upper` is the highest count of each grade but the last. Two more keys may follow: `area`, "half" (the worse half
    of a frontal face, the default) or "whole", and `classes`, the detector's classes that are graded.
    """
    from skinbatch.console import TerminalPresenter
    from skinbatch.grading.scheme_file import find_scheme
    from skinbatch.reading import destination_store
    from skinbatch.runs.regrade import regrade as run

    with TerminalPresenter() as presenter:
        done = run(
            destination_store(dest, load_config(config).storage),
            scoring=scoring,
            threshold=threshold,
            scheme=find_scheme(scheme) if scheme else None,
            counting=counting.value if counting else None,
            version=__version__,
            progress=lambda photos: presenter.phase(f"{photos:,} photos graded"),
        )

    if as_json:
        print_json(dataclasses.asdict(done))
        return
    print(
        f"{done.photos:,} photos with {done.boxes:,} boxes graded by {done.scheme}, {done.counting} from {done.threshold:g}"
    )
    print(f"  grades   {', '.join(f'{n:,} {grade}' for grade, n in done.grades.items())}")
    print(f"  changed  {done.changed:,} photos have another count than in the tables of the scoring")
    print(f"  grading  {done.gid}")
    print(f"  table    {done.images}")
    print(f'  open     skinbatch.open("{dest}", grading="{done.gid}").images()')
