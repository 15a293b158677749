"""Recognise the tool that wrote a JSON file of annotations, by its first and last bytes."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from skinbatch.errors import UsageError

Kind = Literal["coco", "label-studio", "labelme"]

# Bytes that are searched at each end of a file. Files that contain their photos may have gigabytes.
_END_BYTES = 1 << 20
_LABEL_STUDIO = (b'"result"', b'"completions"', b'"annotation_id"', b'labels"', b'"choices"')


def json_kind(file: Path) -> Kind | None:
    """Return the tool whose annotations a .json holds; None if it holds something else.

    Raises:
        UsageError: The file cannot be read.
    """
    try:
        stated = file.stat()
        return _kind(file, stated.st_mtime_ns, stated.st_size)
    except OSError as e:
        raise UsageError(f"{file}: cannot be read: {e.strerror}") from None


def load_json(file: Path, what: str) -> Any:
    """Return the content of a .json. what: what it should contain, for the message.

    Raises:
        UsageError: The file is not readable as JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise UsageError(f"{file}: not {what}: {e}") from None


# Cached, because the reader of every format asks for the kind of every file.
@lru_cache(maxsize=100_000)
def _kind(file: Path, mtime_ns: int, size: int) -> Kind | None:
    with open(file, "rb") as stream:
        ends = stream.read(_END_BYTES)
        stream.seek(max(_END_BYTES, size - _END_BYTES), os.SEEK_SET)
        ends += stream.read()

    start = ends.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        return "label-studio" if any(mark in ends for mark in _LABEL_STUDIO) else None
    if b'"shapes"' in ends and (b'"imagePath"' in ends or b'"imageHeight"' in ends):
        return "labelme"
    if b'"result"' in ends and (b'"task"' in ends or b'"data"' in ends) and b'"images"' not in ends:
        return "label-studio"
    if b'"images"' not in ends and b'"file_name"' not in ends:
        return None
    has_boxes = b'"bbox"' in ends or (b'"annotations"' in ends and b'"caption"' not in ends)
    return "coco" if has_boxes else None
