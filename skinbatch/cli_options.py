"""What several commands have in common: arguments, options, and how a result is printed as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from skinbatch.durations import moment_of, seconds_of
from skinbatch.logs import event, writes_json

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder, tar, zip, Parquet, listing (uri column) or S3 Inventory manifest; local or s3://bucket/prefix.",
    ),
]
Dest = Annotated[
    str, typer.Argument(metavar="DEST", help="Where the tables go, or are: a folder or s3://bucket/prefix.")
]
PackName = Annotated[str | None, typer.Option("--pack", help="Name of a pack, or its folder. (default: starter)")]
EngineName = Annotated[
    str | None,
    typer.Option("--engine", help="ray (embedded unless a cluster is named) or local (no Ray). (default: ray)"),
]
RayAddress = Annotated[str | None, typer.Option("--ray-address", help="Ray cluster; also by RAY_ADDRESS.")]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Workers. (default: one a GPU, or one a core with 2 GB of memory)")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="auto, cpu or gpu. gpu waits for a node with one; auto takes GPUs that the cluster has or may add. "
        "(default: auto)",
    ),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings; options win over it.")]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        help="text, or json: on stderr one object a line, with `event`, `unit_id`, `image_id`. (default: text)",
    ),
]
Photos = Annotated[
    Path | None,
    typer.Option("--photos", metavar="DIR", help="Folder of the photos, where they are not beside the annotations."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
JsonLine = Annotated[
    bool,
    typer.Option("--json", help="Print the result, also that of a failure, as one line of JSON on stdout."),
]
Scoring = Annotated[
    str | None, typer.Option("--scoring", help="Fingerprint, or its first digits. (default: that of the newest run)")
]
Grading = Annotated[
    str | None,
    typer.Option(
        "--grading", help="Grading by `skinbatch regrade`: its id or scheme. (default: that of the first run)"
    ),
]


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
        raise typer.BadParameter(f"{text!r} is no exit code of a failure; those are 1 to 7 and 130")
    return int(text)


Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        parser=_duration,
        help="Hand out no more units after so long: 90 (seconds), 45m, 6h, 1h30m (exit 6).",
    ),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        metavar="MOMENT",
        parser=_moment,
        help="Leave out what was last modified before, unless it was planned by an earlier run: 2026-11-29, "
        "2026-11-29T22:00Z, or 36h before now. A nightly run does not need it: only new photos are scored anyway.",
    ),
]
ExitZeroOn = Annotated[
    list[int] | None,
    typer.Option(
        "--exit-zero-on",
        metavar="CODE",
        parser=_exit_code,
        help="End with 0 instead of this exit code, such as 6; may be repeated. --json still tells the true one.",
    ),
]


def print_json(value: Any) -> None:
    """Indented, keys sorted, so that two runs can be compared as text."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def say(message: str, exit_code: int, **more: str) -> None:
    """Print why the command ends, in the form of everything else that it writes to stderr."""
    if writes_json():
        event("error", logging.ERROR, message=message, exit_code=exit_code, **more)
    else:
        print(f"skinbatch: {message}", file=sys.stderr)
