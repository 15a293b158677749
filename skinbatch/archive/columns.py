"""Which column of a Parquet file holds the photos: told by the settings, by metadata or by content, never by its name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.archive.formats import HEAD_BYTES, image_format
from skinbatch.archive.members import BrokenArchiveError
from skinbatch.errors import SkinbatchError
from skinbatch.types import Status

# Rows that are looked at, and values that are, to tell a column of images from one of other bytes.
_SAMPLED_ROWS = 1000
_SAMPLED_VALUES = 8


class ParquetError(BrokenArchiveError):
    """Not a Parquet file that can be read."""


class AmbiguousError(ParquetError):
    """Several columns hold images, and nothing singles one out."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a Parquet file.

    image: path of the photos' bytes, None without one; top: the column that holds them. others: columns that pass through, of
    several with one name the first; coded: those of them whose values Arrow holds once and by number. names: all columns.
    candidates: columns that may hold images. rows: of all row groups.
    """

    image: str | None
    top: str
    names: tuple[str, ...]
    others: tuple[str, ...]
    coded: tuple[str, ...]
    candidates: tuple[str, ...]
    rows: int


def columns_in(parquet: pq.ParquetFile, image_column: str | None) -> Columns:
    """Return the columns of an open file.

    Args:
        image_column: the column that the settings name; a file without it has no photos.

    Raises:
        AmbiguousError: several columns hold images.
        ParquetError: the footer contradicts itself, or several columns have the name of the one with photos.
    """
    schema = parquet.schema_arrow
    paths = _candidates(schema)
    rows = _rows_in(parquet.metadata)
    top = _named(paths, image_column) if image_column is not None else _chosen(parquet, paths, rows)
    if top is not None and schema.names.count(top) > 1:
        raise ParquetError(Status.CORRUPT, f"has {schema.names.count(top)} columns called {top!r}")

    first = {f.name: f for f in reversed(schema)}
    others = tuple(name for name in dict.fromkeys(schema.names) if name != top and not holds_bytes(first[name].type))
    coded = tuple(name for name in others if pa.types.is_dictionary(first[name].type))
    image = None if top is None else paths[top]
    return Columns(image, top or "", tuple(schema.names), others, coded, tuple(paths), rows)


def holds_bytes(kind: pa.DataType) -> bool:
    """Return whether values of this type are bytes, or have bytes in them, which no text can say. A UUID has a text."""
    if isinstance(kind, pa.UuidType):
        return False
    kind = _plain(kind)
    if _is_bytes(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))


def _candidates(schema: pa.Schema) -> dict[str, str]:
    """Return the path of the bytes for every column that may hold photos: plain ones, and structs as Hugging Face has them."""
    paths = {}
    for column in schema:
        kind = _plain(column.type)
        if _is_bytes(kind) and column.name != "uri":
            paths[column.name] = column.name
        elif pa.types.is_struct(kind) and _has_bytes(kind):
            paths[column.name] = f"{column.name}.bytes"
    return paths


def _named(paths: Mapping[str, str], image_column: str) -> str | None:
    if image_column in paths:
        return image_column
    return next((name for name, path in paths.items() if path == image_column), None)


def _chosen(parquet: pq.ParquetFile, paths: Mapping[str, str], rows: int) -> str | None:
    """Raises AmbiguousError."""
    names = list(paths)
    if len(names) <= 1 or not rows:
        return names[0] if names else None

    features = [name for name in _image_features(parquet.schema_arrow) if name in paths]
    if len(features) == 1:
        return features[0]

    # A column whose values cannot be seen may hold images.
    possible = [name for name in features or names if _holds_images(parquet, name, paths[name]) is not False]
    if len(possible) > 1:
        raise AmbiguousError(
            Status.CORRUPT,
            f"has {len(possible)} columns that may hold the photos: {', '.join(possible)}; name the one to score with "
            "[source] image_column (--image-column)",
        )
    return possible[0] if possible else None


def _image_features(schema: pa.Schema) -> list[str]:
    """Return the columns that the metadata of Hugging Face's `datasets` calls images."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if feature.get("_type") == "Image"]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return []


def _holds_images(parquet: pq.ParquetFile, name: str, path: str) -> bool | None:
    """Return whether one of the first values begins like an image; None if there are none to be read."""
    values = 0
    try:
        batches = parquet.iter_batches(1, columns=[path], use_threads=False)
        for _, batch in zip(range(_SAMPLED_ROWS), batches, strict=False):
            for data in _bytes_of(batch.column(batch.schema.get_field_index(name))):
                if image_format(data[:HEAD_BYTES]) is not None:
                    return True
                values += 1
            if values >= _SAMPLED_VALUES:
                break
    except (SkinbatchError, MemoryError):
        raise
    except Exception:  # Arrow raises anything on hostile bytes, and what it cannot read it does not tell
        return None
    return False if values else None


def _bytes_of(column: pa.Array) -> Iterable[bytes]:
    for value in column.to_pylist():
        data = value.get("bytes") if isinstance(value, dict) else value
        if data:
            yield data


def _rows_in(footer: pq.FileMetaData) -> int:
    """As its row groups say: what it says of all of them together may be damaged. Raises ParquetError."""
    rows = [footer.row_group(n).num_rows for n in range(footer.num_row_groups)]
    if min(rows, default=0) < 0:
        raise ParquetError(Status.CORRUPT, f"says that it has {min(rows):,} rows")
    return sum(rows)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values behind codes and extensions."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _has_bytes(kind: pa.DataType) -> bool:
    at = kind.get_field_index("bytes")
    return at >= 0 and _is_bytes(_plain(kind.field(at).type))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
