"""Show a run's progress to people: a bar on a terminal, one line in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from skinbatch.engines.presenter import Presenter, RunProgress, SilentPresenter
from skinbatch.redact import redacted

PLAIN_EVERY_S = 10.0

# A notebook's line is written again at most this often.
_LINE_EVERY_S = 0.5


@contextmanager
def shown(presenter: Presenter | None) -> Iterator[Presenter]:
    """Yield the presenter, or the one that suits where the program runs.

    That is one line in a notebook, a bar where stderr is a terminal, and otherwise silence.
    """
    if presenter is not None:
        yield presenter
    elif Console().is_jupyter:
        with LinePresenter(sys.stderr) as line:
            yield line
    elif sys.stderr is not None and sys.stderr.isatty():
        with TerminalPresenter() as bar:
            yield bar
    else:
        yield SilentPresenter()


class QuietConsole(Console):
    """Print to a reader that may go away without ending the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Display:
    """Show a bar on stderr if that is a terminal, and plain lines otherwise.

    Notes and lines stay above the bar.
    """

    def __init__(self, bar_width: int) -> None:
        self._console = QuietConsole(stderr=True, highlight=False)
        self._bar_width = bar_width
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=self._bar_width),
                _Position(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None, position="")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        self._console.print(f"note: {redacted(text)}", style="yellow", markup=False, soft_wrap=True)

    def _move(self, completed: int, total: int | None, position: str) -> None:
        """Move the bar, or print the position if none was printed for ten seconds."""
        if self._bar is not None:
            self._bar.update(self._task, total=total, completed=completed, position=position)
        elif time.monotonic() - self._last > PLAIN_EVERY_S:
            self._line(position)

    def _line(self, text: str) -> None:
        self._last = time.monotonic()
        self._console.print(f"skinbatch: {redacted(text)}", markup=False, soft_wrap=True)


class TerminalPresenter(Display):
    """Show a run's rate, time left and failures. Implements Presenter."""

    def __init__(self) -> None:
        super().__init__(bar_width=28)
        self._phase = ""

    def phase(self, text: str) -> None:
        if text == self._phase:
            return
        self._phase = text
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        elif time.monotonic() - self._last > 1:  # a listing updates its count often
            self._line(text)

    def progress(self, progress: RunProgress) -> None:
        self._move(progress.photos_done, progress.photos_total or None, describe(progress))


class LinePresenter:
    """Show progress as one line that is written over, as notebooks allow. Implements Presenter."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phase = ""
        self._position = ""
        self._width = 0
        self._last = 0.0

    def __enter__(self) -> LinePresenter:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave the number of photos on the line, not the last phase."""
        if self._position:
            self._write(self._position)
        if self._width:
            print(file=self._stream)

    def phase(self, text: str) -> None:
        if text != self._phase:
            self._phase = text
            self._write(redacted(text))

    def note(self, text: str) -> None:
        self._write(f"note: {redacted(text)}")
        print(file=self._stream)
        self._width = 0

    def progress(self, progress: RunProgress) -> None:
        self._position = describe(progress)
        finished = progress.total_known and progress.photos_done == progress.photos_total
        if finished or time.monotonic() - self._last > _LINE_EVERY_S:
            self._write(self._position)

    def _write(self, text: str) -> None:
        """Write over the line. Blanks hide the rest of a longer one."""
        self._last = time.monotonic()
        print(f"\r{text:<{self._width}}", end="", file=self._stream, flush=True)
        self._width = len(text)


class _Position(ProgressColumn):
    """Show the position in one line, however narrow the terminal is."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(task.fields["position"])


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
