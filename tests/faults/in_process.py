"""Provide an engine whose one worker is this process, so that hundreds of runs fit into a minute.

A fuse in the store simulates a kill: after some number of writes and deletes, the run does nothing
more, in the driver and in the worker, as after SIGKILL.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from skinbatch.archive.decode import decode
from skinbatch.config import Config
from skinbatch.engines.pool import Death, Finished, PoolEvent, UnitProgress, WorkerReady
from skinbatch.engines.worker import Worker
from skinbatch.runs import layout
from skinbatch.scoring.assignment import Assignment, ScoringContext
from skinbatch.storage.local import LocalStore


class InProcessEngine:
    """Run units in this process.

    deaths: numbers of the attempts (from 1) that die before they begin. late_deaths: numbers of
    those that die after they have committed and before anyone has heard of it.
    """

    def __init__(self, deaths: Collection[int] = (), late_deaths: Collection[int] = ()) -> None:
        self.deaths, self.late_deaths = frozenset(deaths), frozenset(late_deaths)

    def check(self, source: str, destination: str, config: Config) -> None:
        """Check nothing: this process sees every path."""

    def start(self, context: ScoringContext) -> InProcessPool:
        return InProcessPool(context, self.deaths, self.late_deaths)

    def close(self) -> None:
        """Do nothing: nothing was started."""


class InProcessPool:
    """Provide a pool of one worker, which works while the caller waits."""

    size = 1

    def __init__(
        self, context: ScoringContext, deaths: frozenset[int], late_deaths: frozenset[int]
    ) -> None:
        self._worker = Worker(context)
        self._deaths, self._late_deaths = deaths, late_deaths
        self._attempts = 0
        self._events: list[PoolEvent] = [WorkerReady(0, *self._worker.describe())]
        self._given: Assignment | None = None

    def submit(self, worker: int, assignment: Assignment) -> None:
        self._given = assignment

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        if self._given is None:
            events, self._events = self._events, []
            return events
        assignment, self._given = self._given, None
        self._attempts += 1
        if self._attempts not in self._deaths:
            outcome = self._worker.score(assignment)
            if self._attempts not in self._late_deaths:
                return [Finished(0, outcome)]
        self._events = [WorkerReady(0, *self._worker.describe())]
        return [Death(0, "the worker was killed by the test")]

    def progress(self) -> Mapping[int, UnitProgress]:
        return {0: self._worker.progress()}

    def replace(self, worker: int, reason: str) -> None:
        raise AssertionError(f"a worker that works while it is waited for cannot stall: {reason}")

    def release(self, kept: Collection[int]) -> None:
        """Do nothing: there is one worker."""

    def restore(self) -> None:
        """Do nothing: the worker is there."""

    def close(self) -> None:
        scorer = self._worker._scorer
        scorer.pool.shutdown()
        scorer.lanes._pool.shutdown()


class Killed(BaseException):
    """Report that the process was killed. `except Exception` must not catch it."""


@contextlib.contextmanager
def killed_at(step: int, landed: bool) -> Iterator[None]:
    """Make the `step`th write or delete of a local store the last one.

    landed: it still happens, and nobody learns of it. Ends quietly, whether it came to that or not.
    """
    left = step

    def burn(act: Callable[[], Any]) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or (left == 0 and not landed):
            raise Killed
        done = act()
        if left == 0:
            raise Killed
        return done

    put, delete = LocalStore.put, LocalStore.delete

    def mortal_put(self: LocalStore, key: str, data: bytes) -> Any:
        return burn(partial(put, self, key, data))

    def mortal_delete(self: LocalStore, keys: Iterable[str]) -> None:
        for key in keys:
            burn(partial(delete, self, [key]))

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(LocalStore, "put", mortal_put)
        patch.setattr(LocalStore, "delete", mortal_delete)
        yield


@contextlib.contextmanager
def decodes() -> Iterator[set[str]]:
    """Collect the image_ids whose bytes were given to a decoder in this process."""
    seen: set[str] = set()

    def counted(data: bytes, settings: Any, name: str) -> Any:
        seen.add(name)
        return decode(data, settings, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skinbatch.scoring.ahead.decode", counted)
        yield seen


def bury_claim(dest: Path) -> None:
    """Make a killed run's claim look as if its process were gone.

    Here the process is this one, which is alive.
    """
    path = dest / layout.CLAIM
    if path.exists():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"started": "0"}))
