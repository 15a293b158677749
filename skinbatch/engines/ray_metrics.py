"""Export the counters of a run as Ray metrics.

Ray exports them to Prometheus as `ray_skinbatch_...`.
"""

from __future__ import annotations

from ray.util.metrics import Counter

from skinbatch.scoring.assignment import Assignment, Outcome, UnitDone


class RunMetrics:
    """Count in the driver, which outlives its workers.

    Counts kept in a worker would be lost with it before they are exported.
    """

    def __init__(self, fingerprint: str) -> None:
        tags = {"scoring": fingerprint}
        self._units = _counter("units", "Attempts at units, by outcome", tags, "outcome")
        self._photos = _counter(
            "photos", "Photos scored, by status; copied rows do not count", tags, "status"
        )
        self._isolated = _counter(
            "photos_isolated", "Photos found to kill or to hang their worker", tags
        )
        self._asked_again = _counter(
            "requests_retried", "Requests to a store that workers made again", tags
        )
        self._throttled = _counter(
            "requests_throttled", "Answers of a store that asked for fewer requests", tags
        )
        self._deaths = _counter("worker_deaths", "Workers that died or were given up", tags)
        self._again = _counter(
            "units_retried", "Attempts at units that were handed out before", tags
        )
        self._known: set[str] = set()
        self._given: dict[int, Assignment] = {}

    def submitted(self, worker: int, assignment: Assignment) -> None:
        unit_id = assignment.unit.unit_id
        if unit_id in self._known:
            self._again.inc(1)
        self._known.add(unit_id)
        self._given[worker] = assignment

    def replaced(self) -> None:
        self._deaths.inc(1)

    def finished(self, worker: int, outcome: Outcome) -> None:
        self._units.inc(1, {"outcome": "done" if isinstance(outcome, UnitDone) else outcome.kind})
        _add(self._asked_again, outcome.traffic.get("requests_retried", 0))
        _add(self._throttled, outcome.traffic.get("requests_throttled", 0))
        if not isinstance(outcome, UnitDone) or outcome.receipt is None:
            return
        if self._given[worker].verdict is not None:
            self._isolated.inc(1)
        fresh = sum(outcome.receipt.statuses.values()) - outcome.receipt.copied
        _add(self._photos, fresh - sum(outcome.failed.values()), status="ok")
        for status, count in outcome.failed.items():
            _add(self._photos, count, status=status)


def _counter(name: str, description: str, tags: dict[str, str], *own: str) -> Counter:
    counter = Counter(f"skinbatch_{name}", description=description, tag_keys=(*tags, *own))
    counter.set_default_tags(tags)
    return counter


def _add(counter: Counter, number: int, **tags: str) -> None:
    """Add to a counter unless the number is zero, which Ray rejects."""
    if number > 0:
        counter.inc(number, tags)
