"""Show what people see while a run works and when it has ended."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from skinbatch.engines.presenter import RunProgress
from skinbatch.engines.terminal import PLAIN_EVERY_S, TerminalPresenter, clock
from skinbatch.logs import event, write_json
from skinbatch.runs.cost import Cost, amount, size, worker_time
from skinbatch.runs.run_report import RunReport


class JsonPresenter:
    """Write events to the log, for machines to read, and progress every ten seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._last = 0.0

    def __enter__(self) -> JsonPresenter:
        write_json(sys.stderr)
        return self

    def __exit__(self, *exc: object) -> None:
        """Do nothing: the log stays open until the command has reported how it ends."""

    def phase(self, text: str) -> None:
        if text != self._phase:
            self._phase = text
            event("phase", phase=text)

    def note(self, text: str) -> None:
        event("note", logging.WARNING, message=text)

    def progress(self, progress: RunProgress) -> None:
        if time.monotonic() - self._last > PLAIN_EVERY_S:
            self._last = time.monotonic()
            event("progress", **dataclasses.asdict(progress))


def presenter_of(log_format: str) -> TerminalPresenter | JsonPresenter:
    """Return the presenter for [run] log_format."""
    return JsonPresenter() if log_format == "json" else TerminalPresenter()


def counted(counts: Mapping[str, int]) -> str:
    """Return counts as text, most frequent first: `271 ok, 8 corrupt, 4 truncated`."""
    return ", ".join(
        f"{n} {name}" for name, n in sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    )


def cost_lines(cost: Cost, money: float | None, currency: str | None) -> list[str]:
    """Return what a run has taken, as lines of a summary; none if nothing is recorded."""
    lines = []
    if cost.worker_hours:
        rate = cost.photos_per_worker_hour
        text = f"  cost     {worker_time(cost.worker_seconds)}"
        text += "" if rate is None else f", {rate:,.0f} photos per worker-hour"
        lines.append(text if money is None else f"{text}, {amount(money, currency)}")
    if cost.bytes_read or cost.bytes_written:
        text = f"  traffic  {size(cost.bytes_read)} read, {size(cost.bytes_written)} written"
        if cost.requests_get or cost.requests_put:
            text += f", {cost.requests_get:,.0f} get and {cost.requests_put:,.0f} put requests"
        lines.append(text)
    return lines


def query(dest: str, config: Path | None = None) -> str:
    """Return a shell line that shows the results from the current tables.

    config: the run's settings file.
    """
    sql = "select status, grade, count(*) photos, round(avg(count_total), 1) lesions from images group by all order by 3 desc"
    where = json.dumps(dest) + (
        f", config={json.dumps(str(config.absolute()))}" if config is not None else ""
    )
    images = f"images = skinbatch.open({where}).images()"
    program = f"import duckdb, skinbatch; {images}; print(duckdb.sql({json.dumps(sql)}))"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def summary(report: RunReport, config: Path | None = None) -> str:
    """Return the end of a run as text: the photos, the tables and the next steps.

    config: the run's settings file.
    """
    lines = [report.message[:1].upper() + report.message[1:] + "."]
    if report.rows:
        lines.append(f"  photos   {report.rows}: {counted(report.statuses)}")
    new = f"{report.scored} scored" + (
        f", {report.copied} copied from older results" if report.copied else ""
    )
    if report.vanished:
        new += f", {report.vanished} gone since they were listed"
    if not report.nothing_to_do:
        lines.append(
            f"  this run {new}, {report.photos_per_second:.1f} photos/s, {clock(report.seconds)}"
        )
        lines += cost_lines(report.cost, report.money, report.currency)
    if report.taken:
        parts = ", ".join(f"{stage} of {photos}" for stage, photos in sorted(report.taken.items()))
        lines.append(f"  taken    {parts} photos, from scoring {report.taken_from}")
    if report.units_left:
        lines.append(f"  left     {report.units_left} of {report.units} units")
    if report.skipped:
        # These names contain the reason.
        reasons = any(name.startswith("(") for name in report.skipped)
        lines.append(f"  skipped  {counted(report.skipped)}{'' if reasons else ' (not photos)'}")
    lines += [f"  images   {report.images}", f"  boxes    {report.boxes}"]
    dest = shlex.quote(report.destination) + (
        f" --config {shlex.quote(str(config))}" if config is not None else ""
    )
    if report.nothing_to_do and not report.rows:  # nothing has been planned here yet
        return "\n".join(lines)
    if report.exit_code in (0, 3):
        lines += [f"  check    skinbatch verify {dest}", f"  report   skinbatch report {dest}"]
        if report.failed:
            lines.append(
                f"  again    skinbatch retry {dest}   # only the {report.failed} that failed"
            )
        lines += ["  look     " + query(report.destination, config)]
    else:
        lines.append(f"  look     skinbatch status {dest}")
    return "\n".join(lines)
