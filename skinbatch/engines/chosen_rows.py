"""Find the rows that `retry --where` and `retry --ids` score again.

A run that was killed leaves receipts which its snapshot does not name yet. They carry the digest of
the request, so that the same command goes on with the units that are left.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.errors import UsageError
from skinbatch.lookahead import ahead
from skinbatch.runs import snapshot
from skinbatch.runs.destination import Scoring
from skinbatch.runs.hash_groups import key_hash
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.plan import Plan
from skinbatch.runs.reused_stages import canonical_hash
from skinbatch.runs.units import PlannedUnit
from skinbatch.scoring.reuse import read_file
from skinbatch.selection.where import Where
from skinbatch.storage.store import Store
from skinbatch.tables.names import original_text, safe_text
from skinbatch.tables.schema import images_schema
from skinbatch.types import Receipt
from skinbatch.unit_id import UnitId

_READERS = 8
# Unknown image_ids that an error names.
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class RowRequest:
    """Name the rows to score again: those that fit a condition, those of some photos, or both.

    where: an SQL condition on `images`. image_ids: as in `images`; None for every photo.
    """

    where: str | None = None
    image_ids: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.image_ids is not None and not self.image_ids:
            raise UsageError("the list of image_ids is empty; name at least one photo")

    @property
    def digest(self) -> str:
        """Return 12 hexadecimal digits by which receipts recognise the request."""
        ids = None if self.image_ids is None else sorted(self.image_ids)
        return canonical_hash([self.where, ids])[:12]

    def condition(self, scoring: Scoring) -> Where | None:
        """Return the condition for the columns of a scoring; None if there is none.

        Raises UsageError if it is wrong.
        """
        if self.where is None:
            return None
        return Where(self.where, images_schema(scoring.classes, scoring.prob_columns))


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """Hold the rows to score again.

    request: digest of the request. receipts: those that hold the rows, with their planned units.
    image_ids: attempt of a receipt -> its rows, as Arrow columns: there may be millions. rows:
    number of rows that were looked at. resumed: whether an earlier run of the same request has
    scored some of them.
    """

    request: str
    receipts: list[tuple[PlannedUnit, Receipt]]
    image_ids: dict[str, pa.ChunkedArray]
    rows: int
    resumed: bool

    def of_receipt(self, receipt: Receipt) -> frozenset[str]:
        """Return the image_ids of the chosen rows of a receipt."""
        return frozenset(self.image_ids[receipt.attempt].to_pylist())

    def all_image_ids(self) -> frozenset[str]:
        """Return the image_ids of every chosen row."""
        return frozenset().union(*(column.to_pylist() for column in self.image_ids.values()))


def choose_rows(ledger: Ledger, current: Plan, request: RowRequest, scoring: Scoring) -> ChosenRows:
    """Find the rows of a finished plan that a request names.

    Raises:
        UsageError: If an image_id has no row, or if the condition is wrong.
        TableError: If a table is damaged.
    """
    store = ledger.store
    where = request.condition(scoring)
    finished = snapshot.newest_that_counts(ledger)
    named = {stub.attempt for stub in finished.receipts} if finished is not None else set()
    digest = request.digest

    def is_done(receipt: Receipt) -> bool:
        return receipt.request == digest and receipt.attempt not in named

    def candidates() -> Iterator[tuple[PlannedUnit, Receipt]]:
        fits = None if request.image_ids is None else _UnitsOf(request.image_ids)
        for planned in current.units:
            if fits is None or fits.may_hold(planned):
                for stub in ledger.proof(planned.unit_id, planned.inputs_sha256) or ():
                    yield planned, ledger.receipt(stub)

    def images_of(candidate: tuple[PlannedUnit, Receipt]) -> pa.Table | None:
        receipt = candidate[1]
        if request.image_ids is None and is_done(receipt):
            return None
        file = next(file for file in receipt.files if file.kind == "images")
        return read_file(store, file)

    receipts: list[tuple[PlannedUnit, Receipt]] = []
    chosen: dict[str, pa.ChunkedArray] = {}
    unseen = set(request.image_ids or ())
    rows, resumed = 0, False
    for (planned, receipt), images in ahead(candidates(), images_of, _READERS):
        if images is not None:
            rows += images.num_rows
            if request.image_ids is not None:
                images = _only(images, request.image_ids)
                unseen.difference_update(images.column("image_id").to_pylist())

        if images is None or is_done(receipt):
            resumed = True
            continue
        if where is not None:
            images = where.rows(images)
        if images.num_rows:
            receipts.append((planned, receipt))
            chosen[receipt.attempt] = images.column("image_id")

    _refuse_unseen(unseen, request, store)
    if where is not None and not resumed:
        where.finish()
    return ChosenRows(digest, receipts, chosen, rows, resumed)


def _only(images: pa.Table, image_ids: frozenset[str]) -> pa.Table:
    names = pa.array(sorted(image_ids), pa.string())
    return images.filter(pc.is_in(images.column("image_id"), value_set=names))


def _refuse_unseen(unseen: set[str], request: RowRequest, store: Store) -> None:
    if not unseen:
        return
    first = ", ".join(sorted(unseen)[:_MOST_NAMED])
    more = ", ..." if len(unseen) > _MOST_NAMED else ""
    raise UsageError(
        f"{len(unseen)} of {len(request.image_ids or ())} image_ids have no row in {store.uri}: "
        f"{first}{more}; write them as in the column image_id of `images`"
    )


class _UnitsOf:
    """Tell which units may hold some photos, without reading their tables."""

    def __init__(self, image_ids: frozenset[str]) -> None:
        hashes = (key_hash(original_text(image_id)) for image_id in image_ids)
        self._bits = sorted(f"{number:064b}" for number in hashes)
        self._shards = {
            image_id[:place]
            for image_id in image_ids
            for place, character in enumerate(image_id)
            if character == "/"
        }

    def may_hold(self, unit: PlannedUnit) -> bool:
        """Return whether a unit is the group, or of the shard, of one of the photos."""
        if unit.shard is not None:
            return safe_text(unit.shard.key) in self._shards
        group = UnitId(unit.unit_id).bits
        place = bisect_left(self._bits, group)
        return place < len(self._bits) and self._bits[place].startswith(group)


def nothing_fits(request: RowRequest, chosen: ChosenRows) -> str:
    """Return a sentence for a request that no row fits."""
    condition = "the request" if request.where is None else f"--where {request.where}"
    return f"nothing to do: none of {chosen.rows:,} rows fits {condition}"
