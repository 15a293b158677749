"""Read a file that names photos by their image_id."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.annotations.table import place_of, rows_of
from skinbatch.annotations.tree import read_text
from skinbatch.errors import UsageError

_COLUMN = "image_id"


def read_image_ids(path: Path) -> frozenset[str]:
    """Return the image_ids that a file names.

    Args:
        path: A Parquet file, CSV or TSV with a column `image_id`, or any other text with one
            image_id on each line.

    Raises:
        UsageError: If the file cannot be read, lacks the column, or names no photo.

    Example:
        >>> read_image_ids(Path("wrong.txt"))  # doctest: +SKIP
        frozenset({'a.jpg', 'tars/1.tar/b.jpg'})
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        names = _of_parquet(path)
    elif ending in (".csv", ".tsv"):
        names = _of_csv(path)
    else:
        names = [line.strip() for line in read_text(path).splitlines()]

    image_ids = frozenset(name for name in names if name)
    if not image_ids:
        raise UsageError(f"{path}: names no photo; write one image_id on each line")
    return image_ids


def _of_parquet(path: Path) -> list[str]:
    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if _COLUMN not in columns:
                raise _no_column(path, columns)
            column = file.read([_COLUMN], use_threads=False).column(_COLUMN)
    except (pa.ArrowException, OSError) as e:
        raise UsageError(f"{path}: not readable as Parquet: {e}") from None
    return [str(name) for name in column.to_pylist() if name is not None]


def _of_csv(path: Path) -> list[str]:
    header, rows = rows_of(path)
    place = place_of(header, (_COLUMN,))
    if place is None:
        raise _no_column(path, header)
    return [cells[place].strip() for _, cells in rows]


def _no_column(path: Path, columns: list[str]) -> UsageError:
    return UsageError(f"{path}: no column {_COLUMN}; its columns are {', '.join(columns)}")
