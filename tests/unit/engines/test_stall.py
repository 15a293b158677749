"""Test that slow is not stalled: a worker is not given up while calls of its models end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from skinbatch.config import Config
from skinbatch.engines import scheduler
from skinbatch.engines.next_step import Deaths
from skinbatch.engines.pool import Finished, PoolEvent, UnitProgress, WorkerReady
from skinbatch.engines.scheduler import Scheduler
from skinbatch.engines.setup import prepare
from skinbatch.engines.worker import Worker
from skinbatch.models.fake import FakeDetector, write_fake_pack
from skinbatch.models.manifest import read_manifest, write_manifest
from skinbatch.models.stages import TilingSection
from skinbatch.scoring.assignment import Assignment, ScoringContext, UnitDone
from skinbatch.types import ImageRef, WorkUnit
from tests.faces import face, png, write_tree
from tests.unit.engines.test_scheduler import Heard

CALL_S, STALL_S = 1.0, 1.5


class ThreadPool:
    """Run one real worker on a thread of this process, whose models take their time.

    Every call takes CALL_S by the watchdog's clock, and the watchdog looks twice in each.
    """

    size = 1

    def __init__(self, context: ScoringContext) -> None:
        self.worker = Worker(context)
        self.now = 0.0
        self._looks = 0
        self._looked = threading.Condition()
        self._given_up = False
        self._events: queue.Queue[PoolEvent] = queue.Queue()
        self._events.put(WorkerReady(0, "cpu", "here"))

    def slow(self, model: Any) -> Any:
        """Slow the model down."""
        pool = self

        class Slow:
            def __getattr__(self, name: str) -> Any:
                return getattr(model, name)

            def __call__(self, photos: Sequence[Any]) -> Any:
                with pool._looked:
                    pool.now += CALL_S
                    enough = pool._looks + 2
                    pool._looked.wait_for(lambda: pool._looks >= enough or pool._given_up, 30)
                return model(photos)

        return Slow()

    def submit(self, worker: int, assignment: Assignment) -> None:
        def score() -> None:
            self._events.put(Finished(0, self.worker.score(assignment)))

        threading.Thread(target=score, daemon=True).start()

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        try:
            return [self._events.get(timeout=0.01)]
        except queue.Empty:
            return []

    def progress(self) -> Mapping[int, UnitProgress]:
        seen = self.worker.progress()
        with self._looked:
            self._looks += 1
            self._looked.notify_all()
        return {0: seen}

    def replace(self, worker: int, reason: str) -> None:
        with self._looked:
            self._given_up = True
            self._looked.notify_all()
        raise AssertionError(f"given up after {self.now:g} s: {reason}")

    def release(self, kept: Collection[int]) -> None:
        """Do nothing: there is one worker."""

    def restore(self) -> None:
        """Do nothing: the worker is there."""

    def close(self) -> None: ...


def slow_pool(
    tmp_path: Path, photos: Mapping[str, bytes], tiling: TilingSection | None = None
) -> ThreadPool:
    pack = write_fake_pack(tmp_path / "pack")
    manifest = read_manifest(pack)
    assert manifest.detector is not None
    write_manifest(
        manifest.model_copy(
            update={"detector": manifest.detector.model_copy(update={"tiling": tiling})}
        ),
        pack,
    )
    write_tree(tmp_path / "photos", photos)
    context = prepare(
        str(tmp_path / "photos"), str(tmp_path / "out"), Config(pack=str(pack))
    ).context
    return ThreadPool(context)


def run(
    pool: ThreadPool, tmp_path: Path, names: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> Heard:
    unit = WorkUnit("g0", tuple(ImageRef(name, str(tmp_path / "photos" / name)) for name in names))
    heard = Heard()
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: pool.now))
    watching = Scheduler(pool, heard.hear, STALL_S, 0.0, lambda u: Deaths(), lambda s, step: 0)
    watching.run(iter([Assignment(unit, unit.inputs_sha256)]))
    return heard


@pytest.fixture(autouse=True)
def threads_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_batch_that_takes_longer_than_the_timeout_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = {f"{n}.png": png(face(n, 1)) for n in range(4)}
    pool = slow_pool(tmp_path, photos)
    scorer = pool.worker._scorer.scorer
    models = scorer.models
    scorer.models = replace(
        models,
        segmenter=pool.slow(models.segmenter),
        detector=pool.slow(models.detector),
        classifiers=tuple(map(pool.slow, models.classifiers)),
    )
    heard = run(pool, tmp_path, list(photos), monkeypatch)
    assert (len(heard.finished), heard.open, heard.deaths) == (1, {}, {})
    assert pool.now == 3 * CALL_S > STALL_S


def test_a_photo_in_many_tiles_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = np.asarray(face(2, 1)).repeat(4, axis=0).repeat(4, axis=1)
    pool = slow_pool(
        tmp_path, {"large.png": png(photo)}, TilingSection(above=200, tile=96, overlap=0.25)
    )
    tiled = pool.worker._scorer.scorer.models.detector
    tiled._detector = pool.slow(FakeDetector(("acne",)))  # type: ignore[attr-defined]
    heard = run(pool, tmp_path, ["large.png"], monkeypatch)
    assert (len(heard.finished), heard.open, heard.deaths) == (1, {}, {})
    assert pool.now > 5 * CALL_S


def test_people_are_told_of_photos_and_the_watchdog_of_steps(tmp_path: Path) -> None:
    photos = {f"{n}.png": png(face(n, 1)) for n in range(4)}
    pool = slow_pool(tmp_path, photos)
    unit = WorkUnit("g0", tuple(ImageRef(name, str(tmp_path / "photos" / name)) for name in photos))
    assert isinstance(pool.worker.score(Assignment(unit, unit.inputs_sha256)), UnitDone)
    assert pool.worker.progress().photos == 4
    assert pool.worker.progress().steps == 4 + 3 + 4  # decoded, calls of the three models, scored
