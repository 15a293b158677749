"""Reading what was scored: the tables that the newest snapshot that counts names."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import pyarrow as pa

from skinbatch.errors import NotFoundError, StoreError
from skinbatch.runs import destination, plan, snapshot
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.stub import BITS, Stub
from skinbatch.storage.base import Store
from skinbatch.tables.parquet import read_columns
from skinbatch.tables.schema import BOXES, images_schema

_READERS = 16
_UNITS_AHEAD = 4
_RESTARTS = 5


class Results:
    """The tables of one scoring of a destination, as Arrow tables.

    Shows what the newest snapshot that counts names; while there is none, the units that are done for the newest plan.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self.store = store
        self.fingerprint = fingerprint
        self.snapshot: str | None = None
        self._receipts: tuple[Stub, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Look again which receipts count."""
        ledger = Ledger.load(self.store, self.fingerprint)
        found = snapshot.newest_that_counts(ledger)
        self.snapshot = found.name if found else None
        self._receipts = found.receipts if found else tuple(done_for_newest_plan(ledger))

    def images(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row a photo; the columns of DESIGN's `images` (all, or those named)."""
        return self._read("images", columns)

    def boxes(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row a box; the columns of DESIGN's `boxes` (all, or those named)."""
        return self._read("boxes", columns)

    def masks(self, columns: Sequence[str] | None = None) -> pa.Table:
        """COCO run lengths, one row a photo; no rows unless the scoring was begun with --save-masks."""
        return self._read("masks", columns)

    def units(
        self, images: Sequence[str] | None = None, boxes: Sequence[str] | None = None
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Both tables (all columns, or those named) of one unit after the other, by unit_id, for what need not fit in memory.

        Raises StoreError where a run that ends meanwhile cleans them up.
        """
        wanted = (("images", images), ("boxes", boxes))

        def read(stub: Stub) -> tuple[pa.Table, ...]:
            try:
                return tuple(
                    pa.concat_tables(
                        read_columns(self.store.get(path)[0], columns).replace_schema_metadata(None)
                        for path in stub.files(self.fingerprint, stub.needed & BITS[kind])
                    )
                    for kind, columns in wanted
                )
            except NotFoundError as e:
                raise StoreError(f"{e}: a run has just ended in {self.store.uri}; start again") from None

        left = iter(sorted(self._receipts, key=lambda stub: stub.unit_id))
        ahead: deque[Future[tuple[pa.Table, ...]]] = deque()
        with ThreadPoolExecutor(_UNITS_AHEAD) as pool:
            while True:
                ahead.extend(pool.submit(read, stub) for stub in islice(left, _UNITS_AHEAD - len(ahead)))
                if not ahead:
                    return
                of_images, of_boxes = ahead.popleft().result()
                yield of_images, of_boxes

    def _read(self, kind: str, columns: Sequence[str] | None) -> pa.Table:
        for _ in range(_RESTARTS):
            try:
                tables = list(self._tables(kind, columns))
            except NotFoundError:
                self.refresh()
                continue
            if not tables:
                return self._empty(kind, columns)
            table = pa.concat_tables(tables, promote_options="default")
            # Files have the pass-through columns of their own photos, so the order of the files must not show.
            metas = sorted(name for name in table.column_names if name.startswith("meta_"))
            names = [name for name in table.column_names if name not in metas] + metas
            return table.select(names if columns is None else [c for c in columns if c in names])
        raise StoreError(
            f"{self.store.uri}: files of the newest snapshot keep disappearing; is another run cleaning up?"
        )

    def _empty(self, kind: str, columns: Sequence[str] | None) -> pa.Table:
        scoring = destination.read_scoring(self.store, self.fingerprint)
        if kind == "boxes":
            table = BOXES.empty_table()
        elif kind == "images" and scoring is not None:
            table = images_schema(scoring.classes, scoring.prob_columns).empty_table()
        else:
            table = pa.table({"image_id": pa.array([], pa.string())})
        return table if columns is None else table.select([c for c in columns if c in table.column_names])

    def _tables(self, kind: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        paths = [path for r in self._receipts for path in r.files(self.fingerprint, r.needed & BITS[kind])]

        def read(path: str) -> pa.Table:
            return read_columns(self.store.get(path)[0], columns).replace_schema_metadata(None)

        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(read, paths)


def done_for_newest_plan(ledger: Ledger) -> list[Stub]:
    """Receipts of the whole units that are done for the newest plan."""
    names = plan.names(ledger.store, ledger.fingerprint)
    if not names:
        return []
    newest = plan.read(ledger.store, ledger.fingerprint, names[0])
    proofs = (ledger.proof(*inputs) for inputs in newest.units.inputs())
    return [stub for proof in proofs if proof is not None for stub in proof]


def open_results(store: Store, scoring: str | None = None) -> Results:
    """Results of a destination. scoring: its fingerprint or the first digits; None: the newest run's."""
    destination.require_destination(store)
    return Results(store, destination.choose_scoring(store, scoring))
