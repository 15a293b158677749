"""Read the results of a scoring: the tables that the newest valid snapshot names."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar, overload

import pyarrow as pa

from skinbatch.errors import NotFoundError, StoreError, UnfinishedWarning
from skinbatch.grading.scheme_file import find_scheme
from skinbatch.runs import destination, gradings, plan, snapshot
from skinbatch.runs.data_files import DataFiles, unknown_column
from skinbatch.runs.gradings import AppliedGrading, Grading
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.stub import BITS, Stub
from skinbatch.storage.store import Store
from skinbatch.tables.meta import add_meta_columns
from skinbatch.tables.names import META_PREFIX
from skinbatch.tables.schema import META

R = TypeVar("R", bound="Results")

_READERS = 16
_UNITS_AHEAD = 4
_RESTARTS = 5


class Results:
    """Read the tables of one scoring of a destination as Arrow tables.

    The tables hold the units that the newest valid snapshot names. Before there is a snapshot, they
    hold the units that are done for the newest plan.

    Attributes:
        fingerprint: The scoring that is shown.
        snapshot: Name of the snapshot that is shown; None if the scoring has never been finished.
        newer_unfinished: Fingerprint of a newer scoring that is not finished yet; None if there is
            none, or if the caller named a scoring.
        grading: The grading that is shown, made by `skinbatch regrade`; None for the grading of the
            scoring's first run.

    Example:
        >>> results = skinbatch.open("scored")
        >>> results.class_names
        ('acne',)
    """

    def __init__(self, store: Store, fingerprint: str, grading: str | None = None) -> None:
        self.store = store
        self.fingerprint = fingerprint
        self.grading: AppliedGrading | None = None
        self.snapshot: str | None = None
        self.newer_unfinished: str | None = None
        self._receipts: Sequence[Stub] = ()
        self._files = DataFiles(store, fingerprint)
        self.refresh()
        if grading is not None:
            record = gradings.choose_grading(store, fingerprint, grading)
            self.grading = AppliedGrading(store, record, self.snapshot)

    @property
    def receipts(self) -> Sequence[Stub]:
        """Return the receipts of the units that are shown."""
        return self._receipts

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the detector's classes."""
        return self._files.scoring.classes if self._files.scoring is not None else ()

    @property
    def graded_by(self) -> Grading:
        """Return the threshold, scheme and counting method of the shown grading."""
        if self.grading is not None:
            return self.grading.record.grading
        assert self._files.scoring is not None, "a scoring's file holds its first grading"
        first = self._files.scoring.grading
        return Grading(
            float(first["threshold"]), find_scheme(str(first["scheme"])), first["counting"]
        )

    @property
    def stored_columns(self) -> tuple[str, ...]:
        """Return the columns of `images` in its files: all but the `meta_<name>`."""
        return tuple(self._files.columns("images") or ())

    @property
    def note(self) -> str | None:
        """Return a sentence if a newer scoring is unfinished, so that it is not shown; else None."""
        if self.newer_unfinished is None:
            return None
        return (
            f"{self.store.uri}: the tables of scoring {self.fingerprint} are shown, the newest one that is finished; "
            f"{self.newer_unfinished} is newer and not finished: finish it with `skinbatch score`, or name it as the "
            "scoring to see what is done so far"
        )

    def refresh(self) -> None:
        """Read again which receipts count, to see what runs have added since."""
        ledger = Ledger.load(self.store, self.fingerprint)
        newest = snapshot.newest_that_counts(ledger)
        self.snapshot = newest.name if newest else None
        self._receipts = newest.receipts if newest else done_for_newest_plan(ledger)

    def images(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the table `images`: one row for each photo.

        Args:
            columns: Names of the columns to read; None for all.

        Returns:
            The stored columns (docs/output-format.md), and a column `meta_<name>` for each field of
            `meta` (string, null for photos that lack the field).

        Raises:
            UsageError: If there is no such column. The message names similar ones.
            StoreError: If files keep disappearing, because a run is cleaning up at the same time.

        Example:
            >>> table = skinbatch.open("scored").images(["image_id", "status", "count_total"])
            >>> table.sort_by("image_id").to_pylist()[0]
            {'image_id': 'visit-1/a.jpg', 'status': 'ok', 'count_total': 4}
        """
        self._files.refuse_unknown("images", columns)
        known = self._files.columns("images") or []
        fields = [
            name for name in columns or () if name.startswith(META_PREFIX) and name not in known
        ]
        if columns is None:
            table = add_meta_columns(self._read("images", None))
        elif fields:
            stored = [name for name in columns if name not in fields and name != META]
            table = add_meta_columns(self._read("images", [*stored, META]))
        else:
            table = self._read("images", columns)

        if not table.num_rows:  # without photos, the fields are not known yet
            for name in fields:
                table = table.append_column(name, pa.array([], pa.string()))
        return table if columns is None else _select(table, columns, "images")

    def boxes(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the table `boxes`: one row for each box.

        Args:
            columns: Names of the columns to read; None for all.

        Returns:
            The stored columns (docs/output-format.md). Corners are in pixels of the displayed
            original, scores are from 0 to 1.

        Raises:
            UsageError: If there is no such column. The message names similar ones.
            StoreError: If files keep disappearing, because a run is cleaning up at the same time.

        Example:
            >>> table = skinbatch.open("scored").boxes(["image_id", "label", "side"])
            >>> table.sort_by("image_id").to_pylist()[0]
            {'image_id': 'visit-1/a.jpg', 'label': 'acne', 'side': 'left'}
        """
        self._files.refuse_unknown("boxes", columns)
        return self._read("boxes", columns)

    def masks(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the table `masks`: one row for each photo, with COCO run lengths.

        It has no rows unless the photos were scored with --save-masks.
        """
        return self._read("masks", columns)

    def units(
        self,
        images: Sequence[str] | None = None,
        boxes: Sequence[str] | None = None,
        *,
        only: Collection[str] | None = None,
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yield the images and boxes of each unit in turn, for results larger than memory.

        Units come in the order of their unit_id.

        Args:
            images, boxes: Stored columns to read (pass-through fields are in `meta`); None for all.
            only: ids of the units to read; None for all.

        Raises:
            UsageError: If there is no such column.
            StoreError: If a run that ended at the same time has removed the files.

        Example:
            >>> [images.num_rows for images, boxes in skinbatch.open("scored").units()]
            [3, 1]
        """
        self._files.refuse_unknown("images", images, fields=False)
        self._files.refuse_unknown("boxes", boxes)
        tables = (("images", images), ("boxes", boxes))

        def read(stub: Stub) -> tuple[pa.Table, ...]:
            try:
                return tuple(self._read_unit(kind, stub, columns) for kind, columns in tables)
            except NotFoundError as e:
                raise self._gone(e) from None

        chosen = [stub for stub in self._receipts if only is None or stub.unit_id in only]
        left = iter(sorted(chosen, key=lambda stub: stub.unit_id))
        ahead: deque[Future[tuple[pa.Table, ...]]] = deque()
        with ThreadPoolExecutor(_UNITS_AHEAD) as pool:
            while True:
                ahead.extend(
                    pool.submit(read, stub) for stub in islice(left, _UNITS_AHEAD - len(ahead))
                )
                if not ahead:
                    return
                of_images, of_boxes = ahead.popleft().result()
                yield of_images, of_boxes

    def unit(self, unit_id: str) -> tuple[pa.Table, pa.Table, pa.Table]:
        """Return images, boxes and masks of one unit; `masks` is empty unless masks were saved.

        Raises:
            StoreError: If a run that ended at the same time has removed the files.
        """
        stubs = [stub for stub in self._receipts if stub.unit_id == unit_id]
        tables = []
        for kind in BITS:
            with_kind = [stub for stub in stubs if stub.needed & BITS[kind]]
            try:
                parts = [self._read_unit(kind, stub, None) for stub in with_kind]
            except NotFoundError as e:
                raise self._gone(e) from None
            tables.append(pa.concat_tables(parts) if parts else self._files.empty(kind, None))
        images, boxes, masks = tables
        return images, boxes, masks

    def _read(self, kind: str, columns: Sequence[str] | None) -> pa.Table:
        for _ in range(_RESTARTS):
            try:
                tables = list(self._tables(kind, columns))
            except NotFoundError:
                self.refresh()
                continue
            if not tables:
                return self._files.empty(kind, columns)
            return pa.concat_tables(tables, promote_options="default")
        raise StoreError(
            f"{self.store.uri}: files of the newest snapshot keep disappearing; wait until no run is cleaning up here, "
            "then read again"
        )

    def _tables(self, kind: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        with_kind = [stub for stub in self._receipts if stub.needed & BITS[kind]]
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda stub: self._read_unit(kind, stub, columns), with_kind)

    def _gone(self, error: NotFoundError) -> StoreError:
        return StoreError(
            f"{error}: a run has just ended in {self.store.uri}, or `skinbatch compact` has merged files; start again"
        )

    def _read_unit(self, kind: str, stub: Stub, columns: Sequence[str] | None) -> pa.Table:
        if self.grading is None or kind == "masks":
            return self._files.read(kind, stub, columns)

        needed = (
            None if columns is None else list(dict.fromkeys((*columns, *self.grading.needs(kind))))
        )
        stored = self._files.read(kind, stub, needed)
        table = self.grading.apply(kind, stub.unit_id, stored)
        return (
            table
            if columns is None
            else table.select([c for c in columns if c in table.column_names])
        )


def _select(table: pa.Table, columns: Sequence[str], kind: str) -> pa.Table:
    for name in columns:
        if name not in table.column_names:
            raise unknown_column(name, table.column_names, kind)
    return table.select(list(columns))


def done_for_newest_plan(ledger: Ledger) -> Sequence[Stub]:
    """Return the receipts of the units that are completely done for the newest plan."""
    names = plan.names(ledger.store, ledger.fingerprint)
    if not names:
        return []
    return ledger.done(plan.read(ledger.store, ledger.fingerprint, names[0]).units)


@overload
def open_results(
    store: Store, scoring: str | None = None, grading: str | None = None
) -> Results: ...


@overload
def open_results(store: Store, scoring: str | None, grading: str | None, kind: type[R]) -> R: ...


def open_results(
    store: Store,
    scoring: str | None = None,
    grading: str | None = None,
    kind: type[Results] = Results,
) -> Results:
    """Return the results of a destination.

    Warns with UnfinishedWarning if a newer scoring than the returned one is not finished.

    Args:
        scoring: its fingerprint or the first digits. None: the newest one that is finished, or the
            newest one if none is.
        grading: id of a grading, its first digits, or the name of its scheme. None: the grading of
            the scoring's first run.
        kind: class of the results.
    """
    destination.require_destination(store)
    if scoring is not None:
        return kind(store, destination.choose_scoring(store, scoring), grading)

    newest, *older = destination.newest_scorings(store)
    shown = kind(store, newest, grading if snapshot.names(store, newest) else None)
    if shown.snapshot is not None:
        return shown
    for fingerprint in older:
        if snapshot.names(store, fingerprint):
            finished = kind(store, fingerprint, grading)
            if finished.snapshot is not None:
                finished.newer_unfinished = newest
                warnings.warn(str(finished.note), UnfinishedWarning, stacklevel=3)
                return finished
    return shown if grading is None else kind(store, newest, grading)
