"""Run workers as Ray actors.

A dead worker is replaced, a lost machine is distinguished from a dead process, and no wait is
without end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Set
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from skinbatch.engines.cards import over_share
from skinbatch.engines.metric_list import SAMPLE
from skinbatch.engines.pool import (
    Death,
    Finished,
    PoolEvent,
    PoolMessage,
    UnitProgress,
    WorkerReady,
)
from skinbatch.engines.ray_metrics import RunMetrics
from skinbatch.engines.ray_nodes import draining_nodes
from skinbatch.engines.ray_watch import HeadWatch, Placement
from skinbatch.engines.worker import Worker, environment
from skinbatch.errors import UsageError
from skinbatch.scoring.assignment import Assignment, Outcome, ScoringContext, UnitDone, UnitFailed
from skinbatch.storage.discard import DISCARD
from skinbatch.types import WorkUnit

# Seconds that Ray may take to notice that a machine is gone.
_MISSING_NODE_S = 30.0
# Seconds between two looks for nodes that are being drained, and the seconds before such a node's
# deadline at which its workers are given up at the latest.
_LOOK_FOR_DRAINS_S = 2.0
_LEAVE_S = 5.0
# Seconds between two questions to a worker how far it is: at least the first number, and the second
# for each worker of the pool. Answers take the driver's time.
_ASK_S, _ASK_EACH_S = 0.2, 0.005
# Longest time between two questions, as a share of `stall_timeout_s`: a worker that makes progress
# must be seen to do so in time.
_ASK_SHARE = 0.25


class _Actor(Worker):
    """Add the worker's node, so that a lost machine can be distinguished from a dead process."""

    def node(self) -> tuple[str, tuple[str, str]]:
        return ray.get_runtime_context().get_node_id(), self.describe()


class RayPool:
    """Run a pool of actors with `max_restarts=0`.

    The pool replaces dead actors itself, so that the scheduler learns of every death.
    """

    def __init__(
        self,
        context: ScoringContext,
        workers: int,
        cpus: float,
        gpus: float,
        placement: Placement | None = None,
        head: HeadWatch | None = None,
        actor: type = _Actor,
    ) -> None:
        """Start the workers.

        Args:
            cpus, gpus: for each worker.
            placement: watches the workers while none of them has a place.
            head: watches the cluster's head.
            actor: the class that runs in each worker, with the methods of `_Actor`.
        """
        self.size = workers
        self._placement = placement
        self._head = head or HeadWatch(None)
        self._gpus = gpus
        self._noted_cpu = False
        self._context = ray.put(context)
        self._ask_s = _seconds_between_questions(workers, context.config.engine.stall_timeout_s)
        # Photos of a sample are in no table, so they do not count as the scoring's.
        is_sample = context.destination == DISCARD
        self._metrics = RunMetrics(SAMPLE if is_sample else context.fingerprint, context.units)
        self._remote = ray.remote(concurrency_groups={"progress": 1})(actor).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": environment(context.threads)},
        )
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}
        self._calls: dict[Any, tuple[int, str]] = {}
        # Question -> its worker, and the call for the unit that it is about.
        self._asked: dict[Any, tuple[int, Any]] = {}
        self._asked_at = -math.inf
        self._progress: dict[int, UnitProgress] = {}
        # Worker -> the time at which it got its unit, and the unit.
        self._given: dict[int, tuple[float, WorkUnit]] = {}
        self._missing: dict[int, tuple[float, str]] = {}
        self._up: set[int] = set()
        # Node -> the time at which it is taken away.
        self._draining: dict[str, float] = {}
        self._looked_at = time.monotonic()
        for worker in range(workers):
            self._start(worker)

    def _start(self, worker: int) -> None:
        actor = self._remote.remote(self._context)
        self._actors[worker] = actor
        self._calls[actor.node.remote()] = (worker, "ready")

    def submit(self, worker: int, assignment: Assignment) -> None:
        self._progress[worker] = UnitProgress()
        self._given[worker] = time.monotonic(), assignment.unit
        self._metrics.submitted(worker, assignment)
        self._calls[self._actors[worker].score.remote(assignment)] = (worker, "score")

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        self._head.look()
        events = self._bury_missing()
        if self._placement is not None and not self._up:
            note = self._placement.look(self._actors.values())
            events += [PoolMessage(note)] if note else []
        if events or not self._calls:
            time.sleep(0 if events else timeout_s)
            return events + self._leave_draining()
        for call in self._ended(timeout_s):
            worker, kind = self._calls.pop(call)
            event = self._event(worker, kind, call)
            if event is not None:
                events.append(event)
            if isinstance(event, WorkerReady):
                self._up.add(event.worker)
                events += self._without_gpu(event)
        return events + self._leave_draining()

    def _ended(self, timeout_s: float) -> list[Any]:
        """Wait until a call has ended, and return all that have."""
        calls = list(self._calls)
        done, others = ray.wait(calls, num_returns=1, timeout=timeout_s)
        if done and others:
            done += ray.wait(others, num_returns=len(others), timeout=0)[0]
        return done

    def _without_gpu(self, ready: WorkerReady) -> list[PoolEvent]:
        """Tell the user about a worker that was given a GPU but computes on its CPUs."""
        if not self._gpus or self._noted_cpu or ready.resource != "cpu":
            return []
        self._noted_cpu = True
        what = f"{ready.host}: Ray gives the worker a GPU there, but torch cannot use one"
        return [
            PoolMessage(
                f"{what} (its driver, or a torch without CUDA); the worker computes on its CPUs"
            )
        ]

    def _event(self, worker: int, kind: str, call: Any) -> PoolEvent | None:
        try:
            value = ray.get(call)
        except RayTaskError as e:
            if kind == "ready":
                return self._dead(worker, str(e))
            failed = UnitFailed("defect", str(e))
            self._metrics.finished(worker, failed)
            return Finished(worker, failed)
        except ActorUnavailableError as e:
            # Ray does not know yet whether the process or its machine is gone; ray.nodes() will
            # show it.
            self._missing[worker] = (time.monotonic() + _MISSING_NODE_S, str(e))
            return None
        except RayError as e:  # died, out of memory, not placed or not set up
            return self._dead(worker, str(e))
        if kind == "score":
            self._metrics.finished(worker, value)
            self._check_share(value)
            return Finished(worker, value)
        self._nodes[worker], (device, host) = value
        return WorkerReady(worker, device, host)

    def _check_share(self, outcome: Outcome) -> None:
        """Raise UsageError if the worker has used more than its share of a GPU.

        The others on the card would run out of memory, now or with larger faces.
        """
        if not isinstance(outcome, UnitDone):
            return
        reason = over_share(outcome.gpu_memory, outcome.gpu_card, self._gpus)
        if reason:
            raise UsageError(f"{reason}; everything committed is kept")

    def _leave_draining(self) -> list[PoolEvent]:
        """Replace the workers on nodes that are being drained.

        A worker leaves when its unit has ended, or as soon as it is clear that the unit will not
        end in time. Ray places the new one on another node.
        """
        events: list[PoolEvent] = []
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_FOR_DRAINS_S:
            self._head.require()
            draining = {node: now + left for node, left in draining_nodes().items()}
            if (draining.keys() - self._draining.keys()) & set(self._nodes.values()):
                events.append(PoolMessage("a node is being drained; its workers start elsewhere"))
            self._draining, self._looked_at = draining, now
        if not self._draining:
            return events

        at_work = {worker for worker, kind in self._calls.values() if kind == "score"}
        for worker in [w for w, node in self._nodes.items() if node in self._draining]:
            left_s = self._draining[self._nodes[worker]] - now - _LEAVE_S
            if worker in at_work and self._may_end_within(left_s, worker):
                continue
            self._replace(worker)
            events.append(Death(worker, "its node is being drained", machine_lost=True))
        return events

    def _may_end_within(self, seconds: float, worker: int) -> bool:
        """Return whether a worker's unit may end in so many seconds, judged by its photos so far."""
        given_at, unit = self._given[worker]
        photos = len(unit.images) if unit.shard is None else (unit.stop or 0) - unit.start
        done = self._progress[worker].photos
        if photos <= 0 or not done:  # unknown
            return seconds > 0
        return (photos - done) * (time.monotonic() - given_at) / done < seconds

    def _bury_missing(self) -> list[PoolEvent]:
        events: list[PoolEvent] = []
        for worker, (until, reason) in list(self._missing.items()):
            if self._machine_lost(worker) or time.monotonic() > until:
                del self._missing[worker]
                events.append(self._dead(worker, reason))
        return events

    def _machine_lost(self, worker: int) -> bool:
        self._head.require()
        node = self._nodes.get(worker)
        return node is not None and node not in {n["NodeID"] for n in ray.nodes() if n["Alive"]}

    def _dead(self, worker: int, reason: str) -> Death:
        lost = self._machine_lost(worker) or "node has died" in reason or "node was dead" in reason
        self._replace(worker)
        return Death(worker, _first_lines(reason), lost)

    def progress(self) -> Mapping[int, UnitProgress]:
        self._metrics.standing(len(self._up))
        if self._asked:
            done, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for question in done:
                worker, call = self._asked.pop(question)
                if call not in self._calls:  # the unit has ended; the worker may have another one
                    continue
                try:
                    self._progress[worker] = ray.get(question)
                except RayError:
                    continue  # the call for its unit reports the reason
        now = time.monotonic()
        if now - self._asked_at < self._ask_s:
            return self._progress

        self._asked_at = now
        asked = {call for _, call in self._asked.values()}
        for call, (worker, kind) in self._calls.items():
            if kind == "score" and call not in asked:
                method = self._actors[worker].progress.options(concurrency_group="progress")
                self._asked[method.remote()] = worker, call
        return self._progress

    def replace(self, worker: int, reason: str) -> None:
        self._replace(worker)

    def release(self, kept: Collection[int]) -> None:
        self._end(self._actors.keys() - kept)

    def restore(self) -> None:
        for worker in range(self.size):
            if worker not in self._actors:
                self._start(worker)

    def _replace(self, worker: int) -> None:
        self._end({worker})
        self._metrics.replaced(worker)
        if self._placement is not None and not self._up:
            self._placement.begin()
        self._start(worker)

    def _end(self, workers: Set[int]) -> None:
        if not workers:
            return
        self._calls = {call: who for call, who in self._calls.items() if who[0] not in workers}
        self._asked = {asked: who for asked, who in self._asked.items() if who[0] not in workers}
        self._up -= workers
        for worker in workers:
            self._missing.pop(worker, None)
            self._progress.pop(worker, None)
            self._given.pop(worker, None)
            self._nodes.pop(worker, None)
            ray.kill(self._actors.pop(worker), no_restart=True)

    def close(self) -> None:
        if self._head.lost:
            return
        self._metrics.closed()
        for actor in self._actors.values():
            ray.kill(actor, no_restart=True)


def _seconds_between_questions(workers: int, stall_timeout_s: float) -> float:
    """Return the time between two questions to each of so many workers.

    >>> [_seconds_between_questions(workers, 120.0) for workers in (4, 1000, 20_000)]
    [0.2, 5.0, 30.0]
    """
    return max(_ASK_S, min(_ASK_EACH_S * workers, _ASK_SHARE * stall_timeout_s))


def _first_lines(text: str) -> str:
    """Return the first lines of one of Ray's errors.

    The error may fill pages, but its first lines name the cause.
    """
    return " ".join(line.strip() for line in text.splitlines()[:12] if line.strip())[:600]
