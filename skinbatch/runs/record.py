"""Write the record of one run, which `status` shows. It is rewritten while the run goes on."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from skinbatch.redact import redacted
from skinbatch.runs import layout
from skinbatch.runs.cost import Cost
from skinbatch.runs.destination import now, read_json
from skinbatch.storage.store import Store
from skinbatch.storage.traffic import TRAFFIC

_TIME = "%Y%m%dT%H%M%S%f"


@dataclass(slots=True)
class RunRecord:
    """Hold what one run did so far.

    photos_*: of this run. seconds: since scoring began. skipped: listed files that are no photos,
    by extension. taken: stage -> photos for which its results were taken from an earlier scoring.
    photos_isolated: photos found to kill or hang their worker. requests_*, bytes_*: of workers; in
    the written record, of the driver too (see storage.traffic). worker_seconds: `cpu` or `gpu` ->
    seconds for which workers were there. prices: of the run's settings. state: running, done,
    stopped, failed or interrupted.
    """

    run_id: str
    command: str
    engine: str
    fingerprint: str
    source: str
    machines: list[str] = field(default_factory=list)
    workers: int = 0
    started: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    state: str = "running"
    exit_code: int | None = None
    message: str = ""
    units_total: int = 0
    units_done: int = 0
    units_failed: int = 0
    photos_listed: int = 0
    photos_scored: int = 0
    photos_copied: int = 0
    photos_vanished: int = 0
    photos_changed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    worker_deaths: int = 0
    units_halved: int = 0
    units_retried: int = 0
    photos_isolated: int = 0
    requests_retried: int = 0
    requests_throttled: int = 0
    requests_get: int = 0
    requests_put: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    worker_seconds: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    photos_per_second: float = 0.0
    timings: Counter[str] = field(default_factory=Counter)
    open_units: dict[str, str] = field(default_factory=dict)


class RunLog:
    """Protect a RunRecord from its two writers, the driver's loop and its heartbeat."""

    def __init__(self, store: Store, record: RunRecord) -> None:
        self.store = store
        self.record = record
        self.lock = threading.Lock()
        self._writing = threading.Lock()
        self._before = TRAFFIC.all()

    def write(self) -> None:
        """Write the record as it is now.

        A write of the heartbeat that is on its way lands first, so that the final record stays the
        last.
        """
        with self._writing:
            self._put()

    def beat(self) -> None:
        """Write the record from the heartbeat, unless the driver is writing it: the heartbeat must
        not wait.
        """
        if self._writing.acquire(blocking=False):
            try:
                self._put()
            finally:
                self._writing.release()

    def cost(self) -> Cost:
        """Return what the run has taken so far."""
        with self.lock:
            return Cost.of_run(self._values())

    def _values(self) -> dict[str, Any]:
        """Return the record with the driver's own requests and bytes."""
        # asdict cannot copy a Counter.
        values = {f.name: getattr(self.record, f.name) for f in fields(self.record)}
        for name, count in TRAFFIC.since(self._before).items():
            values[name] += count
        return values

    def _put(self) -> None:
        with self.lock:
            self.record.updated = now()
            text = redacted(json.dumps(self._values(), indent=2, sort_keys=True))
        self.store.put(f"{layout.RUNS}{self.record.run_id}.json", text.encode() + b"\n")


def next_id(store: Store) -> str:
    """Return `<time>-<random>`, a name that sorts after those of all earlier runs.

    That holds even if the clock was set back since the last run.
    """
    time = datetime.now(UTC)
    for info in store.list(layout.RUNS):
        with suppress(ValueError):  # not one of our records
            before = datetime.strptime(
                info.key[len(layout.RUNS) :].partition("-")[0], _TIME
            ).replace(tzinfo=UTC)
            time = max(time, before + timedelta(microseconds=1))
    return f"{time:{_TIME}}-{layout.fresh()}"


def newest(store: Store, fingerprint: str | None = None) -> dict[str, Any] | None:
    """Return the record of the newest run (of a scoring) as written; None if there was none."""
    for info in sorted(store.list(layout.RUNS), key=lambda o: o.key, reverse=True):
        run = read_json(store, info.key)
        if run is not None and (fingerprint is None or run.get("fingerprint") == fingerprint):
            return run
    return None


def newest_of_each(store: Store, fingerprints: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the record of each scoring's newest run; scorings that were never run are left out."""
    runs: dict[str, dict[str, Any]] = {}
    for info in sorted(store.list(layout.RUNS), key=lambda o: o.key, reverse=True):
        if len(runs) == len(fingerprints):
            break
        run = read_json(store, info.key)
        name = str(run.get("fingerprint")) if run is not None else ""
        if run is not None and name in fingerprints:
            runs.setdefault(name, run)
    return runs
