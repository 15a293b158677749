"""Tell the user what goes wrong in a run and does not stop it."""

from __future__ import annotations

from skinbatch.engines.events import (
    RunEvent,
    StoreTrouble,
    UnitCommitted,
    UnitOpen,
    UnitRetried,
    WorkerDied,
)
from skinbatch.engines.pool import PoolMessage, WorkerReady
from skinbatch.engines.presenter import Presenter
from skinbatch.scoring.assignment import UnitFailed

# Number of open units that get a note of their own. An outage may leave thousands.
_MOST_NOTED = 5


class Notes:
    """Turn events into notes for a presenter, each kind of trouble once."""

    def __init__(self, presenter: Presenter) -> None:
        self._presenter = presenter
        self._kinds: set[str] = set()
        self._open: set[str] = set()

    def hear(self, event: RunEvent) -> None:
        match event:
            case WorkerReady():
                self._presenter.phase("scoring")
            case PoolMessage():
                self._presenter.note(event.text)
            case StoreTrouble():
                self.store_trouble(event.text)
            case UnitRetried(outcome=UnitFailed(kind="store")):
                self.store_trouble(event.reason.strip())
            case WorkerDied():
                unit_id = event.unit.unit_id
                self._presenter.note(f"a worker died on unit {unit_id}: {event.reason}")
            case UnitOpen():
                self._open.add(event.unit_id)
                self._unit_open(event)
            case UnitCommitted():
                self._open.discard(event.assignment.unit.unit_id)
                for text in event.outcome.notes:
                    self._once(text, "; the stages are run")

    def store_trouble(self, text: str) -> None:
        """Show the first failure of each kind at once. Called from any thread.

        A run may try for minutes before it gives up.
        """
        self._once(text, "; trying again for a while")

    def _once(self, text: str, consequence: str) -> None:
        kind = text.rpartition(": ")[2]  # without the name of the object
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._presenter.note(text + consequence)

    def _unit_open(self, event: UnitOpen) -> None:
        if len(self._open) > _MOST_NOTED:
            return
        reason = event.message.strip().splitlines()[-1]
        more = "; further ones are only counted" if len(self._open) == _MOST_NOTED else ""
        self._presenter.note(f"unit {event.unit_id} stays open: {reason}{more}")
