"""Check that results which a scoring took from an earlier one are the earlier one's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from skinbatch.errors import NotFoundError, UsageError
from skinbatch.runs import destination, stages
from skinbatch.runs.destination import Scoring
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stages import DETECTOR, SEGMENTER
from skinbatch.tables.names import count_columns
from skinbatch.tables.parquet import read_columns
from skinbatch.types import DataFile, Receipt, Status

_NAMED = 5
_FACE = (
    "width",
    "height",
    "face",
    "faces",
    "skin_fraction",
    "crop_x1",
    "crop_y1",
    "crop_x2",
    "crop_y2",
)
_LESIONS = (
    *("view", "sharpness", "brightness", "ita_degrees", "count_total", "count_left", "count_right"),
    *("saturated", "grade", "grade_level", "grade_scheme"),
)

_MASKS = "masks"
# Rows that exist as Python objects at the same time.
_AT_ONCE = 1000

# (image_id, SHA-256 of the photo) -> stage -> hash of its values.
_Digests = dict[tuple[str, str], dict[str, int]]


def check_taken(ledger: Ledger, found: Snapshot) -> Iterator[str]:
    """Yield a sentence for each unit whose results are not those that they were taken from.

    Files of the earlier scoring that its later runs have replaced are not compared.
    """
    try:
        scoring = destination.read_scoring(ledger.store, ledger.fingerprint)
        earlier = (
            destination.read_scoring(ledger.store, scoring.taken_from)
            if scoring and scoring.taken_from
            else None
        )
    except UsageError:  # `verify` names damaged records
        return
    if scoring is None or scoring.taken_from is None:
        return

    named = ", ".join(scoring.taken)
    if earlier is None:
        yield f"scoring {scoring.taken_from}, from which {named} were taken, is gone"
        return
    sound = stages.is_sound(earlier) and stages.is_sound(scoring)
    takeable = stages.takeable(earlier, scoring) if sound else ()
    if others := [stage for stage in scoring.taken if stage not in takeable]:
        yield f"the record takes {', '.join(others)} from scoring {scoring.taken_from}, whose models or settings differ"
        return

    for stub in found.receipts:
        receipt = ledger.receipt(stub)
        if receipt.taken:
            yield from _check_unit(ledger, scoring, receipt)


def _check_unit(ledger: Ledger, scoring: Scoring, receipt: Receipt) -> Iterator[str]:
    present = _digests(ledger, scoring, receipt.files)
    before = _digests(ledger, scoring, receipt.taken_from)
    for stage, photos in receipt.taken.items():
        different = [
            key[0]
            for key in present.keys() & before.keys()
            if _differ(stage, present[key], before[key])
        ]
        # The unit's other rows were computed or copied, and may differ.
        if len(different) > len(present) - photos:
            yield (
                f"unit {receipt.unit_id}: {stage}: {len(different)} photos have other results than in scoring "
                f"{scoring.taken_from}, from which {photos} were taken: {', '.join(sorted(different)[:_NAMED])}"
            )


def _differ(stage: str, present: Mapping[str, int], before: Mapping[str, int]) -> bool:
    if (
        stage == SEGMENTER
        and _MASKS in present
        and _MASKS in before
        and present[_MASKS] != before[_MASKS]
    ):
        return True
    return present[stage] != before[stage]


def _digests(ledger: Ledger, scoring: Scoring, files: Sequence[DataFile]) -> _Digests:
    """Return the hashes for every photo with an `ok` row; none if a file is gone or damaged."""
    tables = [(file.kind, _read(ledger, file)) for file in files]
    columns = {
        SEGMENTER: _FACE,
        DETECTOR: (*_LESIONS, *count_columns(scoring.classes).values()),
        **stages.columns_of(scoring.numbers["pack"]),
    }
    digests: _Digests = {}
    keys: dict[str, tuple[str, str]] = {}
    for kind, table in tables:
        if table is None:
            return {}
        if kind == "images":
            for row in _rows(table):
                if row["status"] == Status.OK.value and row["sha256"] is not None:
                    key = keys[row["image_id"]] = row["image_id"], row["sha256"]
                    digests[key] = {
                        stage: hash(tuple(map(row.get, names))) for stage, names in columns.items()
                    }

    for kind, table in tables:
        if kind == "images" or table is None:
            continue
        stage = DETECTOR if kind == "boxes" else _MASKS
        for row in _rows(table):
            if row["image_id"] in keys:
                digest = digests[keys[row["image_id"]]]
                digest[stage] = hash((digest.get(stage), *row.values()))
    return digests


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield rows, of which only some exist as Python objects at the same time."""
    for batch in table.to_batches(max_chunksize=_AT_ONCE):
        yield from batch.to_pylist()


def _read(ledger: Ledger, file: DataFile) -> pa.Table | None:
    try:
        data, _ = ledger.store.get(file.path)
        return read_columns(data) if hashlib.sha256(data).hexdigest() == file.sha256 else None
    except (NotFoundError, pa.ArrowException, OSError):
        return None
