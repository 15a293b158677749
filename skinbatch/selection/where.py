"""Choose rows of `images` by an SQL condition."""

from __future__ import annotations

import re

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.errors import UsageError
from skinbatch.tables.meta import add_meta_columns
from skinbatch.tables.names import META_PREFIX, closest
from skinbatch.tables.schema import META

# A condition cannot read files, load extensions, change settings, or see variables of this program.
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
_TEXT = re.compile(r"'(?:[^']|'')*'")
_FIELD = re.compile(rf'"({META_PREFIX}[^"]+)"|\b({META_PREFIX}\w+)', re.IGNORECASE)
_UNKNOWN = re.compile(r'Referenced column "(.+?)" (?:was )?not found')


def closed_connection() -> duckdb.DuckDBPyConnection:
    """Return a connection to an empty database that cannot reach files or other databases."""
    return duckdb.connect(":memory:", config=_CLOSED)


class Where:
    """Filter `images` by a condition on its columns, as in SQL's WHERE, evaluated by DuckDB.

    Pass-through fields are columns `meta_<name>`.

    >>> Where("grade = 'severe' and count_total > 30", images.schema).rows(images)  # doctest: +SKIP
    """

    def __init__(self, text: str, schema: pa.Schema) -> None:
        """Check a condition.

        Args:
            text: The condition.
            schema: Of `images`, as stored.

        Raises:
            UsageError: It is no condition, or names a column that does not exist. The message has
                similar names.
        """
        self.text = text
        self._connection = closed_connection()
        self._fields = {quoted or plain for quoted, plain in _FIELD.findall(_TEXT.sub("''", text))}
        self._fields -= {name for name in self._fields if name in schema.names}
        self._known_fields: dict[str, None] = {}
        self.rows(schema.empty_table())

    def rows(self, images: pa.Table) -> pa.Table:
        """Return the rows for which the condition is true, with their stored columns."""
        table = images
        if self._fields:
            table = add_meta_columns(images) if images.num_rows else images
            fields = [name for name in table.column_names if name not in images.column_names]
            self._known_fields |= dict.fromkeys(fields)
            lower = {name.lower() for name in fields}
            for name in sorted(name for name in self._fields if name.lower() not in lower):
                table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))

        try:
            relation = self._connection.from_arrow(table).filter(self.text)
            names = [name for (name,) in relation.project("image_id").fetchall()]
        except duckdb.Error as e:
            raise UsageError(
                f"--where {self.text}: {self._explained(str(e), table.column_names)}"
            ) from None
        return images.filter(
            pc.is_in(images.column("image_id"), value_set=pa.array(names, pa.string()))
        )

    def finish(self) -> None:
        """Raise UsageError for a pass-through field that no photo had."""
        known = {name.lower() for name in self._known_fields}
        for name in sorted(self._fields):
            if name.lower() not in known:
                raise UsageError(
                    f"--where {self.text}: no photo has {name!r}{closest(name, list(self._known_fields))}"
                )

    def _explained(self, message: str, columns: list[str]) -> str:
        """Return DuckDB's message, with the columns that have similar names."""
        unknown = _UNKNOWN.search(message)
        if unknown is None:
            return " ".join(message.split("\n\n")[0].split())
        name = unknown[1]
        known = [column for column in columns if column != META]
        if f'"{name}"' in self.text and not any(name in column for column in known):
            return f"`images` has no column {name!r}; texts are in single quotes: '{name}'"
        return f"`images` has no column {name!r}{closest(name, known)}"
