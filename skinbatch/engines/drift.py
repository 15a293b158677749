"""Collect photos and shards that changed or disappeared after the plan was made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from skinbatch.engines.events import (
    RunEvent,
    Subscriber,
    UnitCommitted,
    UnitDrifted,
    UnitOpen,
)
from skinbatch.errors import NotFoundError
from skinbatch.runs.listed import Listing, amend, replace_shards
from skinbatch.scoring.assignment import UnitFailed
from skinbatch.storage.locate import Locator
from skinbatch.types import ImageRef, ShardRef, WorkUnit


class Drift:
    """Collect the changes for a new plan. An instance is true if it has any.

    A photo or shard may drift only once in a run. publish: called with the unit that stays open when
    it drifts again.
    """

    def __init__(self, publish: Subscriber) -> None:
        self._publish = publish
        self._changed: dict[str, ImageRef] = {}
        self._vanished: set[str] = set()
        self._shards: dict[str, ShardRef] = {}
        self._before: set[str] = set()
        self._now: dict[str, ShardRef | None] = {}

    def __bool__(self) -> bool:
        return bool(self._changed or self._vanished or self._shards)

    def hear(self, event: RunEvent) -> None:
        """Note what changed, in units that were committed and in units that were not."""
        match event:
            case UnitCommitted(outcome=outcome):
                self._note(outcome.changed, outcome.vanished)
            case UnitDrifted(assignment=assignment, outcome=outcome):
                if not self._note_failed(assignment.unit, outcome):
                    self._publish(UnitOpen(assignment.unit.unit_id, outcome.message))

    def _note(self, changed: Iterable[ImageRef], vanished: Iterable[str]) -> None:
        """Note photos that were committed in a changed state, and photos that were gone."""
        self._changed.update({ref.image_id: ref for ref in changed})
        self._vanished.update(vanished)

    def _note_failed(self, unit: WorkUnit, outcome: UnitFailed) -> bool:
        """Note the changes behind a unit that was not committed.

        Returns False if the same photo or shard had already changed before. The unit has then
        failed.
        """
        names = (
            [unit.shard.key]
            if unit.shard
            else [*(r.image_id for r in outcome.changed), *outcome.vanished]
        )
        if not names or any(name in self._before for name in names):
            return False
        if unit.shard is not None:
            self._shards[unit.shard.key] = unit.shard
        else:
            self._note(outcome.changed, outcome.vanished)
        return True

    def lost_shards(self, locator: Locator) -> list[ShardRef]:
        """Check the shards that drifted, and return those that are gone."""
        for key, shard in self._shards.items():
            store, object_key = locator.locate(shard.uri)
            try:
                info = store.head(object_key)
                self._now[key] = replace(
                    shard, size=info.size, version=info.version, modified=info.modified
                )
            except NotFoundError:
                self._now[key] = None
        return [self._shards[key] for key, shard in self._now.items() if shard is None]

    def apply(self, listing: Listing, locator: Locator) -> Listing:
        """Return the listing with all changes applied, and clear them.

        The names are kept, so that a second change of the same photo or shard is recognised.
        """
        self.lost_shards(locator)
        amended = replace_shards(amend(listing, self._changed, self._vanished), self._now)
        self._before |= {*self._changed, *self._vanished, *self._shards}
        self._changed, self._vanished, self._shards, self._now = {}, set(), {}, {}
        return amended
