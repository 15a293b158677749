"""Define the arguments and options that several commands share, and print results as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from skinbatch.durations import moment_of, seconds_of
from skinbatch.errors import UsageError
from skinbatch.logs import event, writes_json
from skinbatch.worker_range import worker_count

# Heading of the options that choose photos, in --help.
SELECTION = "Which photos"

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder, tar, zip, Parquet, listing (uri column) or S3 Inventory manifest: local path or s3://bucket/prefix.",
    ),
]
Dest = Annotated[
    str,
    typer.Argument(
        metavar="DEST", help="Destination, where the tables are: a folder or s3://bucket/prefix."
    ),
]
PackName = Annotated[
    str | None, typer.Option("--pack", help="Pack to use: its name or folder. (default: starter)")
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="ray (on this machine unless a cluster is named) or local (without Ray). (default: ray)",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="Address of a Ray cluster. (default: RAY_ADDRESS)"),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="auto, cpu or gpu. gpu waits for a node with a GPU; auto uses the GPUs that the cluster has or may add. "
        "(default: auto)",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with settings. Options take precedence over it."),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        help="text, or json: one object per line on stderr, with `event`, `unit_id`, `image_id`. (default: text)",
    ),
]
Photos = Annotated[
    Path | None,
    typer.Option(
        "--photos",
        metavar="DIR",
        help="Folder of the photos, if they are not beside the annotations.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
JsonLine = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the result, even of a failed run, as one line of JSON on stdout."
    ),
]
Scoring = Annotated[
    str | None,
    typer.Option(
        "--scoring",
        help="Fingerprint of a scoring, or its first digits. (default: the newest run's)",
    ),
]
Grading = Annotated[
    str | None,
    typer.Option(
        "--grading",
        help="Grading made by `skinbatch regrade`: its id or scheme. (default: the first run's)",
    ),
]
ClassMap = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="THEIRS=OURS",
        help="A class of the annotations and the pack's name for it, or nothing to map it to none; `*=acne` maps all. "
        "May be repeated.",
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="PATTERN",
        help="How to recognise photos of one person, which intervals keep together: a column (`patient` finds "
        "`meta_patient`), a regular expression over the photo's name whose first or named group is the person, or `look` "
        "for photos that look alike. (default: the groups that the annotations name)",
    ),
]
TrainedOn = Annotated[
    Path | None,
    typer.Option(
        "--trained-on",
        metavar="LIST",
        help="The photos that the pack was trained on: the `train.csv` of a training, another list, or a folder. Counts "
        "the judged photos that show a person from the list, and gives separate numbers for them and the others.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        rich_help_panel=SELECTION,
        help="Only photos for which this condition on the columns of `images` is true, such as \"grade = 'severe' and "
        'prob_rosacea > 0.5". DuckDB evaluates it, without access to files.',
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(
        "--sample",
        min=1,
        metavar="N",
        rich_help_panel=SELECTION,
        help="N random photos, the same ones each time.",
    ),
]
Stratify = Annotated[
    str | None,
    typer.Option(
        "--stratify",
        metavar="A,B",
        rich_help_panel=SELECTION,
        help="With --sample: equally many photos from each combination of the values of these columns, such as grade,ita "
        "(`ita` is the skin tone); small groups give all they have.",
    ),
]
Uncertain = Annotated[
    int | None,
    typer.Option(
        "--uncertain",
        min=1,
        metavar="N",
        rich_help_panel=SELECTION,
        help="The N photos with the most boxes near the threshold. A box at it has the doubt 1, falling to 0 at 20 % "
        "above and below. The uncertainty is the sum of the doubts over 1 + the number of counted or doubtful boxes.",
    ),
]
Suspect = Annotated[
    int | None,
    typer.Option(
        "--suspect",
        min=1,
        metavar="N",
        rich_help_panel=SELECTION,
        help="The N photos whose annotations (--truth) the model contradicts most. A counted box where nothing is "
        "annotated adds its score (likely missed). One whose best IoU with an annotated box is under 0.5 adds its score "
        "times 1 - IoU / 0.5 (likely misplaced).",
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option(
        "--truth",
        metavar="T",
        rich_help_panel=SELECTION,
        help="The annotations for --suspect, in any supported format.",
    ),
]


def column_names(text: str | None) -> tuple[str, ...]:
    """Return the names in a list such as `grade,ita`."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def class_names(pairs: list[str]) -> dict[str, str]:
    """Return class of the truth -> class of the pack, from `THEIRS=OURS`."""
    values = dict(pair.partition("=")[::2] for pair in pairs)
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise UsageError(f"--map {wrong[0]}: give a class, `=` and the pack's name for it")
    return values


def _workers(text: str) -> int | str:
    try:
        count: int | str = worker_count(text)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from None
    return count


def _duration(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from None


def _moment(text: str) -> datetime:
    try:
        return moment_of(text)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from None


def _exit_code(text: str) -> int:
    if text not in {"1", "2", "3", "4", "5", "6", "7", "130"}:
        raise typer.BadParameter(
            f"{text!r} is not the exit code of a failure; those are 1 to 7 and 130"
        )
    return int(text)


Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N|MIN:MAX",
        parser=_workers,
        help="Number of workers. MIN:MAX starts as many as find room, up to MAX, and ends at once if there is no room "
        "for MIN. (default: one per GPU, or one per core with 2 GB of memory)",
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        parser=_duration,
        help="Hand out no more units after this time: 90 (seconds), 45m, 6h, 1h30m (exit 6).",
    ),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        metavar="MOMENT",
        parser=_moment,
        help="Skip photos last modified before this time, unless an earlier run planned them: 2026-11-29, "
        "2026-11-29T22:00Z, or 36h (ago). A nightly run does not need it: only new photos are scored anyway.",
    ),
]
ExitZeroOn = Annotated[
    list[int] | None,
    typer.Option(
        "--exit-zero-on",
        metavar="CODE",
        parser=_exit_code,
        help="Exit with 0 instead of this code, such as 6. May be repeated. --json still shows the true code.",
    ),
]


def print_json(value: Any) -> None:
    """Print a value indented and with sorted keys, so that two runs can be compared as text."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def say(message: str, exit_code: int, **more: str) -> None:
    """Print why the command ends, in the form of everything else that it writes to stderr."""
    if writes_json():
        event("error", logging.ERROR, message=message, exit_code=exit_code, **more)
    else:
        print(f"skinbatch: {message}", file=sys.stderr)
