"""Define the commands that look at a destination: `status` and `verify`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from skinbatch.cli.options import ConfigFile, Dest, Json, Scoring, print_json
from skinbatch.config import load_config
from skinbatch.console import cost_lines, counted
from skinbatch.engines.terminal import clock

if TYPE_CHECKING:
    from skinbatch.runs.status import ScoringStatus


def status(
    dest: Dest, scoring: Scoring = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Show what is done, left and failed, the speed, the cost and the time left, even during a run.

    The cost is that of the newest run: worker-hours from when each worker was ready, requests to
    S3, bytes, and money where prices are set in [prices].
    """
    from skinbatch.reading import destination_store
    from skinbatch.runs.status import read_status

    settings = load_config(config)
    status = read_status(destination_store(dest, settings.storage), scoring, settings.prices)
    if as_json:
        print_json(dataclasses.asdict(status))
        return
    photos = f"{status.photos_done} of {status.photos_total}" + (
        "" if status.total_known else " or more"
    )
    print(
        f"{status.state}: {photos} photos done, {status.units_left} of {status.units_total} units left"
    )
    if status.statuses:
        print(f"  rows     {counted(status.statuses)}")
    again = {"units retried": status.units_retried, "photos isolated": status.photos_isolated}
    again |= {"requests retried": status.requests_retried, "throttled": status.requests_throttled}
    if any(again.values()):
        print(f"  trouble  {counted({name: n for name, n in again.items() if n})}")
    if status.photos_per_second:
        left = f", {clock(status.left_s)} left" if status.left_s is not None else ""
        print(f"  rate     {status.photos_per_second:.1f} photos/s{left}")
    for line in cost_lines(status.cost, status.money, status.currency):
        print(line)
    print(
        f"  scoring  {status.fingerprint}, last written {status.updated}"
        + (f"\n  message  {status.message}" if status.message else "")
    )
    print(f"  scorings {len(status.scorings)}")
    for scoring_of in status.scorings:
        print(f"    {_scoring_line(scoring_of, status.fingerprint)}")


def _scoring_line(scoring: ScoringStatus, shown: str) -> str:
    photos = f"{scoring.photos} photos" + ("" if scoring.finished else " so far")
    line = f"{scoring.fingerprint}  {scoring.created[:10]}  pack {scoring.pack}, {photos}, {scoring.state}"
    if scoring.taken:
        line += f", takes {', '.join(scoring.taken)} from {next(iter(scoring.taken.values()))}"
    return line + (" (above)" if scoring.fingerprint == shown else "")


def verify(
    dest: Dest, scoring: Scoring = None, config: ConfigFile = None, as_json: Json = False
) -> None:
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
