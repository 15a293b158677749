"""Check that results which a scoring took from an earlier one are the earlier one's."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa

from skinbatch.errors import NotFoundError, TableError, UsageError
from skinbatch.lookahead import ahead
from skinbatch.runs import destination, reused_stages
from skinbatch.runs.destination import Scoring
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.merged import read_part
from skinbatch.runs.reused_stages import DETECTOR, SEGMENTER
from skinbatch.runs.snapshot import Snapshot
from skinbatch.tables.names import count_columns
from skinbatch.tables.parquet import read_columns
from skinbatch.types import DataFile, MergedPart, Receipt, Status

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
# Kind of a data file -> the stage whose results it holds.
_STAGES = {"boxes": DETECTOR, _MASKS: SEGMENTER}
_READERS = 8
# Rows that exist as Python objects at the same time.
_AT_ONCE = 1000

# (image_id, SHA-256 of the photo) -> stage -> hash of its values.
_Digests = dict[tuple[str, str], dict[str, int]]


def check_taken(ledger: Ledger, shown: Snapshot) -> Iterator[str]:
    """Yield a sentence for each unit whose results are not those that they were taken from.

    Files of the earlier scoring that its later runs have replaced are not compared, and nothing is
    if it was deleted: what was taken are copies, whose files have recorded hashes.
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
    if scoring is None or earlier is None:
        return
    receipts = (ledger.receipt(stub) for stub in shown.receipts if stub.complete)
    taking = (receipt for receipt in receipts if receipt.taken)
    first = next(taking, None)
    if first is None:
        return

    sound = reused_stages.is_sound(earlier) and reused_stages.is_sound(scoring)
    takeable = reused_stages.takeable(earlier, scoring) if sound else ()
    if others := [stage for stage in scoring.taken if stage not in takeable]:
        yield f"the record takes {', '.join(others)} from scoring {scoring.taken_from}, whose models or settings differ"
        return

    before = Ledger.listed(ledger.store, earlier.fingerprint)
    check = partial(_check_unit, ledger, before, scoring)
    units = ahead(chain([first], taking), check, _READERS)
    for _, sentences in units:
        yield from sentences


def _check_unit(ledger: Ledger, earlier: Ledger, scoring: Scoring, receipt: Receipt) -> list[str]:
    present = _digests(ledger, scoring, receipt.files, receipt.taken)
    taken_from = [earlier.located(file) for file in receipt.taken_from]
    before = _digests(ledger, scoring, taken_from, receipt.taken)
    sentences = []
    for stage, photos in receipt.taken.items():
        different = [
            key[0]
            for key in present.keys() & before.keys()
            if _differ(stage, present[key], before[key])
        ]
        # The unit's other rows were computed or copied, and may differ.
        if len(different) > len(present) - photos:
            sentences.append(
                f"unit {receipt.unit_id}: {stage}: {len(different)} photos have other results than in scoring "
                f"{scoring.taken_from}, from which {photos} were taken: {', '.join(sorted(different)[:_NAMED])}"
            )
    return sentences


def _differ(stage: str, present: Mapping[str, int], before: Mapping[str, int]) -> bool:
    if (
        stage == SEGMENTER
        and _MASKS in present
        and _MASKS in before
        and present[_MASKS] != before[_MASKS]
    ):
        return True
    return present[stage] != before[stage]


def _digests(
    ledger: Ledger, scoring: Scoring, files: Sequence[DataFile], taken: Container[str]
) -> _Digests:
    """Return the hashes for every photo with an `ok` row; none if a file is gone or damaged.

    taken: the stages to hash. Only their files and columns are read.
    """
    columns = {
        SEGMENTER: _FACE,
        DETECTOR: (*_LESIONS, *count_columns(scoring.classes).values()),
        **reused_stages.columns_of(scoring.numbers["pack"]),
    }
    columns = {stage: names for stage, names in columns.items() if stage in taken}
    of_images = {"image_id", "sha256", "status"}.union(*columns.values())
    tables: dict[str, pa.Table] = {}
    for file in files:
        if file.kind != "images" and _STAGES[file.kind] not in taken:
            continue
        table = _read(ledger, file, sorted(of_images) if file.kind == "images" else None)
        if table is None:
            return {}
        tables[file.kind] = table

    digests: _Digests = {}
    keys: dict[str, tuple[str, str]] = {}
    for row in _rows(tables["images"]):
        if row["status"] == Status.OK.value and row["sha256"] is not None:
            key = keys[row["image_id"]] = row["image_id"], row["sha256"]
            digests[key] = {
                stage: hash(tuple(map(row.get, names))) for stage, names in columns.items()
            }
    for kind in tables.keys() - {"images"}:
        part = DETECTOR if kind == "boxes" else _MASKS
        for row in _rows(tables[kind]):
            if row["image_id"] in keys:
                digest = digests[keys[row["image_id"]]]
                digest[part] = hash((digest.get(part), *row.values()))
    return digests


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield rows, of which only some exist as Python objects at the same time."""
    for batch in table.to_batches(max_chunksize=_AT_ONCE):
        yield from batch.to_pylist()


def _read(ledger: Ledger, file: DataFile, columns: Sequence[str] | None) -> pa.Table | None:
    try:
        if isinstance(file, MergedPart):
            return read_part(ledger.store, file, columns)
        data, _ = ledger.store.get(file.path)
        same = hashlib.sha256(data).hexdigest() == file.sha256
        return read_columns(data, columns) if same else None
    except (NotFoundError, TableError, pa.ArrowException, OSError):
        return None
