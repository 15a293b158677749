"""Read a photo of a destination again from its source.

The result is the very bytes that were scored, or an error that gives the reason.
"""

from __future__ import annotations

import difflib
import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.archive.decode import PhotoError, decode
from skinbatch.archive.shard import read_member
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config, merge
from skinbatch.errors import UsageError
from skinbatch.runs import destination, plan
from skinbatch.runs.results import Results
from skinbatch.storage.locate import Locator
from skinbatch.tables.names import composed
from skinbatch.types import ImageRef, ShardRef, WorkUnit
from skinbatch.unit_id import UnitId

_COLUMNS = ("image_id", "uri", "sha256", "status", "error", "crop_x1", "unit_id")
# Most names that are compared letter by letter with an unknown one. More would take seconds.
_COMPARED = 20_000


def find_rows(
    results: Results, image_ids: Sequence[str], columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return the photos' rows of `images`, in the given order. columns: all by default.

    Raises UsageError for a photo that is not in the table, with names that are close, and for one
    that was not scored.
    """
    table = results.images(columns)
    ids = table.column("image_id")
    where = f"{results.store.uri}, scoring {results.fingerprint}"
    places = pc.index_in(
        pa.array(image_ids, pa.string()), value_set=ids.combine_chunks()
    ).to_pylist()
    places = [
        _place_of(image_id, ids, where) if place is None else place
        for image_id, place in zip(image_ids, places, strict=True)
    ]

    rows: list[dict[str, Any]] = table.take(pa.array(places, pa.int64())).to_pylist()
    for row in rows:
        if row["status"] != "ok":
            raise UsageError(
                f"{where}: `{row['image_id']}` was not scored: its status is `{row['status']}` ({row['error']}); "
                "only `ok` rows have results to show"
            )
    return rows


def _place_of(image_id: str, ids: pa.ChunkedArray, where: str) -> int:
    """Return the row of a photo whose name is spelled in another Unicode form, or raise UsageError."""
    names = [str(name) for name in ids.to_pylist()]
    same = []
    if not image_id.isascii():
        same = [n for n, name in enumerate(names) if composed(name) == composed(image_id)]
    if len(same) == 1:
        return same[0]
    if same:
        several = " and ".join(ascii(names[n]) for n in same)
        raise UsageError(
            f"{where}: `{image_id}` is {several}, which differ only in their Unicode form"
        )

    close = _close(image_id, names)
    hint = f"; close to it: {', '.join(close)}" if close else ""
    raise UsageError(f"{where}: no photo `{image_id}` among {len(names):,}{hint}")


def find_row(results: Results, image_id: str) -> Mapping[str, Any]:
    """Return the row of a photo that classifiers have looked at: image_id, uri, sha256 and unit_id.

    Raises UsageError as `find_rows` does, and for a photo without a crop to look at.
    """
    (row,) = find_rows(results, [image_id], _COLUMNS)
    if row["crop_x1"] is None:
        where = f"{results.store.uri}, scoring {results.fingerprint}"
        raise UsageError(
            f"{where}: `{image_id}` has no face and no other skin that was found, so no classifier looked at it"
        )
    return row


class Originals:
    """Read photos of a scoring again from their source. Plans are read only once.

    Args:
        results: of a destination.
        config: how the source is reached. What the scoring fixes is taken from it.
    """

    def __init__(self, results: Results, config: Config) -> None:
        scoring = destination.read_scoring(results.store, results.fingerprint)
        assert scoring is not None, "the results are of this scoring"
        self._results = results
        self._config = merge(config, scoring.settings)
        self._locator = Locator(self._config.storage)
        self._plans: Iterator[str] = iter(plan.names(results.store, results.fingerprint))
        self._shards: dict[str, ShardRef | None] = {}

    def read(self, row: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 RGB, as displayed.

        row: of `images`, with image_id, uri, sha256 and unit_id.

        Raises:
            UsageError: the photo is gone, unreadable, or no longer has the row's SHA-256.
            StoreError: its store does not answer.
        """
        image_id = str(row["image_id"])
        shard = self._shard_of(str(row["unit_id"]))
        if shard is not None:
            # Accept any version of the shard: it may have been packed again around the same photo,
            # and the hash decides.
            fetched = read_member(
                replace(shard, version=None), image_id, self._locator, self._config.decode
            )
        else:
            unit = WorkUnit("again", images=(ImageRef(image_id, str(row["uri"])),))
            fetched = next(
                iter(read_unit(unit, self._locator, self._config.decode, threads=1)), None
            )

        if fetched is None:
            raise UsageError(
                f"{row['uri']}: has disappeared since `{image_id}` was scored; restore it, or score the source again"
            )
        if fetched.data is None:
            raise UsageError(f"`{image_id}` cannot be read again: {fetched.error}")
        now = hashlib.sha256(fetched.data).hexdigest()
        if now != row["sha256"]:
            raise UsageError(
                f"{row['uri']}: has changed since `{image_id}` was scored (SHA-256 {now[:12]}…, its row has "
                f"{str(row['sha256'])[:12]}…); score the source again"
            )
        try:
            return decode(fetched.data, self._config.decode, image_id).rgb
        except PhotoError as e:
            raise UsageError(f"`{image_id}` no longer decodes with these settings: {e}") from None

    def _shard_of(self, unit_id: str) -> ShardRef | None:
        """Return the shard of a unit, by the newest plan that has the unit; None for loose photos."""
        name = UnitId(unit_id).family
        while name not in self._shards:
            plan_name = next(self._plans, None)
            if plan_name is None:
                return None
            for unit in plan.read(self._results.store, self._results.fingerprint, plan_name).units:
                self._shards.setdefault(UnitId(unit.unit_id).family, unit.shard)
        return self._shards[name]


def _close(asked: str, ids: list[str]) -> list[str]:
    """Return up to three names: first those with the same last part, then those with similar
    letters.
    """
    last = posixpath.basename(asked).lower()
    same = [name for name in ids if posixpath.basename(name).lower() == last]
    alike = difflib.get_close_matches(asked, ids[:_COMPARED], 3, 0.6)
    return list(dict.fromkeys([*same, *alike]))[:3]
