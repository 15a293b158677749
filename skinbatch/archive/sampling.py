"""Decide from first values whether the columns of a Parquet file hold images.

Values are in pages that Arrow unpacks as a whole, so a hostile file can end the process that reads
them. That may happen to a worker, which is replaced. The driver therefore uses a separate process.
"""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.archive.formats import HEAD_BYTES, image_format
from skinbatch.archive.ranged import RangedFile
from skinbatch.errors import SkinbatchError, StoreError, memory_is_full

# Most rows and values that are examined to distinguish a column of images from other bytes.
_ROWS = 1000
_VALUES = 8
# Limits on the process that examines the first values.
_SECONDS = 60.0
_BYTES = 2 << 30

Verdicts: TypeAlias = dict[str, bool | None]
Sampler: TypeAlias = Callable[[pq.ParquetFile, RangedFile, Mapping[str, str]], Verdicts]

_lock = threading.Lock()
_known: dict[tuple[str, str], Verdicts] = {}


def sample_here(parquet: pq.ParquetFile, file: RangedFile, paths: Mapping[str, str]) -> Verdicts:
    """Return for each column whether one of its first values begins like an image.

    The value is None if no value can be read.

    Args:
        paths: column -> path of its bytes, or the column itself where they lie within lists or structs.
    """
    return {name: _holds_images(parquet, name, path) for name, path in paths.items()}


def sample_apart(parquet: pq.ParquetFile, file: RangedFile, paths: Mapping[str, str]) -> Verdicts:
    """Do the same in a separate process, once for all files with the same schema.

    Workers still check each file.

    Raises:
        StoreError: the file cannot be read.
    """
    schema = (str(parquet.schema_arrow), " ".join(paths))
    with _lock:
        if schema not in _known:
            _known[schema] = _ask(file, paths)
        return _known[schema]


def _ask(file: RangedFile, paths: Mapping[str, str]) -> Verdicts:
    question = pickle.dumps((file.place, dict(paths)))
    unknown: Verdicts = dict.fromkeys(paths)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "skinbatch.archive.sampling"],
            input=question,
            capture_output=True,
            timeout=_SECONDS,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # the file has ended or blocked the process
        return unknown
    if "error" in answer:
        raise StoreError(answer["error"])
    return unknown | answer["verdicts"]


def _answer() -> dict[str, Any]:
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    place, paths = pickle.load(sys.stdin.buffer)
    file = RangedFile(*place)
    try:
        parquet = pq.ParquetFile(
            pa.PythonFile(file, mode="r"), pre_buffer=False, page_checksum_verification=True
        )
        return {"verdicts": sample_here(parquet, file, paths)}
    except SkinbatchError as e:
        return {"error": str(e)}


def _holds_images(parquet: pq.ParquetFile, name: str, path: str) -> bool | None:
    values = 0
    try:
        batches = parquet.iter_batches(1, columns=[path], use_threads=False)
        for _, batch in zip(range(_ROWS), batches, strict=False):
            for data in _bytes_of(batch.column(batch.schema.get_field_index(name)).to_pylist()):
                if image_format(data[:HEAD_BYTES]) is not None:
                    return True
                values += 1
            if values >= _VALUES:
                break
    except SkinbatchError:
        raise
    except Exception as e:  # Arrow raises anything on hostile bytes; the verdict is unknown
        if memory_is_full(e):
            raise
        return None
    return False if values else None


def _bytes_of(value: object) -> Iterator[bytes]:
    """Yield all bytes within a value, however deep in lists and structs, but for empty ones."""
    if isinstance(value, bytes):
        if value:
            yield value
    elif isinstance(value, dict):
        yield from _bytes_of(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _bytes_of(part)


if __name__ == "__main__":
    print(json.dumps(_answer()))
