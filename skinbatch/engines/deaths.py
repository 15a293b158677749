"""Record deaths of workers, so that a restarted driver does not begin to count from zero."""

from __future__ import annotations

from collections.abc import Callable

from skinbatch.engines.events import RunEvent, WorkerDied
from skinbatch.engines.next_step import DEATHS_TO_BLAME, Deaths
from skinbatch.errors import StoreError
from skinbatch.runs import receipts
from skinbatch.runs.destination import now
from skinbatch.storage.store import Store
from skinbatch.types import WorkUnit


class DeathRecord:
    """Hold the deaths of workers in earlier runs, and write those of this run.

    The earlier ones are read once, when the object is made. note: called with the reason if one
    cannot be written.
    """

    def __init__(
        self, store: Store, fingerprint: str, run_id: str, note: Callable[[str], None]
    ) -> None:
        self._store, self._fingerprint, self._run_id = store, fingerprint, run_id
        self._note = note
        self._earlier = receipts.deaths(store, fingerprint)

    def of(self, unit: WorkUnit) -> Deaths:
        """Return the deaths that earlier runs recorded for a unit with the same inputs."""
        keys = self._earlier.get((unit.unit_id, receipts.inputs_name(unit.inputs_sha256)), ())
        if len(keys) < DEATHS_TO_BLAME:  # only a verdict needs the reason
            return Deaths(len(keys), "on record")
        last = receipts.last_death(self._store, keys)
        return Deaths(
            len(keys), str(last.get("reason", "on record")), last.get("timed_out") is True
        )

    def hear(self, event: RunEvent) -> None:
        """Record that a unit killed its worker. Only a later run would miss the record."""
        if isinstance(event, WorkerDied):
            try:
                self._add(event.unit, event.reason, event.timed_out)
            except StoreError as e:
                self._note(f"the death of the worker could not be recorded: {e}")

    def _add(self, unit: WorkUnit, reason: str, timed_out: bool) -> None:
        record = {
            "unit_id": unit.unit_id,
            "reason": reason,
            "timed_out": timed_out,
            "at": now(),
            "run_id": self._run_id,
        }
        receipts.write_death(
            self._store, self._fingerprint, unit.unit_id, unit.inputs_sha256, record
        )
