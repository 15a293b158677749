"""Take results of stages from an earlier scoring that has looked at the same photos.

Only a row of the same image_id and the same bytes is used. Why, and for which stages:
docs/decisions/reuse-of-stages.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skinbatch.errors import NotFoundError, TableError
from skinbatch.grading.face import Face
from skinbatch.grading.run_lengths import label_map_of
from skinbatch.models.pack import Pack
from skinbatch.models.protocols import Segmenter
from skinbatch.runs.reused_stages import DETECTOR, SEGMENTER, columns_of, needs_mask
from skinbatch.scoring.assignment import Reuse
from skinbatch.scoring.reuse import read_file
from skinbatch.storage.store import Store
from skinbatch.tables.names import safe_text
from skinbatch.tables.parquet import read_metadata
from skinbatch.tables.rows import Row, result_of
from skinbatch.types import DataFile, ImageRef, ImageResult, Status


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """Hold an earlier result for one photo and the stages that are taken from it.

    needs_mask: a stage that is not taken needs the mask, not only the crop.
    """

    result: ImageResult
    stages: frozenset[str]
    needs_mask: bool

    def label_map(self, segmenter: Segmenter) -> NDArray[np.uint8] | None:
        """Return the segmenter's label map from the stored masks, or None if they do not tell it."""
        height, width = self.result.height, self.result.width
        if self.result.mask_rle is None or height is None or width is None:
            return None
        size = segmenter.map_size(height, width)
        return label_map_of(self.result.mask_rle, segmenter.classes, width, height, size)

    def face(self) -> Face:
        """Return the face as far as the row describes it, without mask and nose."""
        result = self.result
        assert result.width is not None and result.height is not None and result.faces is not None
        return Face(
            width=result.width,
            height=result.height,
            mask=np.zeros((0, 0), np.bool_),
            found=bool(result.face),
            faces=result.faces,
            skin_fraction=result.skin_fraction or 0.0,
            crop=result.crop,
            view=result.view,
        )

    def agrees(self, face: Face) -> bool:
        """Return whether this is the face that the earlier scoring found."""
        result = self.result
        same = (face.found, face.faces, face.crop) == (result.face, result.faces, result.crop)
        return same and np.float32(face.skin_fraction) == np.float32(result.skin_fraction or 0.0)

    def probs(self, columns: Iterable[str]) -> NDArray[np.float32]:
        """Return a classifier's probabilities. columns: one for each of its classes."""
        return np.array([self.result.probs[column] for column in columns], np.float32)


def takes(earlier: Earlier | None, stage: str) -> bool:
    """Return whether a stage is taken from an earlier result."""
    return earlier is not None and stage in earlier.stages


class _ReceiptTables:
    """Hold the tables of one receipt of the earlier scoring, and the rows of each photo in them.

    boxes, masks: None if they are not needed or not stored.
    """

    def __init__(
        self,
        images: pa.Table,
        boxes: pa.Table | None,
        masks: pa.Table | None,
        files: Sequence[DataFile],
    ):
        self.images, self.boxes, self.masks = images, boxes, masks
        self.files = tuple(files)
        self._boxes_of = _rows_of(boxes)
        self._mask_of = _rows_of(masks)

    def result(
        self, number: int, classes: tuple[Sequence[str], Sequence[str]], columns: Sequence[str]
    ) -> ImageResult:
        """Return the result in a row of `images`; see tables.rows.result_of."""
        row = self.images.slice(number, 1).to_pylist()[0]
        boxes = _taken(self.boxes, self._boxes_of.get(row["image_id"], []))
        masks = _taken(self.masks, self._mask_of.get(row["image_id"], []))
        return result_of(row, boxes, masks[0] if masks else None, classes, columns)


def _taken(table: pa.Table | None, rows: list[int]) -> list[dict[str, Any]]:
    return [] if table is None else list(table.take(pa.array(rows, pa.int64())).to_pylist())


def _rows_of(table: pa.Table | None) -> dict[str, list[int]]:
    """Return image_id -> numbers of its rows."""
    rows: dict[str, list[int]] = defaultdict(list)
    if table is not None:
        for number, image_id in enumerate(table.column("image_id").to_pylist()):
            rows[image_id].append(number)
    return rows


class EarlierResults:
    """Find what can be taken for the photos of one unit.

    notes: reasons why an earlier file is not used, for people.
    """

    def __init__(
        self,
        store: Store,
        files: Sequence[Reuse],
        stages: Sequence[str],
        pack: Pack,
        *,
        masks: bool,
        computed_by: str,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        """Read the earlier scoring's tables.

        Args:
            store: the destination.
            files: of receipts that may hold the photos.
            stages: that may be taken.
            pack: of this scoring.
            masks: this scoring saves masks.
            computed_by: see models.runtime.network.
            step: called after the files of each receipt.
        """
        self.store = store
        self.notes: list[str] = []
        self.stages = frozenset(stages)
        self._pack = pack
        self._computed_by = computed_by
        self._numbers = pack.numbers()
        self._needs_mask = needs_mask(self._numbers, self.stages)
        self._reads_masks = SEGMENTER in self.stages and (self._needs_mask or masks)
        self._columns = {
            stem: names for stem, names in columns_of(self._numbers).items() if stem in self.stages
        }
        self._tables: list[_ReceiptTables] = []
        self._found: dict[tuple[str, str], tuple[int, int]] = {}
        for reuse in files if self.stages else ():
            self._load(reuse)
            step()

    def _load(self, reuse: Reuse) -> None:
        files = [reuse.images]
        try:
            images = read_file(self.store, reuse.images)
            if (by := read_metadata(images).get("computed_by")) != self._computed_by:
                made = by or "an older skinbatch"
                self.notes.append(
                    f"the earlier results were computed by {made}, not by {self._computed_by}"
                )
                return
            boxes = masks = None
            if DETECTOR in self.stages:
                boxes = read_file(self.store, reuse.boxes)
                files.append(reuse.boxes)
        except (NotFoundError, TableError) as e:
            self.notes.append(str(e))
            return
        if self._reads_masks and reuse.masks is not None:
            try:
                masks = read_file(self.store, reuse.masks)
                files.append(reuse.masks)
            except (NotFoundError, TableError) as e:
                self.notes.append(str(e))
        self._index(_ReceiptTables(images, boxes, masks, files))

    def _index(self, tables: _ReceiptTables) -> None:
        columns = (
            tables.images.column(name).to_pylist() for name in ("image_id", "sha256", "status")
        )
        for number, (image_id, sha256, status) in enumerate(zip(*columns, strict=True)):
            if status == Status.OK.value and sha256 is not None:
                self._found[image_id, sha256] = len(self._tables), number
        self._tables.append(tables)

    def of(self, ref: ImageRef, sha256: str | None) -> Earlier | None:
        """Return what can be taken for a photo. sha256: of its bytes."""
        place = self._found.get((safe_text(ref.image_id), sha256 or ""))
        if place is None:
            return None
        classes = self._pack.detector_classes, self._pack.segmenter.classes
        columns = [column for names in self._columns.values() for column in names]
        result = self._tables[place[0]].result(place[1], classes, columns)

        stages = set(self.stages)
        if self._reads_masks and result.mask_rle is None:
            stages.discard(SEGMENTER)
        if result.crop is not None:
            stages -= {
                stem
                for stem, names in self._columns.items()
                if not result.probs.keys() >= set(names)
            }
        needed = self._needs_mask if stages == self.stages else needs_mask(self._numbers, stages)
        return Earlier(result, frozenset(stages), needed) if stages else None

    def files_of(self, rows: Iterable[Row]) -> tuple[DataFile, ...]:
        """Return the files from which results in these rows were taken."""
        places = (
            self._found[safe_text(row.ref.image_id), row.result.sha256 or ""]
            for row in rows
            if row.result.taken
        )
        numbers = sorted({number for number, _ in places})
        return tuple(file.original for number in numbers for file in self._tables[number].files)
