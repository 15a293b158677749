"""Copy rows of older receipts that are still right, so that only new or changed photos are decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from skinbatch.errors import NotFoundError, TableError
from skinbatch.runs.merged import find_part, read_part
from skinbatch.scoring.assignment import Assignment, Reuse
from skinbatch.storage.store import Store
from skinbatch.tables.names import safe_text
from skinbatch.tables.parquet import read_metadata, read_parquet
from skinbatch.tables.rows import copy_rows
from skinbatch.types import DataFile, ImageRef, MergedPart, Status


def read_file(store: Store, file: DataFile) -> pa.Table:
    """Return a data file's table, wherever it is: `compact` may have moved it since it was located.

    Raises NotFoundError, or TableError if the file does not have its recorded hash.
    """
    try:
        return _read_located(store, file)
    except NotFoundError:
        part = find_part(store, file)
        if part is None:
            raise
        return read_part(store, part)


def _read_located(store: Store, file: DataFile) -> pa.Table:
    if isinstance(file, MergedPart):
        return read_part(store, file)
    data, _ = store.get(file.path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise TableError(f"{file.path}: its bytes are not those that were written")
    return read_parquet(data, file.path)


@dataclass(frozen=True, slots=True)
class _PhotoTables:
    images: pa.Table
    boxes: pa.Table
    masks: pa.Table | None


@dataclass(frozen=True, slots=True)
class CopiedTables:
    """Hold rows that are copied into a unit, with one set of tables for each older receipt.

    computed_by: of the files that they were copied from.
    """

    images: list[pa.Table] = field(default_factory=list)
    boxes: list[pa.Table] = field(default_factory=list)
    masks: list[pa.Table] = field(default_factory=list)
    computed_by: set[str] = field(default_factory=set)

    @property
    def rows(self) -> int:
        return sum(t.num_rows for t in self.images)


class OlderRows:
    """Find the older row of a photo.

    Loose photos are found by image_id, size and version, members by the hash of their bytes. If
    only chosen rows are scored again, members are first looked for by image_id and version, so that
    the rows of members without bytes are also kept. An `ok` row takes precedence over any other.
    """

    def __init__(self, store: Store, assignment: Assignment, masks: bool) -> None:
        self.store = store
        self.ok_only = assignment.reuse_ok_only
        self.again = assignment.again
        self._of_shard = assignment.unit.shard is not None
        self._tables: list[_PhotoTables] = []
        # Place in `_tables`, image_id and whether it is ok, by what a row is found by.
        self._rows: dict[object, tuple[int, str, bool]] = {}
        for reuse in assignment.reuse:
            tables = self._load(reuse, masks)
            if tables is not None:
                self._index(len(self._tables), tables.images)
                self._tables.append(tables)

    def _load(self, reuse: Reuse, masks: bool) -> _PhotoTables | None:
        """Return None if a file is gone, because another run cleaned up, or damaged. Its photos are
        scored.
        """
        if masks and reuse.masks is None:
            return None
        try:
            files = [reuse.images, reuse.boxes] + ([reuse.masks] if masks and reuse.masks else [])
            tables = [read_file(self.store, file) for file in files]
        except (NotFoundError, TableError):
            return None
        return _PhotoTables(tables[0], tables[1], tables[2] if len(tables) > 2 else None)

    def _index(self, number: int, images: pa.Table) -> None:
        names = ("image_id", "size", "version", "sha256", "status")
        for image_id, size, version, sha256, status in zip(
            *(images.column(n).to_pylist() for n in names), strict=True
        ):
            ok = status == Status.OK.value
            if self.ok_only and not ok:
                continue
            for key in self._keys(image_id, size, version, sha256):
                before = self._rows.get(key)
                if before is None or (ok and not before[2]):
                    self._rows[key] = (number, image_id, ok)

    def _keys(
        self, image_id: str, size: int | None, version: str | None, sha256: str | None
    ) -> list[object]:
        """Return what a row is found by, the surest first; nothing if it must not be found."""
        if self.again is not None and image_id in self.again:
            return []
        if not self._of_shard:
            return [(image_id, size, version)]
        by_bytes: list[object] = [] if sha256 is None else [sha256]
        return by_bytes if self.again is None else [(image_id, version), *by_bytes]

    def _row_of(self, ref: ImageRef, sha256: str | None) -> tuple[int, str, bool] | None:
        version = None if ref.version is None else safe_text(ref.version)
        keys = self._keys(safe_text(ref.image_id), ref.size, version, sha256)
        return next((self._rows[key] for key in keys if key in self._rows), None)

    def has(self, ref: ImageRef) -> bool:
        """Return whether a loose photo has an older row, so that it need not be read."""
        return not self._of_shard and self._row_of(ref, None) is not None

    def has_member(self, ref: ImageRef, sha256: str | None) -> bool:
        """Return whether a member of a shard has an older row. sha256: of its bytes."""
        return self._of_shard and self._row_of(ref, sha256) is not None

    def copy(self, photos: Iterable[tuple[ImageRef, str | None]], unit_id: str) -> CopiedTables:
        """Return the older rows of photos for which `has` or `has_member` is true, as rows of this
        unit.

        photos: each with the SHA-256 of its bytes if it is a member.
        """
        # Two members may have the same bytes, so a table may be copied from more than once.
        rounds: list[dict[int, dict[str, tuple[ImageRef, str]]]] = []
        for ref, sha256 in photos:
            row = self._row_of(ref, sha256)
            assert row is not None, "only photos with an older row are copied"
            number, image_id, _ = row
            for chosen in rounds:
                if image_id not in chosen.setdefault(number, {}):
                    chosen[number][image_id] = (ref, unit_id)
                    break
            else:
                rounds.append({number: {image_id: (ref, unit_id)}})
        copied = CopiedTables()
        for chosen in rounds:
            for number, keep in chosen.items():
                self._copy(self._tables[number], keep, copied)
        return copied

    @staticmethod
    def _copy(
        tables: _PhotoTables, keep: Mapping[str, tuple[ImageRef, str]], copied: CopiedTables
    ) -> None:
        images, boxes, masks = copy_rows(tables.images, tables.boxes, tables.masks, keep)
        copied.computed_by.add(read_metadata(tables.images).get("computed_by", "unknown"))
        copied.images.append(images)
        copied.boxes.append(boxes)
        if masks is not None:
            copied.masks.append(masks)
