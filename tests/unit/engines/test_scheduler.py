"""Test that a unit that kills its worker is tried again and halved until its photo is alone, and
that nothing else suffers."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from skinbatch.engines import scheduler
from skinbatch.engines.events import (
    RunEvent,
    Tick,
    UnitCommitted,
    UnitDrifted,
    UnitOpen,
    UnitRetried,
    WorkerDied,
)
from skinbatch.engines.next_step import MOST_LOST_MACHINES, Deaths
from skinbatch.engines.pool import (
    Death,
    Finished,
    PoolEvent,
    PoolMessage,
    UnitProgress,
    WorkerReady,
)
from skinbatch.engines.recorder import Recorder
from skinbatch.engines.scheduler import Scheduler, WorkersFailed
from skinbatch.errors import StoreError
from skinbatch.runs.record import RunLog, RunRecord
from skinbatch.scoring.assignment import Assignment, UnitDone, UnitFailed
from skinbatch.storage.local import LocalStore
from skinbatch.types import ImageRef, ShardRef, Status, WorkUnit

NONE = Deaths()


class ScriptedPool:
    """Answer at once: workers die on poisoned photos, give scripted answers, or are done."""

    def __init__(
        self,
        size: int = 2,
        poison: AbstractSet[str] = frozenset(),
        hangs: AbstractSet[str] = frozenset(),
    ) -> None:
        self.size = size
        self.poison = poison
        self.hangs = hangs
        self.answers: dict[str, list[UnitFailed]] = {}
        self.unreadable: set[str] = set()
        self.lost_machines = 0
        self.events: list[PoolEvent] = [WorkerReady(w, "cpu", "here") for w in range(size)]
        self.replaced: list[int] = []
        self.released: set[int] = set()
        self.used: set[int] = set()
        self.handed_out: list[Assignment] = []

    def submit(self, worker: int, assignment: Assignment) -> None:
        assert worker not in self.released
        self.handed_out.append(assignment)
        self.used.add(worker)
        ids = {r.image_id for r in assignment.unit.images}
        if assignment.unit.shard is not None:
            stop = assignment.unit.stop if assignment.unit.stop is not None else 10
            ids = {str(n) for n in range(assignment.unit.start, stop)}
        if self.lost_machines:
            self.lost_machines -= 1
            self.events += [
                Death(worker, "the node died", machine_lost=True),
                WorkerReady(worker, "cpu", "there"),
            ]
        elif ids & self.unreadable and not assignment.unread:
            self.events += [
                Death(worker, "SIGSEGV in a reader"),
                WorkerReady(worker, "cpu", "here"),
            ]
        elif ids & self.hangs and assignment.verdict is None:
            return
        elif ids & self.poison and assignment.verdict is None:
            self.events += [Death(worker, "SIGSEGV"), WorkerReady(worker, "cpu", "here")]
        elif self.answers.get(assignment.unit.unit_id):
            self.events.append(Finished(worker, self.answers[assignment.unit.unit_id].pop()))
        else:
            self.events.append(Finished(worker, UnitDone(None)))

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        events, self.events = self.events, []
        return events

    def progress(self) -> Mapping[int, UnitProgress]:
        return {}

    def replace(self, worker: int, reason: str) -> None:
        self.replaced.append(worker)
        self.events.append(WorkerReady(worker, "cpu", "here"))

    def release(self, kept: Collection[int]) -> None:
        self.released = set(range(self.size)) - set(kept)
        self.events = [
            event
            for event in self.events
            if isinstance(event, PoolMessage) or event.worker not in self.released
        ]

    def restore(self) -> None:
        self.events += [WorkerReady(worker, "cpu", "here") for worker in sorted(self.released)]
        self.released = set()

    def close(self) -> None:
        self.events.clear()


class Heard:
    """Keep what the scheduler publishes."""

    def __init__(self) -> None:
        self.finished: list[Assignment] = []
        self.open: dict[str, str] = {}
        self.drifts: list[str] = []
        self.deaths: Counter[str] = Counter()
        self.retried: list[str] = []
        self.stop_after: int | None = None

    def hear(self, event: RunEvent) -> None:
        match event:
            case UnitCommitted():
                self.finished.append(event.assignment)
            case UnitDrifted():
                self.drifts.append(event.assignment.unit.unit_id)
            case UnitOpen():
                self.open[event.unit_id] = event.message
            case WorkerDied():
                self.deaths[event.unit.unit_id] += 1
            case UnitRetried():
                self.retried.append(event.assignment.unit.unit_id)

    def stop_reason(self) -> str | None:
        stop = self.stop_after is not None and len(self.finished) >= self.stop_after
        return "enough" if stop else None


def assignment(name: str, ids: str) -> Assignment:
    unit = WorkUnit(name, tuple(ImageRef(i, f"/p/{i}", 1, "1") for i in ids))
    return Assignment(unit, unit.inputs_sha256)


def run(
    pool: ScriptedPool,
    *assignments: Assignment,
    recorded: Deaths = NONE,
    stall_s: float = 60.0,
    heard: Heard | None = None,
) -> Heard:
    heard = heard or Heard()
    watching = Scheduler(
        pool, heard.hear, stall_s, 0.0, lambda unit: recorded, lambda shard, step: 10
    )
    watching.run(iter(assignments), heard.stop_reason)
    return heard


def photos(heard: Heard) -> list[str]:
    return sorted(r.image_id for a in heard.finished for r in a.unit.images)


def test_every_unit_is_done_once() -> None:
    heard = run(ScriptedPool(), *(assignment(f"g{n}", f"{n}") for n in range(9)))
    assert photos(heard) == [str(n) for n in range(9)]


def test_progress_is_reported_after_the_last_commit() -> None:
    events: list[RunEvent] = []
    Scheduler(
        ScriptedPool(), events.append, 60.0, 0.0, lambda unit: NONE, lambda shard, step: 10
    ).run(iter([assignment("g0", "a"), assignment("g1", "b")]))
    assert isinstance(events[-2], UnitCommitted)
    assert events[-1] == Tick(0)


def test_a_photo_that_kills_workers_is_isolated_by_halving_and_gets_its_verdict() -> None:
    heard = run(ScriptedPool(poison={"e"}), assignment("g0", "abcdefgh"), assignment("g1", "xyz"))
    assert photos(heard) == list("abcdefghxyz")
    guilty = [a for a in heard.finished if a.verdict]
    assert [r.image_id for a in guilty for r in a.unit.images] == ["e"]
    assert guilty[0].verdict is not None
    assert guilty[0].verdict[0] == "crashed"
    assert "SIGSEGV" in guilty[0].verdict[1]
    assert heard.deaths["g0"] == 2
    assert heard.deaths[guilty[0].unit.unit_id] == 3
    assert all(
        a.whole_sha256 == assignment("g0", "abcdefgh").whole_sha256
        for a in heard.finished
        if "g0" in a.unit.unit_id
    )


def test_two_guilty_photos_in_one_unit_are_both_found() -> None:
    heard = run(ScriptedPool(poison={"a", "h"}), assignment("g0", "abcdefgh"))
    assert sorted(r.image_id for a in heard.finished if a.verdict for r in a.unit.images) == [
        "a",
        "h",
    ]
    assert photos(heard) == list("abcdefgh")


def test_a_photo_that_hangs_gets_the_status_timeout() -> None:
    heard = run(ScriptedPool(size=1, hangs={"b"}), assignment("g0", "ab"), stall_s=0.0)
    assert {a.verdict[0] for a in heard.finished if a.verdict} == {"timeout"}
    assert photos(heard) == ["a", "b"]


def test_a_member_of_an_archive_file_is_isolated_by_its_range() -> None:
    shard = ShardRef("a.tar", "/p/a.tar", "tar", 1, "1")
    unit = WorkUnit("s0", shard=shard)
    heard = run(ScriptedPool(poison={"7"}), Assignment(unit, unit.inputs_sha256))
    ranges = sorted(
        (a.unit.start, a.unit.stop if a.unit.stop is not None else 10, a.verdict is not None)
        for a in heard.finished
    )
    assert [r[:2] for r in ranges if r[2]] == [(7, 8)]
    covered = [n for start, stop, _ in ranges for n in range(start, stop)]
    assert covered == list(range(10))
    assert [a.unit.stop for a in heard.finished if a.unit.start == 8 or a.unit.stop is None][
        -1
    ] is None


@pytest.mark.parametrize(
    "error",
    [
        StoreError("the store is down"),
        MemoryError("no memory"),
        OSError("no more files"),
        RuntimeError("can't start new thread"),
    ],
)
def test_what_keeps_a_guilty_archive_file_from_being_counted_leaves_the_unit_open(
    error: Exception,
) -> None:
    pool, heard = ScriptedPool(poison={"7"}), Heard()
    shard = ShardRef("a.tar", "/p/a.tar", "tar", 10, "1")
    unit = WorkUnit("s", shard=shard)

    def count(_: ShardRef, step: Callable[[], None]) -> int:
        raise error

    units = iter([Assignment(unit, unit.inputs_sha256), assignment("other", "ab")])
    Scheduler(pool, heard.hear, 60.0, 0.0, lambda unit: NONE, count).run(units)
    assert heard.open == {"s": str(error)}
    assert [a.unit.unit_id for a in heard.finished] == ["other"]


def test_others_are_scored_while_the_members_of_a_guilty_archive_file_are_counted() -> None:
    pool, heard = ScriptedPool(poison={"7"}), Heard()
    unit = WorkUnit("s", shard=ShardRef("a.tar", "/p/a.tar", "tar", 10, "1"))

    def count(_: ShardRef, step: Callable[[], None]) -> int:
        while len(heard.finished) < 3:
            time.sleep(0.01)
        return 10

    units = iter(
        [Assignment(unit, unit.inputs_sha256), *(assignment(f"g{n}", "ab") for n in range(3))]
    )
    Scheduler(pool, heard.hear, 60.0, 0.0, lambda unit: NONE, count).run(units)
    assert [a.unit.unit_id for a in heard.finished][:3] == ["g0", "g1", "g2"]
    assert [(a.unit.start, a.unit.stop) for a in heard.finished if a.verdict is not None] == [
        (7, 8)
    ]


def test_an_archive_file_whose_members_cannot_even_be_counted_gets_its_row_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "_COUNTED_S", 1.0)
    pool, heard = ScriptedPool(poison={"7"}), Heard()
    unit = WorkUnit("s", shard=ShardRef("a.tar", "/p/a.tar", "tar", 10, "1"))
    counted, judged = threading.Event(), threading.Event()
    ended: list[Exception] = []
    before = set(threading.enumerate())

    def count(_: ShardRef, step: Callable[[], None]) -> int:
        for _n in range(30):
            step()
            time.sleep(0.05)
        counted.set()
        judged.wait(60)
        try:
            step()
        except StoreError as e:
            ended.append(e)
        return 10

    Scheduler(pool, heard.hear, 0.0, 0.0, lambda unit: NONE, count).run(
        iter([Assignment(unit, unit.inputs_sha256)])
    )
    assert counted.is_set(), "as long as it gets further it is waited for"
    (found,) = heard.finished
    assert found.unread
    assert found.verdict == (Status.CRASHED, "after 2 attempts: SIGSEGV")
    (thread,) = set(threading.enumerate()) - before
    judged.set()
    thread.join(10)
    assert len(ended) == 1, "it is told that nobody waits for it"


def test_workers_without_a_unit_are_released_at_the_tail() -> None:
    """Among them are those that never got a place, which an autoscaler would still add nodes for."""

    class LongTail(ScriptedPool):
        def wait(self, timeout_s: float) -> list[PoolEvent]:
            events = super().wait(timeout_s)
            late = [e for e in events if isinstance(e, Finished) and e.worker == 1]
            if late and 0 not in self.released:  # until the other one is released
                self.events += late
                return [event for event in events if event not in late]
            return events

    pool = LongTail(size=4)
    pool.events = pool.events[:2]
    heard = run(pool, assignment("g0", "a"), assignment("g1", "b"), assignment("g2", "c"))
    assert pool.released == {0, 2, 3}
    assert photos(heard) == ["a", "b", "c"]


def test_a_worker_that_is_replaced_at_the_tail_is_released_too() -> None:
    """Otherwise an autoscaler would add a node for it."""

    class Drained(ScriptedPool):
        waits, drained = 0, False

        def wait(self, timeout_s: float) -> list[PoolEvent]:
            """Let worker 2 finish first, then 0, whose node is drained, and 1 when 0 is released."""
            self.waits += 1
            assert self.waits < 50, "the new worker waits for a node for as long as the tail takes"
            events = super().wait(timeout_s)
            ended = {event.worker: event for event in events if isinstance(event, Finished)}
            held = [0] if 2 not in self.released else []
            held += [1] if not self.drained or 0 not in self.released else []
            self.events += [ended[worker] for worker in held if worker in ended]
            events = [event for event in events if event not in self.events]
            if 0 in ended and 0 not in held:
                self.drained, self.released = True, {2}
                events.append(Death(0, "its node is being drained", machine_lost=True))
            return events

    pool = Drained(size=3)
    heard = run(pool, *(assignment(f"g{n}", f"{n}") for n in range(3)))
    assert pool.drained
    assert photos(heard) == ["0", "1", "2"]


def test_released_workers_are_there_again_for_a_second_round() -> None:
    pool, heard = ScriptedPool(size=3), Heard()

    def round_of(*units: Assignment, ready: AbstractSet[int] = frozenset()) -> Scheduler:
        scheduler = Scheduler(
            pool, heard.hear, 60.0, 0.0, lambda unit: NONE, lambda shard, step: 10, ready
        )
        scheduler.run(iter(units))
        return scheduler

    first = round_of(assignment("g0", "a"))
    assert len(pool.released) == 2
    pool.restore()
    pool.used.clear()
    round_of(*(assignment(f"h{n}", f"{n}") for n in range(9)), ready=first.idle)
    assert pool.used == {0, 1, 2}
    assert len(photos(heard)) == 10


def test_idle_workers_may_lose_their_machines_all_at_once() -> None:
    class Drained(ScriptedPool):
        left = 9

        def wait(self, timeout_s: float) -> list[PoolEvent]:
            if self.left:
                self.left -= 1
                self.events.append(Death(0, "its node is being drained", machine_lost=True))
                return [WorkerReady(0, "cpu", "there"), self.events.pop()]
            return super().wait(timeout_s)

    heard = run(Drained(size=1), assignment("g0", "a"))
    assert photos(heard) == ["a"]


def test_a_lost_machine_is_not_the_units_fault() -> None:
    pool = ScriptedPool(size=1)
    pool.lost_machines = 5
    heard = run(pool, assignment("g0", "abcd"))
    assert heard.deaths == {}
    assert photos(heard) == list("abcd")


def test_a_unit_under_which_every_machine_is_lost_stays_open_at_last() -> None:
    pool = ScriptedPool(size=1)
    pool.lost_machines = MOST_LOST_MACHINES + 1
    heard = run(pool, assignment("g0", "abcd"), assignment("g1", "ef"))
    assert heard.deaths == {}
    assert heard.open == {
        "g0": f"{MOST_LOST_MACHINES} machines were lost while scoring it: the node died"
    }
    assert photos(heard) == ["e", "f"]


def test_members_that_kill_the_reader_itself_get_their_rows_unread() -> None:
    pool = ScriptedPool()
    pool.unreadable = {"8", "9"}
    unit = WorkUnit("s0", shard=ShardRef("a.tar", "/p/a.tar", "tar", 1, "1"))
    heard = run(pool, Assignment(unit, unit.inputs_sha256))
    assert heard.open == {}
    unread = {(a.unit.start, a.verdict and a.verdict[0].value) for a in heard.finished if a.unread}
    assert unread == {(8, "crashed"), (9, "crashed")}
    ranges = sorted(
        (a.unit.start, a.unit.stop if a.unit.stop is not None else 10) for a in heard.finished
    )
    assert [n for start, stop in ranges for n in range(start, stop)] == list(range(10))


@pytest.mark.parametrize(("timed_out", "status"), [(True, "timeout"), (False, "crashed")])
def test_a_verdict_after_a_resume_is_that_of_the_attempts_on_record(
    timed_out: bool, status: str
) -> None:
    heard = run(ScriptedPool(), assignment("g0", "a"), recorded=Deaths(3, "why it was", timed_out))
    assert [a.verdict for a in heard.finished] == [(status, "after 3 attempts: why it was")]


def test_time_in_which_the_driver_itself_was_held_up_counts_against_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now))

    class HeldUp(ScriptedPool):
        """Let the worker take one step per second, and answer the latest question, as Ray does."""

        steps = answered = 0

        def wait(self, timeout_s: float) -> list[PoolEvent]:
            nonlocal now
            now += 150.0 if self.steps == 30 else 1.0
            self.steps += 1
            if self.steps == 100:
                self.events.append(Finished(0, UnitDone(None)))
            return super().wait(timeout_s)

        def progress(self) -> Mapping[int, UnitProgress]:
            before, self.answered = self.answered, int(now)
            return {0: UnitProgress(steps=before)}

    pool = HeldUp(size=1, hangs={"a"})
    heard = run(pool, assignment("g0", "a"), stall_s=60.0)
    assert (heard.deaths, pool.replaced) == ({}, [])
    assert photos(heard) == ["a"]


def test_time_in_which_the_driver_itself_was_held_up_counts_against_no_archive_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now))
    unit = WorkUnit("s", shard=ShardRef("a.tar", "/p/a.tar", "tar", 10, "1"))
    may_end = threading.Event()

    def count(_: ShardRef, step: Callable[[], None]) -> int:
        assert may_end.wait(60)
        return 10

    class HeldUp(ScriptedPool):
        waits = 0

        def wait(self, timeout_s: float) -> list[PoolEvent]:
            nonlocal now
            self.waits += 1
            now += 1000.0 if self.waits == 10 else 1.0
            if self.waits == 20:
                may_end.set()
                next(t for t in threading.enumerate() if t.name == "count").join(10)
            return super().wait(timeout_s)

    pool, heard = HeldUp(poison={"7"}), Heard()
    Scheduler(pool, heard.hear, 100.0, 0.0, lambda unit: NONE, count).run(
        iter([Assignment(unit, unit.inputs_sha256)])
    )
    assert pool.waits > 20
    assert [(a.unit.start, a.unit.stop) for a in heard.finished if a.verdict is not None] == [
        (7, 8)
    ]


def test_a_count_that_hangs_is_given_up_by_a_driver_whose_turns_are_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now))
    unit = WorkUnit("s", shard=ShardRef("a.tar", "/p/a.tar", "tar", 10, "1"))
    over = threading.Event()

    def count(_: ShardRef, step: Callable[[], None]) -> int:
        over.wait(60)
        return 10

    class Slow(ScriptedPool):
        def wait(self, timeout_s: float) -> list[PoolEvent]:
            nonlocal now
            now += 6.0
            return super().wait(timeout_s)

    heard = Heard()
    Scheduler(Slow(poison={"7"}), heard.hear, 100.0, 0.0, lambda unit: NONE, count).run(
        iter([Assignment(unit, unit.inputs_sha256)])
    )
    over.set()
    assert [a.unread for a in heard.finished] == [True]


def test_deaths_on_record_count() -> None:
    pool = ScriptedPool(poison={"c"})
    heard = run(pool, assignment("g0", "abcd"), recorded=Deaths(2))
    assert "g0" not in {a.unit.unit_id for a in pool.handed_out}
    assert photos(heard) == list("abcd")


def test_a_store_that_fails_is_tried_three_times_and_then_the_unit_stays_open() -> None:
    pool = ScriptedPool()
    pool.answers["g0"] = [UnitFailed("store", "503 SlowDown")] * 3
    pool.answers["g1"] = [UnitFailed("store", "503 SlowDown")] * 2
    heard = run(pool, assignment("g0", "ab"), assignment("g1", "cd"))
    assert heard.open == {"g0": "503 SlowDown"}
    assert photos(heard) == ["c", "d"]


@pytest.mark.parametrize(("kind", "attempts"), [("store", 3), ("memory", 4), ("forbidden", 1)])
def test_the_requests_of_every_attempt_are_counted(
    kind: Literal["store", "memory", "forbidden"], attempts: int, tmp_path: Path
) -> None:
    pool = ScriptedPool(size=1)
    pool.answers["g0"] = [UnitFailed(kind, "no", traffic={"requests_get": 5})] * attempts
    record = RunRecord("r", "skinbatch", "local", "f", "photos")
    recorder = Recorder(RunLog(LocalStore(str(tmp_path)), record))
    Scheduler(pool, recorder.hear, 60.0, 0.0, lambda unit: NONE, lambda shard, step: 10).run(
        iter([assignment("g0", "a")])
    )
    assert len(pool.handed_out) == attempts and not pool.answers["g0"]
    assert record.requests_get == 5 * attempts


def test_a_unit_that_a_store_failed_is_tried_again_when_the_store_may_be_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    handed_out: list[tuple[str, float]] = []

    class Clocked(ScriptedPool):
        def submit(self, worker: int, assignment: Assignment) -> None:
            handed_out.append((assignment.unit.unit_id, now[0]))
            super().submit(worker, assignment)

        def wait(self, timeout_s: float) -> list[PoolEvent]:
            now[0] += 1.0
            return super().wait(timeout_s)

    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pool = Clocked(size=1)
    pool.answers["g0"] = [UnitFailed("store", "connection refused")] * 2
    heard = Heard()
    Scheduler(pool, heard.hear, 60.0, 80.0, lambda unit: NONE, lambda shard, step: 10).run(
        iter([assignment("g0", "ab"), assignment("g1", "cd")])
    )
    assert heard.open == {}
    assert [unit for unit, _ in handed_out] == ["g0", "g1", "g0", "g0"]
    times = [at for unit, at in handed_out if unit == "g0"]
    assert 10 <= times[1] - times[0] <= 13 and 40 <= times[2] - times[1] <= 43


@pytest.mark.parametrize("kind", ["forbidden", "defect"])
def test_refused_access_and_defects_stop_the_run(kind: str) -> None:
    pool = ScriptedPool(size=1)
    pool.answers["g0"] = [UnitFailed(kind, "no")]  # type: ignore[arg-type]
    heard = run(pool, assignment("g0", "a"), assignment("g1", "b"))
    assert heard.open == {"g0": "no"}
    assert heard.finished == []


def test_stopping_hands_out_no_more_and_waits_for_what_is_in_flight() -> None:
    heard = Heard()
    heard.stop_after = 2
    run(ScriptedPool(size=1), *(assignment(f"g{n}", f"{n}") for n in range(9)), heard=heard)
    assert len(heard.finished) == 2


def test_workers_that_never_get_ready_end_the_run_with_their_reason() -> None:
    class Broken(ScriptedPool):
        def wait(self, timeout_s: float) -> list[PoolEvent]:
            return [Death(0, "no such weights")]

    with pytest.raises(WorkersFailed, match="no such weights"):
        run(Broken(size=1), assignment("g0", "a"))


class Waiting(ScriptedPool):
    """Never finish a unit, and give the reason."""

    def __init__(self, on_store: bool) -> None:
        super().__init__(size=1, hangs={"a"})
        self.on_store = on_store

    def progress(self) -> Mapping[int, UnitProgress]:
        return {0: UnitProgress(0, self.on_store)}


def test_a_store_that_does_not_answer_is_blamed_instead_of_the_unit() -> None:
    heard = Heard()
    Scheduler(
        Waiting(on_store=True), heard.hear, 0.0, 0.0, lambda unit: NONE, lambda shard, step: 10
    ).run(iter([assignment("g0", "ab")]))
    assert heard.deaths == {}
    assert "the store did not answer" in heard.open["g0"]


@pytest.mark.parametrize(
    "reason", ["killed due to memory pressure (OOM)", "the worker was killed by SIGKILL"]
)
def test_workers_that_die_for_want_of_memory_say_what_to_set(reason: str) -> None:
    class Starving(ScriptedPool):
        def wait(self, timeout_s: float) -> list[PoolEvent]:
            return [Death(0, reason)]

    with pytest.raises(WorkersFailed, match="set cpus_per_worker higher or workers lower"):
        run(Starving(size=1), assignment("g0", "a"))


@pytest.mark.parametrize("steps_a_photo", [1, 1000])
def test_a_worker_that_gets_further_is_not_given_up(steps_a_photo: int) -> None:
    class Slow(ScriptedPool):
        steps = 0

        def progress(self) -> Mapping[int, UnitProgress]:
            self.steps += 1
            if self.steps == 20:
                self.events.append(Finished(0, UnitDone(None)))
            return {0: UnitProgress(self.steps // steps_a_photo, steps=self.steps)}

    heard = run(Slow(size=1, hangs={"a"}), assignment("g0", "ab"), stall_s=0.0)
    assert heard.deaths == {}
    assert photos(heard) == ["a", "b"]


def test_workers_are_not_looked_at_after_every_event_of_a_busy_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, looks = 0.0, 0

    class Busy(ScriptedPool):
        def wait(self, timeout_s: float) -> list[PoolEvent]:
            nonlocal now
            now += 0.01
            self.events, first = self.events[1:], self.events[:1]
            return first

        def progress(self) -> Mapping[int, UnitProgress]:
            nonlocal looks
            looks += 1
            return {}

    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now))
    heard = run(Busy(size=1), *(assignment(f"g{n}", "a") for n in range(200)))
    assert len(heard.finished) == 200
    assert 5 < looks < 20
