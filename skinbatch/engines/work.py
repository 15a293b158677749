"""Hold the work of a run: the plan, what is done for it, and what stays open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinbatch.engines.assign import Assigner, EarlierReceipts
from skinbatch.engines.events import RunEvent, UnitCommitted, UnitOpen
from skinbatch.engines.setup import Prepared
from skinbatch.engines.totals import Before
from skinbatch.errors import UsageError
from skinbatch.runs.folds import Folds
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.plan import Plan
from skinbatch.runs.stub import Stubs
from skinbatch.runs.units import PlannedUnit, Units
from skinbatch.scoring.assignment import Assignment
from skinbatch.types import Receipt

if TYPE_CHECKING:
    from skinbatch.engines.chosen_rows import ChosenRows, RowRequest


@dataclass(frozen=True, slots=True)
class Todo:
    """Describe what one run hands out.

    assignments: made as they are handed out. left: the units that are not done. to_retry: for a
    retry, the units and receipts with rows to score again. chosen: the rows that a request names.
    nothing: what to say if there are no units.
    """

    assignments: Iterator[Assignment]
    left: Units
    to_retry: Sequence[tuple[PlannedUnit, Receipt]] = ()
    chosen: ChosenRows | None = None
    nothing: str = "nothing to do: every photo has been scored"

    @property
    def units(self) -> int:
        """Return how many units there are."""
        return len(self.to_retry) or len(self.left)


class Work:
    """Hold a plan, the ledger of what is done, and the units that stay open with the reason.

    The plan is replaced if photos turn out to have changed since it was made.
    """

    def __init__(
        self, prepared: Prepared, plan: Plan, ledger: Ledger, note: Callable[[str], None]
    ) -> None:
        self.store = prepared.store
        self.scoring = prepared.scoring
        self.plan = plan
        self.ledger = ledger
        self.folds = Folds(ledger, note)
        self.earlier = EarlierReceipts(prepared, note)
        self.open_units: dict[str, str] = {}
        self.todo: Todo | None = None

    def hear(self, event: RunEvent) -> None:
        """Keep what is committed and what stays open."""
        match event:
            case UnitOpen():
                self.open_units[event.unit_id] = event.message
            case UnitCommitted():
                self.open_units.pop(event.assignment.unit.unit_id, None)
                if event.outcome.receipt is not None:
                    self.folds.add(self.ledger.add(event.outcome.receipt))

    def done(self) -> Stubs:
        """Return the receipts that count for the plan."""
        return self.ledger.done(self.plan.units)

    def left(self) -> Units:
        """Return the units of the plan that are not done."""
        return self._assigner().left()

    def units_left(self) -> int:
        """Return how many units are not done, or not scored again as a retry was asked to."""
        to_retry = self.todo.to_retry if self.todo else ()
        counting = {stub.attempt for stub in self.done()} if to_retry else set()
        not_retried = sum(receipt.attempt in counting for _, receipt in to_retry)
        return len(self.left()) + not_retried

    def assignments(self) -> Iterator[Assignment]:
        """Return an assignment for each unit that is not done, in a retry for the rows it is for."""
        assigner = self._assigner()
        chosen = self.todo.chosen if self.todo else None
        retries_failed = self.todo is not None and bool(self.todo.to_retry) and chosen is None
        return assigner.to_score(assigner.left(), chosen, ok_only=retries_failed)

    def begin_score(self) -> Todo:
        """Choose the units that are not done, and remember them as `todo`."""
        assigner = self._assigner()
        left = assigner.left()
        self.todo = Todo(assigner.to_score(left), left)
        return self.todo

    def begin_retry(self, request: RowRequest | None) -> Todo:
        """Choose the units with failed rows, or with the rows that a request names.

        Raises UsageError if the scoring is not finished, or if the request is wrong.
        """
        assigner = self._assigner()
        left = assigner.left()
        if left:
            raise UsageError(
                f"{self.store.uri}: {len(left)} units are not scored yet; run `skinbatch score` first, then retry"
            )
        if request is None:
            failed = assigner.failed()
            self.todo = Todo(assigner.to_retry(failed), left, failed)
            return self.todo
        from skinbatch.engines.chosen_rows import choose_rows, nothing_fits  # imports DuckDB

        chosen = choose_rows(self.ledger, self.plan, request, self.scoring)
        assignments = assigner.to_retry(chosen.receipts, chosen)
        nothing = nothing_fits(request, chosen)
        self.todo = Todo(assignments, left, chosen.receipts, chosen, nothing)
        return self.todo

    def before(self, todo: Todo) -> Before:
        """Return the totals before the first unit of `todo`.

        Shards that were scored before count as many photos as they have rows.
        """
        photos, uncounted = self.plan.photos, 0
        counts: dict[str, int] = {}
        columns = self.plan.units.columns("unit_id", "inputs_sha256", "kind", "count", "stop")
        for unit_id, inputs_sha256, kind, count, stop in columns:
            if count is None:
                proof = self.ledger.proof(unit_id, inputs_sha256)
                uncounted += proof is None
                photos += sum(stub.rows for stub in proof or ())
            elif kind != "loose" and stop is None:  # otherwise the range tells
                counts[unit_id] = count

        again = {receipt.unit_id: receipt.inputs_count for _, receipt in todo.to_retry}
        # The halves of a unit are retried one by one.
        planned_ids = {planned.unit_id for planned, _ in todo.to_retry}
        units = len(self.plan.units) + len(todo.to_retry) - len(planned_ids)
        return Before(
            photos=photos,
            units=units,
            photos_done=photos - todo.left.photos - sum(again.values()),
            units_done=units - todo.units,
            uncounted=uncounted,
            counts=counts | again,
        )

    def _assigner(self) -> Assigner:
        return Assigner(self.store, self.ledger, self.plan, self.earlier)
