"""Define the commands on the tables: `show`, `compare`, `series`, `regrade`, `schema`."""

from __future__ import annotations

import dataclasses
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from skinbatch import __version__
from skinbatch.cli.options import (
    ConfigFile,
    Dest,
    Grading,
    Group,
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
from skinbatch.errors import UsageError


def show(
    dest: Dest,
    image_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE_ID]...", help="Photos, named as in the images table."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the pictures, one PNG for each photo."
        ),
    ] = Path("shown"),
    pack: Annotated[
        str | None,
        typer.Option(
            "--pack",
            help="Where the scoring's pack is now, to compute masks. (default: where it was)",
        ),
    ] = None,
    where: Where = None,
    sample: Sample = None,
    stratify: Stratify = None,
    uncertain: Uncertain = None,
    suspect: Suspect = None,
    truth: Truth = None,
    photos: Photos = None,
    scoring: Scoring = None,
    grading: Grading = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Draw mask, boxes, scores and grade on photos: those that are named, or chosen by the options.

    Counted boxes are yellow and show their score. Boxes below the threshold or off the skin are
    thin and blue. With --suspect, the annotated boxes are pink. The skin is outlined in green, from
    the stored masks (`score --save-masks`) or computed again. The photos are read again from their
    source. For a photo that has gone or changed since, the boxes are drawn on grey.
    """
    from PIL import Image

    from skinbatch.reading import destination_store
    from skinbatch.report.show import picture_name
    from skinbatch.report.show import show as run
    from skinbatch.runs.results import open_results
    from skinbatch.selection.choose import Selection, choose

    settings = load_config(config)
    results = open_results(destination_store(dest, settings.storage), scoring, grading)
    selection = Selection(where, sample, column_names(stratify), uncertain, suspect, truth, photos)
    if bool(image_ids) == bool(selection):
        raise UsageError(
            "name the photos to draw, or choose them with --where, --sample, --uncertain or --suspect"
        )

    def note(text: str) -> None:
        print(f"skinbatch: {text}", file=sys.stderr)

    named, annotated = image_ids or [], None
    if selection:
        chosen = choose(results, selection)
        named, annotated = sorted(chosen.image_ids), chosen.annotated()
        for text in chosen.notes:
            note(text)

    written = []
    for shown in run(results, named, settings, pack, note, annotated):
        path = output / picture_name(shown.image_id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shown.picture).save(path)
        except OSError as e:
            raise UsageError(
                f"{path}: cannot be written: {e.strerror or e}; name another folder with --output"
            ) from None
        written.append({"image_id": shown.image_id, "written": str(path)})
        if shown.problem:
            note(f"{path} shows boxes without the photo: {shown.problem}")
        if not as_json:
            print(f"wrote {path}")
    if as_json:
        print_json(written)


def compare(
    dests: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C...]",
            help="Destinations of `skinbatch score`: a reference and others. One may be named twice, with two --scoring.",
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            help="Annotations by people. All scorings are also judged by the same annotated photos.",
        ),
    ] = None,
    photos: Photos = None,
    group: Group = None,
    max_drift: Annotated[
        float | None,
        typer.Option(
            "--max-drift",
            min=0,
            max=1,
            help="Share of photos that may change before the exit code is 5. (default: no limit)",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Also write an HTML page.")
    ] = None,
    scoring: Annotated[
        list[str] | None,
        typer.Option(
            "--scoring",
            help="Fingerprint of A's scoring; repeat it for each. (default: the newest of each)",
        ),
    ] = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Compare scorings of the same photos with the first one: grades, counts, boxes, and the photos
    that changed most.

    The drift is the share of the photos in both scorings whose status, face or grade differs.
    """
    from skinbatch.engines.terminal import TerminalPresenter
    from skinbatch.evaluate.request import EvaluationRequest
    from skinbatch.evaluate.several_scorings import side_by_side
    from skinbatch.reading import destination_store
    from skinbatch.report.compare import compare as run
    from skinbatch.report.compare_page import as_text, compare_page
    from skinbatch.report.comparison import LETTERS
    from skinbatch.report.page import write_page
    from skinbatch.report.person_groups import parse_group
    from skinbatch.runs.results import open_results

    named: list[str | None] = [None for _ in dests]
    if scoring:
        named = [*scoring]
    if not 2 <= len(dests) <= len(LETTERS):
        raise UsageError(f"compare takes 2 to {len(LETTERS)} destinations; {len(dests)} given")
    if len(named) != len(dests):
        raise UsageError(f"--scoring: name all {len(dests)} scorings or none; {len(named)} given")

    storage = load_config(config).storage
    stores = [destination_store(dest, storage) for dest in dests]
    grouping = parse_group(group)
    judged = None
    with TerminalPresenter() as presenter:
        opened = [
            open_results(store, fingerprint)
            for store, fingerprint in zip(stores, named, strict=True)
        ]
        pairs = []
        for letter, other in zip(LETTERS[1:], opened[1:], strict=False):
            presenter.phase(f"comparing A and {letter}")
            pairs.append(run(opened[0], other, grouping=grouping))
        if truth is not None:
            request = EvaluationRequest(truth, photos=photos, group=group)
            judged = side_by_side(list(zip(stores, named, strict=True)), request, presenter.phase)
    if output is not None:
        write_page(output, compare_page(pairs, version=__version__, judged=judged))

    comparisons = [each.comparison for each in pairs]
    drift = max(c.drift for c in comparisons)
    code = 5 if max_drift is not None and drift > max_drift else 0
    if as_json:
        values: dict[str, Any] = {"drift": drift}
        if len(comparisons) == 1:
            values = comparisons[0].as_json()
        else:
            values["comparisons"] = [c.as_json() for c in comparisons]
        if judged is not None:
            values["truth"] = judged.as_json()
        print_json(values | {"exit_code": code})
        raise typer.Exit(code)

    print(as_text(comparisons, judged))
    if output is not None:
        print(f"wrote {output}")
    if code:
        print(
            f"skinbatch: the drift of {drift:.3f} is more than --max-drift {max_drift:g} allows",
            file=sys.stderr,
        )
    raise typer.Exit(code)


def series(
    dest: Dest,
    subject: Annotated[
        str,
        typer.Option(
            "--subject",
            help="The person in the photo: a column, or the first group of a regex over image_id.",
        ),
    ],
    time: Annotated[
        str,
        typer.Option(
            "--time",
            help="Time of the photo: a column, or a regex over image_id. Numbers and dates are sorted as such.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Also write an HTML page with one plot per subject.",
        ),
    ] = None,
    scoring: Scoring = None,
    grading: Grading = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    r"""Follow the counts and grades of each face over time.

    For example, for photos named `anna/2024-05-01.jpg`: `--subject '^([^/]+)/' --time
    '(\d{4}-\d\d-\d\d)'`.
    """
    from skinbatch.reading import destination_store
    from skinbatch.report.page import write_page
    from skinbatch.report.series import as_text, read_series, series_page
    from skinbatch.runs.results import open_results

    results = open_results(destination_store(dest, load_config(config).storage), scoring, grading)
    series = read_series(results, subject, time)
    if output is not None:
        write_page(output, series_page(series, results, version=__version__))
    if as_json:
        print_json(dataclasses.asdict(series))
        return
    print(as_text(series))
    if output is not None:
        print(f"wrote {output}")


def schema(
    pack: Annotated[str, typer.Option("--pack", help="Pack whose classes are shown.")] = "starter",
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Print the data dictionary: every column of every table, with its unit and meaning."""
    from skinbatch.models.pack import load_pack
    from skinbatch.tables.dictionary import dictionary

    loaded = load_pack(pack, load_config(config).storage)
    tables = dictionary(loaded.detector_classes, loaded.prob_columns, loaded.segmenter.classes)
    if as_json:
        print_json([dataclasses.asdict(table) for table in tables])
        return
    for table in tables:
        print(f"{table.name}: {table.rows}")
        width = max(len(column.name) for column in table.columns)
        for column in table.columns:
            null = "" if column.nullable else ", never null"
            print(f"  {column.name:<{width}}  {column.type}{null}: {column.meaning}")
        print()


class Counting(StrEnum):
    """Name what is counted."""

    BOXES = "boxes"
    COMPONENTS = "components"


def regrade(
    dest: Dest,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Lowest score of a counted box. (default: the first run's)"
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            "--scheme",
            help="hayashi, acne04, iga-like, or a TOML file with name, grades and upper. (default: the first run's)",
        ),
    ] = None,
    counting: Annotated[
        Counting | None,
        typer.Option(
            "--counting",
            help="Count boxes, or the connected areas that they cover. (default: the first run's)",
        ),
    ] = None,
    scoring: Scoring = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Count and grade the stored boxes again with another threshold, scheme or counting method.

    No photo is read. The result is a new grading beside the scoring, whose own tables do not
    change.

    A scheme file, for example:

        name = "trial-7"
        grades = ["clear", "mild", "severe"]
        upper = [0, 10]

    Here `upper` is the highest count of each grade except the last. Two more keys are optional:
    `area`, "half" (the worse half of a frontal face, the default) or "whole", and `classes`, the
    detector's classes that are graded.
    """
    from skinbatch.engines.terminal import TerminalPresenter
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
    print(
        f"  changed  {done.changed:,} photos have another count than in the tables of the scoring"
    )
    print(f"  grading  {done.gid}")
    print(f"  table    {done.images}")
    print(f'  open     skinbatch.open("{dest}", grading="{done.gid}").images()')
