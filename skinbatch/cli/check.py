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
    found = read_status(destination_store(dest, settings.storage), scoring, settings.prices)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    photos = f"{found.photos_done} of {found.photos_total}" + (
        "" if found.total_known else " or more"
    )
    print(
        f"{found.state}: {photos} photos done, {found.units_left} of {found.units_total} units left"
    )
    if found.statuses:
        print(f"  rows     {counted(found.statuses)}")
    again = {"units retried": found.units_retried, "photos isolated": found.photos_isolated}
    again |= {"requests retried": found.requests_retried, "throttled": found.requests_throttled}
    if any(again.values()):
        print(f"  trouble  {counted({name: n for name, n in again.items() if n})}")
    if found.photos_per_second:
        left = f", {clock(found.left_s)} left" if found.left_s is not None else ""
        print(f"  rate     {found.photos_per_second:.1f} photos/s{left}")
    for line in cost_lines(found.cost, found.money, found.currency):
        print(line)
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
