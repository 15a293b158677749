"""Find a column of the images by its name, or by the name of its field in the source."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.runs.results import Results
from skinbatch.tables.meta import add_meta_columns
from skinbatch.tables.names import META_PREFIX, safe_text
from skinbatch.tables.schema import META


def named_column(results: Results, name: str, image_ids: Sequence[str]) -> list[str | None] | None:
    """Return the values of a column as text, in the order of `image_ids`; None without the column.

    Args:
        results: of a destination.
        name: a column such as `view` or `meta_patient`, or a field of `meta` such as `patient`.
        image_ids: photos of the table.

    Example:
        >>> named_column(skinbatch.open("scored"), "patient", ["a.jpg"])  # doctest: +SKIP
        ['p12']
    """
    fields = add_meta_columns(results.images(["image_id", META]))
    column = next(
        (c for c in (name, META_PREFIX + safe_text(name)) if c in fields.column_names), None
    )
    if column is not None:
        table = fields
    elif name in results.stored_columns:
        column, table = name, results.images(["image_id", name])
    else:
        return None

    places = pc.index_in(
        pa.array(image_ids, pa.string()), value_set=table.column("image_id").combine_chunks()
    )
    values = pc.cast(table.column(column), pa.string()).combine_chunks().take(places)
    return [text or None for text in values.to_pylist()]


def fields_of(results: Results) -> list[str]:
    """Return the columns of fields that passed through from the source, for messages."""
    table = add_meta_columns(results.images([META]))
    return [name for name in table.column_names if name.startswith(META_PREFIX)]
