"""Read how the runs of a scoring went: their records, and when units were committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinbatch.config import PriceSettings
from skinbatch.errors import UsageError
from skinbatch.runs import layout
from skinbatch.runs.cost import Cost, amount, prices_of, size
from skinbatch.runs.destination import read_json
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.results import Results

Floats = NDArray[np.float64]

# Points of the curve of throughput.
_POINTS = 60

# What the parts of a worker's time mean, in the order of a photo's way.
PARTS: Mapping[str, str] = {
    "wait": "waiting for photos (fetch and decode)",
    "segmenter": "segmenter",
    "crop": "finding and cutting the face",
    "detector": "detector",
    "classifier": "classifiers",
    "grade": "quality, counts and grade",
    "write": "writing tables",
}

# Values of a record that another version of skinbatch wrote without them.
_UNKNOWN: Mapping[str, Any] = {
    "started": "",
    "state": "unknown",
    "exit_code": None,
    "engine": "",
    "workers": 0,
    "photos_scored": 0,
    "photos_per_second": 0.0,
    "command": "",
    "timings": {},
    "machines": [],
}


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Hold the runs of a scoring.

    runs: their records, oldest first. seconds: part of a worker's time -> seconds, over all runs.
    machines: that took part. notes: sentences about records that cannot be read. minutes,
    photos_per_second: the throughput over the time of running, by the times at which units were
    committed; empty if there are too few units.
    """

    runs: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]
    machines: tuple[str, ...]
    notes: tuple[str, ...]
    minutes: tuple[float, ...]
    photos_per_second: tuple[float, ...]


def read_history(results: Results, prices: PriceSettings) -> RunHistory:
    """Read the records of all runs of the results' scoring.

    prices: for what each run cost; if none is set, those of its own settings.
    """
    store = results.store
    runs, notes = [], []
    for key in sorted(store.keys(layout.RUNS)):
        try:
            record = read_json(store, key) or {}
        except UsageError as e:
            notes.append(f"A run is not shown below: {e}")
            continue
        if record.get("fingerprint") == results.fingerprint:
            runs.append({**_UNKNOWN, **record, "cost": _cost(record, prices)})

    seconds: Counter[str] = Counter()
    for run in runs:
        seconds.update({part: run["timings"].get(part, 0.0) for part in PARTS})
    machines = tuple(dict.fromkeys(machine for run in runs for machine in run["machines"]))

    minutes, rates = _throughput(results, runs)
    spent = {part: seconds[part] for part in PARTS if seconds[part]}
    return RunHistory(tuple(runs), spent, machines, tuple(notes), minutes, rates)


def _cost(record: Mapping[str, Any], prices: PriceSettings) -> Mapping[str, str]:
    """Return what a run took as texts; empty where it is not known."""
    cost, paid = Cost.of_run(record), prices_of(record, prices)
    rate, money = cost.photos_per_worker_hour, cost.money(paid)
    return {
        "hours": f"{cost.worker_hours:,.3f}" if cost.worker_hours else "",
        "rate": "" if rate is None else f"{rate:,.0f}",
        "money": "" if money is None or not cost.worker_hours else amount(money, paid.currency),
        "read": size(cost.bytes_read) if cost.bytes_read else "",
    }


def _throughput(
    results: Results, runs: Sequence[Mapping[str, Any]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return minutes of running, and photos a second in the time before each."""
    ledger = Ledger.load(results.store, results.fingerprint)
    names = {(stub.unit_id, stub.attempt) for stub in results.receipts}
    times, photos = [], []
    for stub in ledger:
        if (stub.unit_id, stub.attempt) in names and stub.complete:
            receipt = ledger.receipt(stub)
            times.append(datetime.fromisoformat(receipt.written_at).timestamp())
            photos.append(stub.rows - receipt.copied)

    starts = [datetime.fromisoformat(run["started"]).timestamp() for run in runs if run["started"]]
    running = running_seconds(times, starts)
    if len(running) < 3 or running.max() < 60:
        return (), ()
    edges = np.linspace(0, running.max(), min(_POINTS, len(running)) + 1)
    counted, _ = np.histogram(running, edges, weights=np.array(photos, float))
    return tuple((edges[1:] / 60).tolist()), tuple((counted / np.diff(edges)).tolist())


def running_seconds(times: Sequence[float], starts: Sequence[float]) -> Floats:
    """Return (N,) how long runs had been running at each time. Pauses between runs take no time.

    Args:
        times: of commits, in seconds of the clock.
        starts: of runs, in seconds of the clock.

    >>> running_seconds([110, 120, 1030], [100, 1000])
    array([10., 20., 50.])
    """
    committed = np.asarray(times, np.float64)
    if not len(committed):
        return committed
    began = np.sort(np.asarray(starts, np.float64))
    if not len(began) or began[0] > committed.min():
        # There is no record of the first run.
        began = np.concatenate([[committed.min()], began])

    run = np.searchsorted(began, committed, side="right") - 1
    since = committed - began[run]
    lasted = np.zeros(len(began))
    np.maximum.at(lasted, run, since)
    before = np.concatenate([[0.0], np.cumsum(lasted)[:-1]])
    return np.asarray(since + before[run], np.float64)
