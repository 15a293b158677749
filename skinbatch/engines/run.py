"""Hold what the steps of one run share."""

from __future__ import annotations

from collections.abc import Callable

from skinbatch.engines.interruption import Interruption
from skinbatch.engines.notes import Notes
from skinbatch.engines.planning import Planner
from skinbatch.engines.presenter import Presenter
from skinbatch.engines.setup import Prepared
from skinbatch.engines.work import Work
from skinbatch.errors import SkinbatchError
from skinbatch.runs import destination
from skinbatch.runs.claim import Claim
from skinbatch.runs.record import RunLog, RunRecord, next_id


class Run:
    """Hold the settings, the record and the claim of one run of `score` or `retry`.

    prepared: checked settings. work: what there is to do; None until the source has been listed.
    """

    def __init__(self, prepared: Prepared, presenter: Presenter, command: str) -> None:
        """Name the run after the time. Nothing is written yet. command: as the user typed it."""
        self.prepared = prepared
        self.presenter = presenter
        self.store = prepared.store
        self.fingerprint = prepared.scoring.fingerprint
        self.id = next_id(self.store)
        engine = prepared.config.engine.name
        record = RunRecord(self.id, command, engine, self.fingerprint, prepared.source_uri)
        record.prices = prepared.config.prices.model_dump(exclude_none=True)
        self.log = RunLog(self.store, record)
        self.claim = Claim(self.store, self.id)
        self.interruption = Interruption(self.claim)
        self.notes = Notes(presenter)
        self.planner = Planner(prepared, presenter, self.log, self.interruption.check)
        self.work: Work | None = None

    def take_claim(self) -> None:
        """Take the claim on the destination and keep it up. Raises ClaimError if another run has it."""
        self.claim.take(
            on_wait=lambda holder: self.presenter.phase(
                f"the destination is claimed by {holder}; watching it"
            ),
            check=self.interruption.check,
        )
        self.claim.start(self.log.beat)

    def close_record(self, state: str, exit_code: int, message: str) -> None:
        """Write how the run ended.

        A run that did not get the claim writes nothing: another run is working, and its record must
        stay the newest.
        """
        if not self.claim.taken:
            return
        with self.log.lock:
            record = self.log.record
            record.state, record.exit_code, record.message = state, exit_code, message
            record.open_units = dict(self.work.open_units) if self.work else {}
        if destination.read_destination(self.store) is not None:
            self.log.write()

    def quietly(self, last_step: Callable[[], None]) -> None:
        """Do a last step of a run that may have failed, and turn its error into a note.

        An error here must not hide the error of the run itself.
        """
        try:
            last_step()
        except SkinbatchError as e:
            self.presenter.note(f"the end of the run could not be recorded: {e}")
