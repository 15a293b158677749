"""Put the command line together: `skinbatch COMMAND`.

Every error is one clear message, and the exit codes are those of docs/exit-codes.md.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from skinbatch import __version__, signals, streams
from skinbatch.cli.check import status, verify
from skinbatch.cli.compact import compact
from skinbatch.cli.data import export, settings
from skinbatch.cli.evaluate import evaluate
from skinbatch.cli.models import explain, pack_app
from skinbatch.cli.options import say
from skinbatch.cli.plan import plan
from skinbatch.cli.report import report
from skinbatch.cli.results import compare, regrade, schema, series, show
from skinbatch.cli.score import demo, print_failure, retry, score
from skinbatch.cli.train import recipes, train
from skinbatch.errors import SkinbatchError, UnfinishedWarning
from skinbatch.logs import writes_json
from skinbatch.redact import redacted


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


for command in (
    score,
    retry,
    plan,
    status,
    verify,
    compact,
    explain,
    train,
    recipes,
    evaluate,
    export,
    report,
    show,
    compare,
    series,
    regrade,
    schema,
    settings,
    demo,
):
    app.command()(command)


def _version(is_asked_for: bool) -> None:
    if is_asked_for:
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
                if (
                    getattr(context, "info_name", None) in ("score", "retry")
                    and "--json" in sys.argv
                ):
                    print_failure(int(e.exit_code), message)
                print(f"skinbatch: {message}\nTry '{command} --help'.", file=sys.stderr)
            return int(e.exit_code)
        if not writes_json():
            print(redacted(traceback.format_exc()), file=sys.stderr, end="")
        say(
            "this is a bug in skinbatch; everything committed is kept",
            1,
            traceback=traceback.format_exc(),
        )
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
        print(
            warnings.formatwarning(message, category, filename, lineno, line),
            file=file or sys.stderr,
            end="",
        )


if __name__ == "__main__":
    streams.keep_writable()
    main()
