"""Export the metrics of a run through Ray.

Ray exports them to Prometheus as `ray_skinbatch_...`; see metric_list.py.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from skinbatch.engines.metric_list import METRICS, UNIT_SECONDS
from skinbatch.scoring.assignment import Assignment, Outcome, UnitDone
from skinbatch.types import Receipt
from skinbatch.unit_id import UnitId

_TRAFFIC = ("requests_retried", "requests_throttled", "bytes_read", "bytes_written")


class RunMetrics:
    """Count in the driver, which outlives its workers.

    Counts kept in a worker would be lost with it before they are exported.

    scoring: the value of the tag `scoring`. units: how many there are to score; None if that is not
    known.
    """

    def __init__(self, scoring: str, units: int | None = None) -> None:
        self._tags = {"scoring": scoring}
        self._metrics = {name: self._made(name) for name in METRICS}
        self._left = units or 0
        # Units that were handed out and are not done.
        self._begun: set[str] = set()
        self._given: dict[int, Assignment] = {}

    def _made(self, name: str) -> Counter | Gauge | Histogram:
        metric = METRICS[name]
        full_name, keys = f"skinbatch_{name}", (*self._tags, *metric.tags)
        made: Counter | Gauge | Histogram
        match metric.kind:
            case "counter":
                made = Counter(full_name, metric.description, keys)
            case "gauge":
                made = Gauge(full_name, metric.description, keys)
            case "histogram":
                made = Histogram(full_name, metric.description, [*UNIT_SECONDS], keys)
        made.set_default_tags(self._tags)
        return made

    def submitted(self, worker: int, assignment: Assignment) -> None:
        """Count a unit that is handed out."""
        unit_id = assignment.unit.unit_id
        if unit_id in self._begun:
            self._add("units_retried", 1)
        elif assignment.is_half:
            self._note_halved(UnitId(unit_id).halved[0])
        self._begun.add(unit_id)
        self._given[worker] = assignment

    def _note_halved(self, unit_id: str) -> None:
        """Count two units in place of one when the first of its halves is handed out."""
        if unit_id in self._begun:
            self._begun.remove(unit_id)
            self._left += 1

    def replaced(self, worker: int) -> None:
        """Count a worker that died or was given up."""
        self._given.pop(worker, None)
        self._add("worker_deaths", 1)

    def finished(self, worker: int, outcome: Outcome) -> None:
        """Count an attempt that has ended, and what its worker reported."""
        assignment = self._given.pop(worker)
        self._add("units", 1, outcome="done" if isinstance(outcome, UnitDone) else outcome.kind)
        for name in _TRAFFIC:
            self._add(name, outcome.traffic.get(name, 0))
        if not isinstance(outcome, UnitDone):
            return

        self._left -= 1
        self._begun.discard(assignment.unit.unit_id)
        if outcome.gpu_memory:
            self._set("gpu_memory_bytes", outcome.gpu_memory, worker=str(worker))
        if outcome.receipt is None:
            return
        if assignment.verdict is not None:
            self._add("photos_isolated", 1)
        fresh = sum(outcome.receipt.statuses.values()) - outcome.receipt.copied
        self._add("photos", fresh - sum(outcome.failed.values()), status="ok")
        for status, count in outcome.failed.items():
            self._add("photos", count, status=status)
        self._add_seconds(outcome.receipt)

    def _add_seconds(self, receipt: Receipt) -> None:
        for part, seconds in receipt.timings.items():
            if part != "unit":
                self._add("stage_seconds", seconds, part=part)
        metric = self._metrics["unit_seconds"]
        assert isinstance(metric, Histogram)
        if "unit" in receipt.timings:
            metric.observe(receipt.timings["unit"])

    def standing(self, ready: int) -> None:
        """Export how many units wait and are in work, and how many workers are ready."""
        in_work = len(self._given)
        self._set("units_in_work", in_work)
        self._set("units_waiting", max(0, self._left - in_work))
        self._set("workers_ready", ready)

    def closed(self) -> None:
        """Export that no worker is left, whatever they had."""
        self._given.clear()
        self.standing(0)

    def _add(self, name: str, number: float, **tags: str) -> None:
        """Add to a counter unless the number is zero, which Ray rejects."""
        counter = self._metrics[name]
        assert isinstance(counter, Counter)
        if number > 0:
            counter.inc(number, tags)

    def _set(self, name: str, number: float, **tags: str) -> None:
        gauge = self._metrics[name]
        assert isinstance(gauge, Gauge)
        gauge.set(number, tags)
