"""Write the lists of the photos that a training used."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from skinbatch.train.fitting.saved_state import whole
from skinbatch.train.photos.groups import TakenPhoto


def write_listing(path: Path, photos: Sequence[TakenPhoto]) -> None:
    """Write a listing for `skinbatch score`: one column, `uri`."""
    _write(path, [["uri"], *([str(photo.path)] for photo in photos)])


def write_trained_on(path: Path, photos: Sequence[TakenPhoto]) -> None:
    """Write a list for `skinbatch evaluate --trained-on`: `uri`, `name` and `group`."""
    rows = [[str(photo.path), photo.photo.name, photo.photo.group or ""] for photo in photos]
    _write(path, [["uri", "name", "group"], *rows])


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with whole(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
