"""The command line: `skinbatch COMMAND`. Every error is one clear message; exit codes are the contract's."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from skinbatch import __version__, signals
from skinbatch.cli_data import export, settings
from skinbatch.cli_evaluate import evaluate
from skinbatch.cli_models import explain, pack_app
from skinbatch.cli_options import (
    ConfigFile,
    Dest,
    EngineName,
    Json,
    LogFormat,
    PackName,
    RayAddress,
    Scoring,
    Source,
    Workers,
    print_json,
)
from skinbatch.cli_results import regrade, report, show
from skinbatch.cli_train import recipes, train
from skinbatch.config import load_config
from skinbatch.console import TerminalPresenter, clock, counted, presenter_of, summary
from skinbatch.errors import SkinbatchError, UnfinishedWarning
from skinbatch.logs import event, writes_json
from skinbatch.redact import redacted
from skinbatch.runs.report import RunReport


class _Commands(TyperGroup):
    """Typer itself ends with 130 at Ctrl-C and says nothing; Abort it passes on."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as e:
            raise typer.Abort from e


app = typer.Typer(
    cls=_Commands,
    name="skinbatch",
    help="Score archives of face photos: skin masks, acne lesions, counts, grades and skin diseases, as Parquet.\n\n"
    "Start with `skinbatch demo`, or `skinbatch score PHOTOS OUT`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(pack_app, name="pack")


@app.command()
def score(
    source: Source,
    dest: Dest,
    pack: PackName = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    config: ConfigFile = None,
    workers: Workers = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Stop after whole units with so many photos (exit 6).")
    ] = None,
    max_failures: Annotated[
        float | None,
        typer.Option("--max-failures", help="Share of photos that may fail before the exit code is 3. (default: 0.05)"),
    ] = None,
    deadline: Annotated[
        float | None, typer.Option("--deadline", help="Hand out no more units after so many seconds (exit 6).")
    ] = None,
    save_masks: Annotated[
        bool | None, typer.Option("--save-masks", help="Also write the masks, as COCO run lengths.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", help="Only keys that match this glob; in archives, `shard.tar/member`. May be repeated."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="No keys that match this glob, in archives too. May be repeated."),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option("--image-column", help="Column with the photos, where Parquet files have several.")
    ] = None,
    follow_links: Annotated[
        bool | None, typer.Option("--follow-links", help="Also follow links that lead out of SOURCE.")
    ] = None,
    head: Annotated[
        bool | None, typer.Option("--head", help="Ask the store for sizes and versions that a listing lacks.")
    ] = None,
    content_hash: Annotated[
        bool | None, typer.Option("--content-hash", help="Tell changed local photos by their bytes, not their times.")
    ] = None,
    anonymous: Annotated[
        bool | None, typer.Option("--anonymous", help="Read a public bucket without credentials.")
    ] = None,
    log_format: LogFormat = None,
    as_json: Json = False,
) -> None:
    """Score what is not scored yet. The same command again resumes, or picks up what changed.

    Ends with 0 when all is done, 2 for wrong use, 3 if too many photos failed, 4 if units could not be scored, 6 when
    stopped on purpose, 7 if another run holds the destination, 130 when interrupted.
    """
    from skinbatch.engines.score import score as run

    settings = load_config(
        config,
        {
            "source": {
                "include": include,
                "exclude": exclude,
                "image_column": image_column,
                "follow_links": follow_links,
                "head": head,
                "content_hash": content_hash,
            },
            "storage": {"anonymous": anonymous},
            "run": {"log_format": log_format},
        },
    )
    with presenter_of(settings.run.log_format) as presenter:
        report = run(
            source,
            dest,
            pack=pack,
            engine=engine,
            ray_address=ray_address,
            workers=workers,
            limit=limit,
            max_failures=max_failures,
            deadline_s=deadline,
            save_masks=save_masks,
            config=settings,
            presenter=presenter,
        )
    _end(report, as_json, config)


@app.command()
def retry(
    dest: Dest,
    pack: PackName = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    config: ConfigFile = None,
    workers: Workers = None,
    log_format: LogFormat = None,
    as_json: Json = False,
) -> None:
    """Score again only the rows that failed; the others stay as they are."""
    from skinbatch.engines.score import retry as run

    settings = load_config(config, {"run": {"log_format": log_format}})
    with presenter_of(settings.run.log_format) as presenter:
        report = run(
            dest,
            pack=pack,
            engine=engine,
            ray_address=ray_address,
            workers=workers,
            config=settings,
            presenter=presenter,
        )
    _end(report, as_json, config)


@app.command()
def status(dest: Dest, scoring: Scoring = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Done, left, failed by status, rate and time left; also while a run is going."""
    from skinbatch.reading import destination_store
    from skinbatch.runs.status import read_status

    found = read_status(destination_store(dest, load_config(config).storage), scoring)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    photos = f"{found.photos_done} of {found.photos_total}" + ("" if found.total_known else " or more")
    print(f"{found.state}: {photos} photos done, {found.units_left} of {found.units_total} units left")
    if found.statuses:
        print(f"  rows     {counted(found.statuses)}")
    again = {"units retried": found.units_retried, "photos isolated": found.photos_isolated}
    again |= {"requests retried": found.requests_retried, "throttled": found.requests_throttled}
    if any(again.values()):
        print(f"  trouble  {counted({name: n for name, n in again.items() if n})}")
    if found.photos_per_second:
        left = f", {clock(found.left_s)} left" if found.left_s is not None else ""
        print(f"  rate     {found.photos_per_second:.1f} photos/s{left}")
    print(
        f"  scoring  {found.fingerprint}, last written {found.updated}"
        + (f"\n  message  {found.message}" if found.message else "")
    )


@app.command()
def verify(dest: Dest, scoring: Scoring = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Prove that every listed photo has exactly one row and every file its recorded hash (exit 5 if not)."""
    from skinbatch.reading import verify as check

    report = check(dest, scoring, load_config(config).storage)
    if as_json:
        print_json(dataclasses.asdict(report) | {"exit_code": report.exit_code})
    else:
        for difference in report.differences:
            print(f"difference: {difference}")
        verdict = (
            "every listed photo has exactly one row"
            if not report.differences
            else f"{len(report.differences)} differences"
        )
        print(
            f"{verdict}: {report.photos} photos, {report.rows} rows, {report.boxes} boxes, {report.files} files checked"
        )
    raise typer.Exit(report.exit_code)


app.command()(explain)
app.command()(train)
app.command()(recipes)
app.command()(evaluate)
app.command()(export)
app.command()(report)
app.command()(show)
app.command()(regrade)
app.command()(settings)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the demo is made.")] = Path("demo"),
    engine: EngineName = None,
    as_json: Json = False,
) -> None:
    """The whole way on photos that it makes itself, with the starter pack; needs no network."""
    from skinbatch.demo_run import run_demo

    with TerminalPresenter() as presenter:
        report, found = run_demo(folder, engine, presenter)
    if as_json:
        print_json(_report(report) | {"lesions_planted": found.planted, "lesions_found": found.found})
    else:
        print(summary(report))
        print(f"  planted  {found.planted} lesions, {found.found} found; {found.boxes} boxes counted in all")
        print(
            f"  open     {folder / 'photos'} (one file is cut off on purpose), {folder / 'truth.json'} (what was planted)"
        )
    raise typer.Exit(report.exit_code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"skinbatch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _end(report: RunReport, as_json: bool, config: Path | None) -> NoReturn:
    try:
        if as_json:
            print_json(_report(report))
        else:
            print(summary(report, config))
        sys.stdout.flush()
    except BrokenPipeError:  # `skinbatch score … | head`: the run's exit code stands
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(report.exit_code)


def _report(report: RunReport) -> dict[str, Any]:
    return dataclasses.asdict(report) | {"failed": report.failed}


def main() -> NoReturn:
    """Entry point: the contract's exit codes; 1, with a traceback, only for defects of skinbatch itself."""
    warnings.showwarning = _show_warning
    sys.exit(_guarded(app))


def _guarded(run: Callable[..., Any]) -> int:
    try:
        with signals.heard_by(signals.interrupt):
            code = run(standalone_mode=False)
        return int(code or 0)
    except SkinbatchError as e:
        _say(str(e), e.exit_code)
        return e.exit_code
    except typer.Exit as e:
        return int(e.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted; the same command goes on", 130)
        return 130
    except Exception as e:
        if hasattr(e, "format_message") and hasattr(e, "exit_code"):  # click's own errors of use
            command = getattr(getattr(e, "ctx", None), "command_path", "skinbatch")
            print(f"skinbatch: {e.format_message()}\nTry '{command} --help'.", file=sys.stderr)
            return int(e.exit_code)
        if not writes_json():
            print(redacted(traceback.format_exc()), file=sys.stderr, end="")
        _say("this is a defect of skinbatch; nothing that was committed is lost", 1, traceback=traceback.format_exc())
        return 1


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our own warnings as messages, and those of libraries as Python does."""
    if issubclass(category, UnfinishedWarning):
        print(f"skinbatch: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=file or sys.stderr, end="")


def _say(message: str, exit_code: int, **more: str) -> None:
    """Why the command ends, as the rest of what it says."""
    if writes_json():
        event("error", logging.ERROR, message=message, exit_code=exit_code, **more)
    else:
        print(f"skinbatch: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
