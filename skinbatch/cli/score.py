"""Define the commands that score: `score`, `retry` and `demo`, and how they end."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from skinbatch.cli.options import (
    ConfigFile,
    Deadline,
    Dest,
    Device,
    EngineName,
    ExitZeroOn,
    Json,
    JsonLine,
    LogFormat,
    PackName,
    RayAddress,
    Since,
    Source,
    Workers,
    print_json,
    say,
)
from skinbatch.config import load_config
from skinbatch.console import presenter_of, summary
from skinbatch.engines.terminal import TerminalPresenter
from skinbatch.errors import SkinbatchError
from skinbatch.redact import redacted
from skinbatch.runs.run_report import RunReport

# Number of open units that the JSON result names. `skinbatch status --json` names all.
_MOST_NAMED = 10


def score(
    source: Source,
    dest: Dest,
    pack: PackName = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    device: Device = None,
    config: ConfigFile = None,
    workers: Workers = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            help="Stop once this many photos are scored; units that have begun are finished (exit 6).",
        ),
    ] = None,
    max_failures: Annotated[
        float | None,
        typer.Option(
            "--max-failures",
            help="Share of photos that may fail before the exit code is 3. (default: 0.05)",
        ),
    ] = None,
    deadline: Deadline = None,
    since: Since = None,
    only_new: Annotated[
        bool | None,
        typer.Option(
            "--only-new",
            help="Score only what no earlier run has listed. All else keeps its rows, even if it has changed or is gone.",
        ),
    ] = None,
    save_masks: Annotated[
        bool | None,
        typer.Option(
            "--save-masks", help="Also write the skin masks, as COCO run-length encodings."
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            help="Only keys that match this glob; in shards, `shard.tar/member`. May be repeated.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", help="Skip keys that match this glob, in shards too. May be repeated."
        ),
    ] = None,
    image_column: Annotated[
        list[str] | None,
        typer.Option(
            "--image-column",
            help="Column that holds photos, if Parquet files have several. May be repeated.",
        ),
    ] = None,
    follow_links: Annotated[
        bool | None,
        typer.Option("--follow-links", help="Also follow symbolic links that lead out of SOURCE."),
    ] = None,
    head: Annotated[
        bool | None,
        typer.Option("--head", help="Ask the store for sizes and versions that a listing lacks."),
    ] = None,
    content_hash: Annotated[
        bool | None,
        typer.Option(
            "--content-hash", help="Detect changed local photos by their bytes, not by their times."
        ),
    ] = None,
    anonymous: Annotated[
        bool | None, typer.Option("--anonymous", help="Read a public bucket without credentials.")
    ] = None,
    log_format: LogFormat = None,
    exit_zero_on: ExitZeroOn = None,
    as_json: JsonLine = False,
) -> None:
    """Score every photo that has no row yet. Run it again to resume, or to pick up changes.

    Exit codes: 0 done; 2 wrong use; 3 too many photos failed; 4 units could not be scored, or most
    photos were gone; 6 stopped on purpose; 7 another run is using the destination; 130 interrupted.
    """

    def run() -> RunReport:
        from skinbatch.engines.score import score

        settings = load_config(
            config,
            {
                "source": {
                    "include": include,
                    "exclude": exclude,
                    "head": head,
                    "content_hash": content_hash,
                    "since": since,
                    "only_new": only_new,
                    "image_column": image_column,
                    "follow_links": follow_links,
                },
                "storage": {"anonymous": anonymous},
                "run": {"log_format": log_format},
            },
        )
        with presenter_of(settings.run.log_format) as presenter:
            return score(
                source,
                dest,
                pack=pack,
                engine=engine,
                ray_address=ray_address,
                device=device,
                workers=workers,
                limit=limit,
                max_failures=max_failures,
                deadline_s=deadline,
                save_masks=save_masks,
                config=settings,
                presenter=presenter,
            )

    _end(run, dest, as_json, exit_zero_on or (), config)


def retry(
    dest: Dest,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="SQL",
            help="Score the rows again for which this condition on the columns of `images` is true, failed or not, such "
            "as \"status = 'timeout'\".",
        ),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            "--ids",
            metavar="FILE",
            help="Score the rows of these photos again: one image_id a line, or a CSV or Parquet file with a column "
            "image_id. With --where, only those that fit it.",
        ),
    ] = None,
    pack: Annotated[
        str | None,
        typer.Option(
            "--pack",
            help="Name or folder of the pack of another scoring of DEST. (default: the newest run's)",
        ),
    ] = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    device: Device = None,
    config: ConfigFile = None,
    workers: Workers = None,
    log_format: LogFormat = None,
    exit_zero_on: ExitZeroOn = None,
    as_json: JsonLine = False,
) -> None:
    """Score the failed photos again, or the chosen ones. All other rows stay as they are.

    With --where or --ids, run the same command again to continue after an interruption. If no row
    fits --where, there is nothing to do. Exit codes are those of `score`; 3 counts all photos that
    have failed, those of earlier runs too.
    """

    def run() -> RunReport:
        from skinbatch.engines.score import retry

        settings = load_config(config, {"run": {"log_format": log_format}})
        image_ids = None
        if ids is not None:
            from skinbatch.selection.image_ids import read_image_ids

            image_ids = read_image_ids(ids)
        with presenter_of(settings.run.log_format) as presenter:
            return retry(
                dest,
                where=where,
                image_ids=image_ids,
                pack=pack,
                engine=engine,
                ray_address=ray_address,
                device=device,
                workers=workers,
                config=settings,
                presenter=presenter,
            )

    _end(run, dest, as_json, exit_zero_on or (), config)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder for the demo.")] = Path(
        "demo"
    ),
    engine: EngineName = None,
    as_json: Json = False,
) -> None:
    """Score made-up photos with the starter pack, without a network, and show the results."""
    from skinbatch.demo_run import run_demo

    with TerminalPresenter() as presenter:
        report, lesions = run_demo(folder, engine, presenter)
    if as_json:
        print_json(
            report_as_json(report)
            | {"lesions_planted": lesions.planted, "lesions_found": lesions.found}
        )
    else:
        print(summary(report))
        print(
            f"  planted  {lesions.planted} lesions, {lesions.found} found; {lesions.boxes} boxes counted in all"
        )
        print(f"  open     {folder / 'report.html'} in a browser: what was found, with the photos")
        print(
            f"  photos   {folder / 'photos'} (one file is truncated on purpose), {folder / 'truth.json'} (the planted lesions)"
        )
    raise typer.Exit(report.exit_code)


def _end(
    run: Callable[[], RunReport],
    dest: str,
    as_json: bool,
    zero_on: Collection[int],
    config: Path | None,
) -> NoReturn:
    """Run, print the result and exit with its code, or with 0 if that code is one of `zero_on`."""
    started = time.monotonic()
    try:
        report = run()
    except BaseException as error:
        code, message = _failure(error)
        if as_json:
            _print_line({"exit_code": code, "message": message, "destination": dest}, started)
        if code not in zero_on:
            raise
        say(message, code)
        raise typer.Exit(0) from None

    if as_json:
        _print_line(report_as_json(report), started)
    else:
        print(summary(report, config))
    raise typer.Exit(0 if report.exit_code in zero_on else report.exit_code)


def _failure(error: BaseException) -> tuple[int, str]:
    """Return exit code and message of a run that ended without a report."""
    if isinstance(error, SkinbatchError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return 130, "interrupted; run the same command again to continue"
    return 1, f"this is a bug in skinbatch: {type(error).__name__}: {redacted(str(error))}"


def report_as_json(report: RunReport) -> dict[str, Any]:
    """Return a report as plain values, with the first of the units that are left."""
    left = dict(islice(report.left.items(), _MOST_NAMED))
    return dataclasses.asdict(report) | {
        "failed": report.failed,
        "left": left,
        "photos_per_worker_hour": report.cost.photos_per_worker_hour,
    }


def print_failure(exit_code: int, message: str) -> None:
    """Print the JSON result of a command line that could not be parsed, before any run began."""
    _print_line({"exit_code": exit_code, "message": message}, started=time.monotonic())


def _print_line(values: dict[str, Any], started: float) -> None:
    values["duration_s"] = round(time.monotonic() - started, 3)
    print(json.dumps(values, sort_keys=True, default=str), flush=True)
