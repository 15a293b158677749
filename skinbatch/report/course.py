"""Read how the runs of a scoring went: their records, and when units were committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from skinbatch.runs import layout
from skinbatch.runs.destination import read_json
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.results import Results

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


@dataclass(frozen=True, slots=True)
class Course:
    """Hold the runs of a scoring.

    runs: their records, oldest first. seconds: part of a worker's time -> seconds, over all runs.
    machines: that took part. minutes, photos_per_second: the throughput over time, by the times at
    which units were committed; empty if there are too few units.
    """

    runs: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]
    machines: tuple[str, ...]
    minutes: tuple[float, ...]
    photos_per_second: tuple[float, ...]


def read_course(results: Results) -> Course:
    """Read the records of all runs of the results' scoring."""
    store = results.store
    records = (read_json(store, key) for key in sorted(store.keys(layout.RUNS)))
    runs = tuple(record for record in records if record and record.get("fingerprint") == results.fingerprint)

    seconds: Counter[str] = Counter()
    for run in runs:
        seconds.update({part: run.get("timings", {}).get(part, 0.0) for part in PARTS})
    machines = tuple(dict.fromkeys(machine for run in runs for machine in run.get("machines", ())))

    minutes, rates = _throughput(results)
    return Course(runs, {part: seconds[part] for part in PARTS if seconds[part]}, machines, minutes, rates)


def _throughput(results: Results) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return minutes since the first commit, and photos a second in the time before each."""
    ledger = Ledger.load(results.store, results.fingerprint)
    names = {(stub.unit_id, stub.attempt) for stub in results.receipts}
    times, photos = [], []
    for stub in ledger:
        if (stub.unit_id, stub.attempt) in names and stub.complete:
            receipt = ledger.receipt(stub)
            times.append(datetime.fromisoformat(receipt.written_at).timestamp())
            photos.append(stub.rows - receipt.copied)
    if len(times) < 3 or max(times) - min(times) < 60:
        return (), ()

    start = min(times)
    edges = np.linspace(0, max(times) - start, min(_POINTS, len(times)) + 1)
    counted, _ = np.histogram(np.array(times) - start, edges, weights=np.array(photos, float))
    return tuple((edges[1:] / 60).tolist()), tuple((counted / np.diff(edges)).tolist())
