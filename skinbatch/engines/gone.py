"""Count listed photos that do not exist, decide when there are too many, and report them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from skinbatch.archive.missing import likely_cause
from skinbatch.engines.events import RunEvent, UnitCommitted
from skinbatch.runs.plan import Plan
from skinbatch.storage.locate import Locator
from skinbatch.types import ImageRef, ShardRef, WorkUnit

# Number of missing photos that the message names.
_NAMED = 3
_KEPT = 20


class Gone:
    """Count the photos and shards of a run that are gone.

    While a destination has no finished scoring, a share of missing photos above `most` means that
    the listing is wrong. Afterwards, it is wrong only if a run finds no photo at all.

    too_many: the result of `judge`.
    """

    def __init__(self, most: float, current: Plan, first: bool) -> None:
        self.most = most if first else 1.0
        self.too_many = False
        self._photos = 0
        self._refs: list[ImageRef] = []
        self._shards: Sequence[ShardRef] = ()
        self._all_loose = current.units.all_loose
        self._listed = current.photos
        self._archives = current.units.archives

    def hear(self, event: RunEvent) -> None:
        """Count the photos of a committed unit that could not be found."""
        if isinstance(event, UnitCommitted):
            self._note(event.assignment.unit, event.outcome.vanished)

    def _note(self, unit: WorkUnit, vanished: Collection[str]) -> None:
        self._photos += len(vanished)
        gone = set(vanished)
        missing = [ref for ref in unit.images if ref.image_id in gone]
        self._refs = sorted([*self._refs, *missing], key=lambda ref: ref.image_id)[:_KEPT]

    def stop_reason(self) -> str | None:
        """Return why the run should stop: too many photos are gone, whatever happens to the others."""
        if self._all_loose and self.most < 1 and self._photos > self.most * self._listed:
            return "most of the photos are gone"
        return None

    def judge(self, rows: int, shards: Sequence[ShardRef]) -> bool:
        """Return whether too many are gone.

        rows: of the whole plan so far. shards: the shards that are gone.
        """
        self._shards = shards
        photos = self._photos
        if self.most < 1:
            self.too_many = (
                photos > self.most * (photos + rows) or len(shards) > self.most * self._archives
            )
        else:
            self.too_many = rows == 0 and photos + len(shards) > 0 and len(shards) == self._archives
        return self.too_many

    def message(self, source: str, locator: Locator) -> str:
        """Return how many are gone, the first names, the likely cause and the way out."""
        refs = self._refs or [ImageRef(shard.key, shard.uri) for shard in self._shards[:_KEPT]]
        names = [ref.uri for ref in refs[:_NAMED]]
        counted = f"{self._photos}" if self._photos == self._listed else f"at least {self._photos}"
        photos = f"{counted} of {self._listed} listed photos"
        what = photos if self._photos else f"{len(self._shards)} of {self._archives} listed shards"
        first = f"{what} of {source} do not exist, such as {', '.join(names)}"
        unknown = "they may have been moved or deleted since they were listed"
        cause = likely_cause(refs, source, locator) or unknown
        way_out = (
            "run the same command again; if they are meant to be gone, set max_gone = 1 in [run]"
        )
        return f"{first}. Likely cause: {cause}. Fix it, then {way_out}"
