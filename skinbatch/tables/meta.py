"""Write and read the column `meta`, which carries fields from the source into the tables.

Each row holds one JSON object. Readers turn its fields into columns `meta_<name>`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from skinbatch.tables.names import META_PREFIX, meta_columns, original_text, safe_text
from skinbatch.tables.schema import META, META_FIELD, meta_column_field


def meta_json(meta: Mapping[str, str]) -> str:
    """Return the fields of one photo as the text of a JSON object, sorted by name.

    Returns `{}` if there are none.
    """
    if not meta:
        return "{}"

    fields = {safe_text(name): safe_text(value) for name, value in meta.items()}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True)


def add_meta_columns(table: pa.Table) -> pa.Table:
    """Return the table with a column `meta_<name>` for each field that any row has in `meta`.

    table: must have the column `meta`. The new columns are strings, sorted by name, and null where
    a row lacks the field.
    """
    # Rows often share their fields, so each distinct text of a chunk is parsed once.
    chunks = [chunk.dictionary_encode() for chunk in table.column(META).chunks]
    parsed = [[_fields(text) for text in chunk.dictionary.to_pylist()] for chunk in chunks]
    names = {name for of_chunk in parsed for fields in of_chunk for name in fields}

    for name, column in meta_columns(names, table.column_names).items():
        arrays = []
        for chunk, of_chunk in zip(chunks, parsed, strict=True):
            values = pa.array([fields.get(name) for fields in of_chunk], pa.string())
            arrays.append(values.take(chunk.indices))
        table = table.append_column(
            meta_column_field(column), pa.chunked_array(arrays, pa.string())
        )
    return table


def with_meta(table: pa.Table, computed: Sequence[str] = ()) -> pa.Table:
    """Return a table of schema version 1 with a column `meta` for its columns `meta_<name>`.

    Tables that have the column `meta` are returned as they are. computed: columns that begin with
    `meta_` but hold probabilities (of a classifier head named `meta`).
    """
    if META in table.column_names:
        return table

    old = [
        name for name in table.column_names if name.startswith(META_PREFIX) and name not in computed
    ]
    texts = ["{}"] * table.num_rows
    if old:
        rows = zip(*(table.column(name).to_pylist() for name in old), strict=True)
        names = [name.removeprefix(META_PREFIX) for name in old]
        texts = [_object_of(names, values) for values in rows]
    return table.drop_columns(old).append_column(META_FIELD, pa.array(texts, pa.string()))


def _object_of(names: Sequence[str], values: Sequence[str | None]) -> str:
    # Version 1 stored its names and values already escaped.
    fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True)


def _fields(text: str) -> dict[str, str]:
    """Return the fields of a JSON object by their original names, all values as text."""
    values: Any = json.loads(text)
    fields = {}
    for name, value in values.items():
        if value is not None:
            text_of_value = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
            fields[original_text(name)] = text_of_value
    return fields
