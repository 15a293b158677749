"""Define the command line: `skinbatch COMMAND`.

Every error is one clear message, and the exit codes are those of docs/exit-codes.md.
"""

from __future__ import annotations

import dataclasses
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from skinbatch import __version__, signals, streams
from skinbatch.cli_data import export, settings
from skinbatch.cli_evaluate import evaluate
from skinbatch.cli_models import explain, pack_app
from skinbatch.cli_options import ConfigFile, Dest, EngineName, Json, Scoring, print_json, say
from skinbatch.cli_report import report
from skinbatch.cli_results import compare, regrade, schema, series, show
from skinbatch.cli_run import print_failure, report_as_json, retry, score
from skinbatch.cli_train import recipes, train
from skinbatch.config import load_config
from skinbatch.console import counted, summary
from skinbatch.engines.terminal import TerminalPresenter, clock
from skinbatch.errors import SkinbatchError, UnfinishedWarning
from skinbatch.logs import writes_json
from skinbatch.redact import redacted

if TYPE_CHECKING:
    from skinbatch.runs.status import ScoringStatus


class _Commands(TyperGroup):
    """Turn Ctrl-C into Abort, which Typer passes on; on its own it would end with 130 and print
    nothing.
    """

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


app.command()(score)
app.command()(retry)


@app.command()
def status(dest: Dest, scoring: Scoring = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Show what is done, left and failed, the speed and the time left, even during a run."""
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
    print(f"  scorings {len(found.scorings)}")
    for scoring_of in found.scorings:
        print(f"    {_scoring_line(scoring_of, found.fingerprint)}")


def _scoring_line(scoring: ScoringStatus, shown: str) -> str:
    photos = f"{scoring.photos} photos" + ("" if scoring.finished else " so far")
    line = f"{scoring.fingerprint}  {scoring.created[:10]}  pack {scoring.pack}, {photos}, {scoring.state}"
    return line + (" (above)" if scoring.fingerprint == shown else "")


@app.command()
def verify(dest: Dest, scoring: Scoring = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Check that each listed photo has one row and each file its recorded hash (exit 5 if not)."""
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
app.command()(compare)
app.command()(series)
app.command()(regrade)
app.command()(schema)
app.command()(settings)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder for the demo.")] = Path("demo"),
    engine: EngineName = None,
    as_json: Json = False,
) -> None:
    """Score made-up photos with the starter pack, without a network, and show the results."""
    from skinbatch.demo_run import run_demo

    with TerminalPresenter() as presenter:
        report, found = run_demo(folder, engine, presenter)
    if as_json:
        print_json(report_as_json(report) | {"lesions_planted": found.planted, "lesions_found": found.found})
    else:
        print(summary(report))
        print(f"  planted  {found.planted} lesions, {found.found} found; {found.boxes} boxes counted in all")
        print(f"  open     {folder / 'report.html'} in a browser: what was found, with the photos")
        print(
            f"  photos   {folder / 'photos'} (one file is truncated on purpose), {folder / 'truth.json'} (the planted lesions)"
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


def main() -> NoReturn:
    """Run a command and exit with its code; 1, with a traceback, is only for bugs in skinbatch."""
    warnings.showwarning = _show_warning
    sys.exit(_guarded(app))


def _guarded(run: Callable[..., Any]) -> int:
    try:
        with signals.heard_by(signals.interrupt):
            code = run(standalone_mode=False)
        return int(code or 0)
    except SkinbatchError as e:
        say(str(e), e.exit_code)
        return e.exit_code
    except typer.Exit as e:
        return int(e.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted; run the same command again to continue", 130)
        return 130
    except Exception as e:
        if hasattr(e, "format_message") and hasattr(e, "exit_code"):  # a usage error from click
            context = getattr(e, "ctx", None)
            command = getattr(context, "command_path", "skinbatch")
            message = e.format_message()
            if message:  # empty if the command has only printed its help
                if getattr(context, "info_name", None) in ("score", "retry") and "--json" in sys.argv:
                    print_failure(int(e.exit_code), message)
                print(f"skinbatch: {message}\nTry '{command} --help'.", file=sys.stderr)
            return int(e.exit_code)
        if not writes_json():
            print(redacted(traceback.format_exc()), file=sys.stderr, end="")
        say("this is a bug in skinbatch; everything committed is kept", 1, traceback=traceback.format_exc())
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


if __name__ == "__main__":
    streams.keep_writable()
    main()
