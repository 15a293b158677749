"""Find the column of a Parquet file that holds the photos.

The settings decide, then metadata, then content, but never the column's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.archive.member import BrokenArchiveError
from skinbatch.archive.ranged import RangedFile
from skinbatch.archive.sampling import Sampler
from skinbatch.types import Status


class ParquetError(BrokenArchiveError):
    """Report a file that cannot be read as Parquet."""


class AmbiguousError(ParquetError):
    """Report several columns of images, of which nothing selects one."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Describe the columns of a Parquet file.

    image: path of the photos' bytes, None if there is none. top: the column that holds them. names:
    all columns. others: columns that pass through; of several with one name, the first. coded:
    those of them that Arrow stores as numbered values. candidates: columns that may hold images.
    rows: of all row groups.
    """

    image: str | None
    top: str
    names: tuple[str, ...]
    others: tuple[str, ...]
    coded: tuple[str, ...]
    candidates: tuple[str, ...]
    rows: int


def columns_in(
    parquet: pq.ParquetFile, file: RangedFile, image_column: Sequence[str], sample: Sampler
) -> Columns:
    """Return the columns of an open file.

    Args:
        image_column: columns that the settings name. A file without any of them has no photos.
        sample: examines values if neither settings nor metadata decide.

    Raises:
        AmbiguousError: several columns hold images.
        ParquetError: the footer contradicts itself, or several columns have the same name as the
            one with photos.
    """
    schema = parquet.schema_arrow
    paths = _candidates(schema)
    # Their photos are not read, but they may be the photos that belong to the masks or thumbnails
    # of another column.
    nested = _nested(schema, paths) if paths else []
    rows = _rows_in(parquet.metadata)
    if image_column:
        top = next(
            (
                name
                for name_or_path in image_column
                for name, path in paths.items()
                if name_or_path in (name, path)
            ),
            None,
        )
    elif not rows or len(paths) + len(nested) <= 1:
        top = next(iter(paths), None)
    else:
        top = _chosen(parquet, file, paths, nested, sample)
    if top is not None and schema.names.count(top) > 1:
        raise ParquetError(Status.CORRUPT, f"has {schema.names.count(top)} columns called {top!r}")

    first = {f.name: f for f in reversed(schema)}
    others = tuple(
        name
        for name in dict.fromkeys(schema.names)
        if name != top and not holds_bytes(first[name].type)
    )
    coded = tuple(name for name in others if pa.types.is_dictionary(first[name].type))
    image = None if top is None else paths[top]
    return Columns(image, top or "", tuple(schema.names), others, coded, tuple(paths), rows)


def holds_bytes(kind: pa.DataType) -> bool:
    """Return whether values of this type are or contain bytes without a text (a UUID has one)."""
    if isinstance(kind, pa.UuidType):
        return False
    kind = _plain(kind)
    if _is_bytes(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))


def _candidates(schema: pa.Schema) -> dict[str, str]:
    """Return the path of the bytes for each column that may hold photos.

    These are plain columns, and structs such as Hugging Face's.
    """
    paths = {}
    for column in schema:
        kind = _plain(column.type)
        if _is_bytes(kind) and column.name != "uri":
            paths[column.name] = column.name
        elif pa.types.is_struct(kind) and _has_bytes(kind):
            paths[column.name] = f"{column.name}.bytes"
    return paths


def _nested(schema: pa.Schema, paths: Mapping[str, str]) -> list[str]:
    """Return the columns that hold bytes within lists or structs, where photos are not read."""
    inner = [column for column in schema if column.name not in paths and column.name != "uri"]
    return [
        column.name
        for column in inner
        if _plain(column.type).num_fields and holds_bytes(column.type)
    ]


def _chosen(
    parquet: pq.ParquetFile,
    file: RangedFile,
    paths: Mapping[str, str],
    nested: Sequence[str],
    sample: Sampler,
) -> str | None:
    """Return the one column that holds images; None if none does. Raises AmbiguousError."""
    places = {**paths, **{name: name for name in nested}}
    features = [name for name in _image_features(parquet.schema_arrow) if name in places]
    if len(features) == 1 and features[0] in paths:
        return features[0]

    # A plain column whose values cannot be read may hold images. A list or struct rarely does.
    verdicts = sample(parquet, file, {name: places[name] for name in features or places})
    unread = [name for name in nested if verdicts.get(name)]
    if len(paths) == 1 and not unread:
        return next(iter(paths))

    possible = [name for name in paths if name in verdicts and verdicts[name] is not False] + unread
    if len(possible) > 1:
        inner = (
            f" ({', '.join(unread)}: within lists or structs, where photos are not read)"
            if unread
            else ""
        )
        raise AmbiguousError(
            Status.CORRUPT,
            f"has {len(possible)} columns that may hold the photos: {', '.join(possible)}{inner}; name the one to score "
            "with [source] image_column (--image-column)",
        )
    return possible[0] if possible and not unread else None


def _image_features(schema: pa.Schema) -> list[str]:
    """Return the columns that the metadata of Hugging Face's `datasets` marks as images."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if _has_images(feature)]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return []


def _has_images(feature: object) -> bool:
    """Return whether a feature is an image, or has images in a sequence, a list or named parts."""
    if isinstance(feature, dict):
        return feature.get("_type") == "Image" or any(
            _has_images(part) for part in feature.values()
        )
    return isinstance(feature, list) and any(_has_images(part) for part in feature)


def _rows_in(footer: pq.FileMetaData) -> int:
    """Return the sum of the row groups' rows; the footer's own total may be damaged.

    Raises ParquetError.
    """
    rows = [footer.row_group(n).num_rows for n in range(footer.num_row_groups)]
    if min(rows, default=0) < 0:
        raise ParquetError(Status.CORRUPT, f"declares {min(rows):,} rows")
    return sum(rows)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values behind dictionary codes and extensions."""
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
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )
