"""Measure the time that a run spends on safety alone.

Safety is the plan, receipts, snapshot, clean-up, hashes, and waiting for the disk.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from skinbatch.engines.local import LocalEngine
from skinbatch.engines.pool import Finished, PoolEvent, UnitProgress, WorkerReady
from skinbatch.engines.worker import Worker
from skinbatch.runs import claim, cleanup, ledger, plan, receipts, record, snapshot
from skinbatch.scoring.assignment import Assignment, ScoringContext
from skinbatch.scoring.hardware import usable_cpus
from skinbatch.storage.local import LocalStore

_within = threading.local()


class SameProcess(LocalEngine):
    """Run the worker in the driver's process and thread, so that one clock measures everything."""

    def begin(self, context: ScoringContext) -> None:
        """Do nothing: the worker is made when it gets its first unit."""

    def start(self, context: ScoringContext) -> Any:
        return _Pool(replace(context, threads=usable_cpus()))


class _Pool:
    size = 1

    def __init__(self, context: ScoringContext) -> None:
        self._worker = Worker(context)
        self._given: Assignment | None = None
        self._ready = False

    def submit(self, worker: int, assignment: Assignment) -> None:
        self._given = assignment

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        if not self._ready:
            self._ready = True
            return [WorkerReady(0, *self._worker.describe())]
        given, self._given = self._given, None
        return [] if given is None else [Finished(0, self._worker.score(given))]

    def progress(self) -> dict[int, UnitProgress]:
        return {}

    def replace(self, worker: int, reason: str) -> None:
        raise RuntimeError(reason)

    def release(self, kept: Collection[int]) -> None:
        """Do nothing: there is one worker."""

    def restore(self) -> None:
        """Do nothing: the worker is there."""

    def close(self) -> None:
        """Do nothing, as there is nothing to end."""


def watch() -> dict[str, float]:
    """Time every part of safety from now on, in this process.

    A part within another counts for the outer one.
    """
    from skinbatch.scoring import ahead, unit_scorer

    spent: dict[str, float] = defaultdict(float)
    lock = threading.Lock()

    def timed(what: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def inner(*args: Any, **how: Any) -> Any:
            if getattr(_within, "part", None):
                return work(*args, **how)
            _within.part = what
            started = time.perf_counter()
            try:
                return work(*args, **how)
            finally:
                _within.part = None
                with lock:
                    spent[what] += time.perf_counter() - started

        return inner

    def put(self: LocalStore, key: str, data: bytes) -> Any:
        safe = key.startswith("_skinbatch/")
        return (timed("receipts: written and synced", whole) if safe else whole)(self, key, data)

    whole = LocalStore.put
    LocalStore.put = put  # type: ignore[method-assign]
    os.fsync = timed("tables: synced", os.fsync)
    for room, what in ((unit_scorer, "tables: SHA-256"), (ahead, "photos: SHA-256")):
        room.__dict__["hashlib"] = SimpleNamespace(sha256=timed(what, hashlib.sha256))
    for where, name, what in (
        (ledger.Ledger, "load", "what is done: listed and read"),
        (plan.PlanWriter, "write", "plan"),
        (snapshot, "newest_that_counts", "snapshot"),
        (snapshot, "write", "snapshot"),
        (cleanup, "clean_up", "clean-up, and looking whether it is ours to do"),
        (receipts, "write_fold", "folds"),
        (claim.Claim, "take", "claim and run record"),
        (claim.Claim, "_write", "claim and run record"),
        (claim.Claim, "release", "claim and run record"),
        (record.RunLog, "write", "claim and run record"),
    ):
        setattr(where, name, timed(what, getattr(where, name)))
    return spent
