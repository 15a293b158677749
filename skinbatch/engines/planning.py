"""Make the plan of a run: list the source and cut it into units, or read the newest plan again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from skinbatch.archive.shard import count_members
from skinbatch.archive.source import Source
from skinbatch.engines.drift import Drift
from skinbatch.engines.presenter import Presenter
from skinbatch.engines.setup import Prepared
from skinbatch.errors import UsageError
from skinbatch.runs import destination, plan
from skinbatch.runs.hash_groups import first_bits
from skinbatch.runs.listed import Listing, collect
from skinbatch.runs.only_new import only_new
from skinbatch.runs.plan import Plan, PlanWriter
from skinbatch.runs.record import RunLog
from skinbatch.runs.since import OLDER, only_since
from skinbatch.storage.locate import Locator
from skinbatch.tables.schema import SCHEMA_VERSION
from skinbatch.types import ImageRef, ShardRef


class NothingSince(Exception):
    """Report that nothing is planned yet and all of the source was modified before `--since`."""


class Planner:
    """Make the plans of one run.

    check: called while the source is listed; an exception from it ends the listing.
    """

    def __init__(
        self, prepared: Prepared, presenter: Presenter, log: RunLog, check: Callable[[], None]
    ) -> None:
        self.prepared = prepared
        self.store = prepared.store
        self.fingerprint = prepared.scoring.fingerprint
        self.presenter = presenter
        self.log = log
        self.check = check
        self.locator = Locator(prepared.config.storage)
        self._members: dict[ShardRef, int] = {}

    def plan_source(self) -> Plan:
        """List the source and return its plan. The plan is written unless it equals the newest one.

        Raises:
            UsageError: If there is nothing to list.
            NothingSince: If all of it is older than `--since` and there is no plan yet.
        """
        newest, damage = plan.newest_whole(self.store, self.fingerprint)
        if damage is not None and self.prepared.config.source.only_new:
            raise UsageError(
                f"{damage}; --only-new needs the plan of the last run: run once without it"
            )
        if damage is not None:
            self.presenter.note(f"{damage}; planning again")

        listing = self.listing(newest)
        dest = destination.read_destination(self.store)
        if dest is None:
            bits = first_bits(listing.photos.num_rows)
            dest = destination.Destination(self.prepared.source_uri, bits, SCHEMA_VERSION)
            destination.write_destination(self.store, dest)
        if destination.read_scoring(self.store, self.fingerprint) is None:
            destination.write_scoring(self.store, self.prepared.scoring)
        return self._write(listing, newest, dest.bits, anew=damage is not None)

    def newest_plan(self) -> Plan:
        """Return the newest plan. Raises UsageError if there is none or if it is damaged."""
        newest, damage = plan.newest_whole(self.store, self.fingerprint)
        if damage is not None:
            raise UsageError(
                f"{damage}; run `skinbatch score` to list the source again, then retry"
            )
        if newest is None:
            raise UsageError(
                f"{self.store.uri}: nothing has been scored here yet, so there is nothing to retry"
            )
        return newest

    def plan_again(self, current: Plan, drift: Drift) -> Plan:
        """Write a new plan with the changes that the workers found in the source."""
        dest = destination.require_destination(self.store)
        listing = drift.apply(
            plan.read_listing(self.store, self.fingerprint, current), self.locator
        )
        return self._write(listing, current, dest.bits)

    def count_members(self, shard: ShardRef, step: Callable[[], None] = lambda: None) -> int:
        """Return the number of photos in a shard. Each shard is counted once."""
        if shard not in self._members:
            self._members[shard] = count_members(shard, self.locator, step)
        return self._members[shard]

    def listing(self, newest: Plan | None) -> Listing:
        """List the source. newest: the plan that --since and --only-new keep.

        Raises UsageError if there is nothing, and NothingSince if all of it is too old.
        """
        uri = self.prepared.source_uri
        self.presenter.phase(f"listing {uri}")
        source = self.prepared.source
        assert source is not None, "a retry lists nothing"
        listing = collect(
            self._entries(source, newest),
            lambda n: self.presenter.phase(f"listing {uri}: {n} so far"),
        )
        if self.prepared.config.source.only_new and newest is not None:
            planned = plan.read_listing(self.store, self.fingerprint, newest)
            listing = only_new(listing, planned, source.skipped)
        with self.log.lock:
            self.log.record.skipped.update(source.skipped)
        if not listing.empty:
            return listing

        if newest is None and source.skipped[OLDER]:
            raise NothingSince
        kinds = ", ".join(f"{n} {ext}" for ext, n in source.skipped.most_common(5))
        raise UsageError(
            f"{uri}: no photos found"
            + (f" (skipped: {kinds})" if kinds else "")
            + "; check the path, --include and --exclude"
        )

    def _entries(self, source: Source, newest: Plan | None) -> Iterator[ImageRef | ShardRef]:
        entries = source.entries()
        since = self.prepared.config.source.since
        if since is not None:
            planned = (
                None if newest is None else plan.read_listing(self.store, self.fingerprint, newest)
            )
            entries = only_since(entries, since, planned, source.skipped)
        for entry in entries:
            self.check()
            yield entry

    def _write(
        self, listing: Listing, newest: Plan | None, bits: int | None, anew: bool = False
    ) -> Plan:
        self.presenter.phase("planning")
        return PlanWriter(self.store, self.fingerprint, self.count_members).write(
            listing, newest, bits, anew
        )
