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

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from skinbatch.engines.presenter import Progress as RunProgress
from skinbatch.logs import event, write_json
from skinbatch.redact import redacted
from skinbatch.runs.report import RunReport

PLAIN_EVERY_S = 10.0


class QuietConsole(Console):
    """Print to a reader that may go away without ending the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class TerminalPresenter:
    """Show a bar with rate, time left and failures on a terminal, or a plain line every ten
    seconds.

    Everything is written to stderr.
    """

    def __init__(self) -> None:
        self.console = QuietConsole(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._phase = ""
        self._last = 0.0

    def __enter__(self) -> TerminalPresenter:
        if self.console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                _Counts(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None, run=None)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def phase(self, text: str) -> None:
        if text == self._phase:
            return
        self._phase = text
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text)
        elif time.monotonic() - self._last > 1:  # a listing updates its count often
            self._plain(text)

    def note(self, text: str) -> None:
        self.console.print(f"note: {redacted(text)}", style="yellow", markup=False, soft_wrap=True)

    def progress(self, progress: RunProgress) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, total=progress.photos_total or None, completed=progress.photos_done, run=progress
            )
        elif time.monotonic() - self._last > PLAIN_EVERY_S:
            self._plain(describe(progress))

    def _plain(self, text: str) -> None:
        self._last = time.monotonic()
        self.console.print(f"skinbatch: {redacted(text)}", markup=False, soft_wrap=True)


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


class _Counts(ProgressColumn):
    def render(self, task: Task) -> Text:
        run = task.fields.get("run")
        return Text(describe(run) if run is not None else "")


def describe(p: RunProgress) -> str:
    """Return one line, such as `120/283 photos, 4.1/s, 0:40 left, 2 failed` or `90/90 or more
    photos`.
    """
    parts = [f"{p.photos_done}/{p.photos_total}{'' if p.total_known else ' or more'} photos"]
    if p.rate > 0:
        parts.append(f"{p.rate:.1f}/s")
    if p.left_s is not None:
        parts.append(f"{clock(p.left_s)} left")
    if p.failed:
        parts.append(f"{p.failed} failed")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


def counted(counts: Mapping[str, int]) -> str:
    """Return counts as text, most frequent first: `271 ok, 8 corrupt, 4 truncated`."""
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda c: (-c[1], c[0])))


def query(dest: str, config: Path | None = None) -> str:
    """Return a shell line that shows the results from the current tables.

    config: the run's settings file.
    """
    sql = "select status, grade, count(*) photos, round(avg(count_total), 1) lesions from images group by all order by 3 desc"
    where = json.dumps(dest) + (f", config={json.dumps(str(config.absolute()))}" if config is not None else "")
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
    new = f"{report.scored} scored" + (f", {report.copied} copied from older results" if report.copied else "")
    if report.vanished:
        new += f", {report.vanished} gone since they were listed"
    if not report.nothing_to_do:
        lines.append(f"  this run {new}, {report.photos_per_second:.1f} photos/s, {clock(report.seconds)}")
    if report.units_left:
        lines.append(f"  left     {report.units_left} of {report.units} units")
    if report.skipped:
        reasons = any(name.startswith("(") for name in report.skipped)  # these names contain the reason
        lines.append(f"  skipped  {counted(report.skipped)}{'' if reasons else ' (not photos)'}")
    lines += [f"  images   {report.images}", f"  boxes    {report.boxes}"]
    dest = shlex.quote(report.destination) + (f" --config {shlex.quote(str(config))}" if config is not None else "")
    if report.nothing_to_do and not report.rows:  # nothing has been planned here yet
        return "\n".join(lines)
    if report.exit_code in (0, 3):
        lines.append(f"  prove    skinbatch verify {dest}")
        if report.failed:
            lines.append(f"  again    skinbatch retry {dest}   # only the {report.failed} that failed")
        lines += ["  look     " + query(report.destination, config)]
    else:
        lines.append(f"  look     skinbatch status {dest}")
    return "\n".join(lines)
