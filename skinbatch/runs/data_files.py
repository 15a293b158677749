"""Read the data files of a scoring, whichever version of the tables they were written in."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from skinbatch.errors import UsageError
from skinbatch.runs import destination, layout
from skinbatch.runs.merged import read_part
from skinbatch.runs.stub import Stub
from skinbatch.storage.store import Store
from skinbatch.tables.meta import with_meta
from skinbatch.tables.names import META_PREFIX, closest
from skinbatch.tables.parquet import read_columns
from skinbatch.tables.schema import BOXES, META, SCHEMA_VERSION, images_schema


class DataFiles:
    """Read the files of one scoring, and list the columns that they have.

    scoring: what the scoring's own file holds; None if that file is gone.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self.store = store
        self.fingerprint = fingerprint
        self.scoring = destination.read_scoring(store, fingerprint)
        described = destination.read_destination(store)
        self._version = SCHEMA_VERSION if described is None else described.schema_version

    def read(self, kind: str, stub: Stub, columns: Sequence[str] | None) -> pa.Table:
        """Return a unit's table. columns: stored ones; None for all."""
        if kind != "images" or self._version > 1:
            return self._stored(kind, stub, columns).replace_schema_metadata(None)

        # Version 1 has a column for each pass-through field.
        if columns is not None and META not in columns:
            return self._stored(kind, stub, columns).replace_schema_metadata(None)
        table = with_meta(
            self._stored(kind, stub, None), self.scoring.prob_columns if self.scoring else ()
        )
        return table.select(columns or table.column_names).replace_schema_metadata(None)

    def _stored(self, kind: str, stub: Stub, columns: Sequence[str] | None) -> pa.Table:
        part = stub.part(kind)
        if part is not None:
            return read_part(self.store, part, columns)
        key = layout.data_key(kind, self.fingerprint, stub.unit_id, stub.attempt)
        return read_columns(self.store.get(key)[0], columns)

    def columns(self, kind: str) -> list[str] | None:
        """Return the stored columns of a table; None if the scoring's own file is gone."""
        if kind == "boxes":
            return list(BOXES.names)
        if self.scoring is None:
            return None
        return list(images_schema(self.scoring.classes, self.scoring.prob_columns).names)

    def refuse_unknown(
        self, kind: str, columns: Sequence[str] | None, *, fields: bool = True
    ) -> None:
        """Raise UsageError for columns that the table cannot have.

        fields: allow `meta_<name>` in `images`.
        """
        if isinstance(columns, str):
            raise UsageError(f"columns is a list of names: columns=[{columns!r}]")
        known = self.columns(kind)
        if columns is None or known is None:
            return
        allowed = META_PREFIX if kind == "images" and fields else ()
        for name in columns:
            if name not in known and not name.startswith(allowed):
                raise unknown_column(name, known, kind)

    def empty(self, kind: str, columns: Sequence[str] | None) -> pa.Table:
        """Return a table without rows."""
        if kind == "boxes":
            table = BOXES.empty_table()
        elif kind == "images" and self.scoring is not None:
            table = images_schema(self.scoring.classes, self.scoring.prob_columns).empty_table()
        else:
            table = pa.table({"image_id": pa.array([], pa.string())})
        return (
            table
            if columns is None
            else table.select([c for c in columns if c in table.column_names])
        )


def unknown_column(name: str, known: Sequence[str], kind: str) -> UsageError:
    """Return the error for a column that does not exist, with the names that are most similar."""
    return UsageError(f"`{kind}` has no column {name!r}{closest(name, known)}")
