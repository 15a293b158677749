"""Keep stdin, stdout and stderr usable when they are closed or lose their reader."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO


class _Patient(io.FileIO):
    """Take whatever is written to a descriptor, and drop what nobody can read any more."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as e:
            if e.errno == errno.EAGAIN:
                raise
            self._drop_the_rest(e)
            return len(data)

    def _drop_the_rest(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        # A reader that leaves early, as `head` does, needs no message. A full disk does.
        if error.errno != errno.EPIPE and self.fileno() != 2:
            print(f"skinbatch: stdout could not be written: {error.strerror}", file=sys.stderr)


def keep_writable() -> None:
    """Make writing to stdout and stderr never fail, so that a command's exit code is that of its work.

    A descriptor that was closed (`>&-`) is opened on the null device first: otherwise the next file that the program
    opens would take its number, and child processes would write into that file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Takes the lowest free number.
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)

    sys.stderr = _text(2, sys.stderr)
    sys.stdout = _text(1, sys.stdout)


def _text(descriptor: int, before: TextIO | None) -> TextIO:
    raw = _Patient(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",  # file names need not be text in any encoding
        line_buffering=descriptor == 2 or raw.isatty(),
    )
