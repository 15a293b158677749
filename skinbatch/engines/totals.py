"""Keep the totals of a run, for the bar, and stop it after too many failures."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from skinbatch.config import RunSettings
from skinbatch.engines.events import RunEvent, Tick, UnitCommitted, UnitHalved, WorkerDied
from skinbatch.engines.presenter import RunProgress
from skinbatch.scoring.assignment import UnitDone
from skinbatch.types import WorkUnit

STOP_AFTER_PHOTOS = 1000
# After this many deaths without one scored photo, the pack or the machine kills the workers.
STOP_AFTER_DEATHS = 100
_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Before:
    """Hold the totals that are known before the first unit is handed out.

    photos, units: of the whole plan, as far as photos are known. photos_done, units_done: by
    earlier runs. uncounted: units of shards whose members are not counted yet. counts: members of
    each unit of a counted shard.
    """

    photos: int
    units: int
    photos_done: int
    units_done: int
    uncounted: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


class Totals:
    """Count the work of this run, and the photos in total as far as they are known.

    show: called with the progress, a few times a second.
    """

    def __init__(
        self, settings: RunSettings, before: Before, show: Callable[[RunProgress], None]
    ) -> None:
        self.settings = settings
        self._show = show
        self.known = before.photos
        self.done_before = before.photos_done
        self.units = before.units
        self.units_done = before.units_done
        self.uncounted = before.uncounted
        self._counts = dict(before.counts)
        self.photos = 0
        self.fresh = 0
        self.failed: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.deaths = 0
        self.last_death = ""
        self.started = time.monotonic()
        self._window: deque[tuple[float, int]] = deque([(self.started, 0)])

    @property
    def rows(self) -> int:
        """Return the number of rows of the whole plan so far."""
        return self.done_before + self.photos

    def hear(self, event: RunEvent) -> None:
        match event:
            case UnitCommitted():
                self._add(event.assignment.unit, event.outcome)
            case UnitHalved():
                self._halved(event.unit)
            case WorkerDied():
                self.deaths += 1
                self.last_death = event.reason
            case Tick():
                self._show(self._progress(event.photos_in_flight))

    def _add(self, unit: WorkUnit, outcome: UnitDone) -> None:
        """Count a unit that is committed."""
        receipt = outcome.receipt
        rows = sum(receipt.statuses.values()) if receipt else 0
        planned = self._planned(unit)
        self.uncounted -= planned is None
        self.photos += rows
        self.known += rows - (planned or 0)
        self.units_done += 1
        self.failed.update(outcome.failed)
        self.reasons.update(outcome.reasons)
        self.fresh += rows - (receipt.copied if receipt else 0)

    def _halved(self, unit: WorkUnit) -> None:
        """Adjust the totals for a unit whose halves are scored in its place."""
        self.units += 1
        count = self._planned(unit)
        if count is None:
            self.uncounted += 1
        elif unit.shard is not None and unit.stop is None:
            _, second = unit.halves(unit.start + count)
            self._counts[second.unit_id] = unit.start + count - second.start

    def _planned(self, unit: WorkUnit) -> int | None:
        """Return the planned photos of a unit; None for a shard that has not been counted."""
        if unit.shard is None:
            return len(unit.images)
        if unit.unit_id in self._counts:
            return self._counts[unit.unit_id]
        return None if unit.stop is None else unit.stop - unit.start

    def _progress(self, in_flight: int) -> RunProgress:
        """Return the progress now. in_flight: photos finished within unfinished units."""
        now = time.monotonic()
        done = self.photos + in_flight
        self._window.append((now, done))
        while len(self._window) > 2 and now - self._window[0][0] > _WINDOW_S:
            self._window.popleft()
        since, then = self._window[0]
        rate = max(0.0, (done - then) / (now - since)) if now > since else 0.0
        left = self.known - self.rows - in_flight
        return RunProgress(
            self.done_before + done,
            max(self.known, self.done_before + done),
            self.units_done,
            self.units,
            sum(self.failed.values()),
            rate,
            left / rate if rate > 0 and left > 0 and not self.uncounted else None,
            not self.uncounted,
        )

    def stop_reason(self) -> str | None:
        """Return why the run should stop; None to go on.

        It stops when --limit or --deadline is reached, or when too many photos or workers failed.
        """
        if self.settings.limit is not None and self.photos >= self.settings.limit:
            return f"--limit {self.settings.limit} is reached"
        if (
            self.settings.deadline_s is not None
            and time.monotonic() - self.started > self.settings.deadline_s
        ):
            return f"--deadline {self.settings.deadline_s:g} s has passed"
        failed = sum(self.failed.values())
        if self.deaths >= STOP_AFTER_DEATHS and self.fresh == failed:
            return f"{self.deaths} workers died and no photo was scored; the last one: {self.last_death}"
        if self.fresh >= STOP_AFTER_PHOTOS and failed > self.settings.stop_failures * self.fresh:
            reasons = "; ".join(f"{n} {reason}" for reason, n in self.reasons.most_common(3))
            return f"{failed} of {self.fresh} photos failed, mostly because of {reasons} (see the `error` column)"
        return None
