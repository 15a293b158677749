"""Measure the stages of one worker: how long each takes a photo, what runs beside it, and what bounds the worker."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Above this share of the cores' time, the processor is what bounds a worker.
_BUSY = 0.9
# The order in which a photo passes them.
STAGES = ("fetch", "decode", "segmenter", "crop", "detector", "classifier", "grade", "write")


@dataclass(frozen=True, slots=True)
class Span:
    """Hold when a thread worked for a stage. start, end: seconds of one clock."""

    stage: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Hold the time of one stage. seconds: of all threads. beside: of those, while another ran."""

    name: str
    seconds: float
    beside: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Hold where the time of one worker went.

    seconds: by the clock, from the first photo fetched to the last table written. cpu: of all
    threads.
    """

    photos: int
    cores: int
    seconds: float
    cpu: float
    stages: Sequence[Stage]

    @property
    def busy(self) -> float:
        """Return the share of the cores' time in which they computed, 0-1."""
        return self.cpu / (self.seconds * self.cores)

    @property
    def bound(self) -> float:
        """Return the photos a second if the cores never waited."""
        return self.photos * self.cores / self.cpu

    @property
    def bounded_by(self) -> str:
        """Return what a worker would have to have more of, or spend less on."""
        if self.busy >= _BUSY:
            longest = max(self.stages, key=lambda stage: stage.seconds)
            return f"the processor, most of all by the {longest.name}"
        alone = max(self.stages, key=lambda stage: stage.seconds - stage.beside)
        return (
            f"waiting: the cores are idle for a part of the time, most of all beside {alone.name}"
        )

    def text(self) -> str:
        """Return the table that is printed."""
        lines = [f"{'stage':<12} {'ms a photo':>10} {'of the time':>12} {'beside others':>14}"]
        whole = sum(stage.seconds for stage in self.stages)
        for stage in self.stages:
            beside = stage.beside / stage.seconds if stage.seconds else 0.0
            lines.append(
                f"{stage.name:<12} {1e3 * stage.seconds / self.photos:10.1f} "
                f"{100 * stage.seconds / whole:10.0f} % {100 * beside:12.0f} %"
            )
        lines += [
            f"{'together':<12} {1e3 * whole / self.photos:10.1f}   of all threads; "
            f"by the clock {1e3 * self.seconds / self.photos:.1f}, of the processor {1e3 * self.cpu / self.photos:.1f}",
            f"{self.photos / self.seconds:.2f} photos/s; the cores are busy {100 * self.busy:.0f} % of the time; "
            f"the bound, if they never waited: {self.bound:.2f} photos/s",
            f"bounded by {self.bounded_by}",
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"busy": self.busy, "bound": self.bound}


def measure(photos: Path, pack: str, runtime: str, cores: int, work: Path) -> Profile:
    """Score the photos of a folder with one worker in a process of its own."""
    job = {"photos": str(photos), "pack": pack, "runtime": runtime, "dest": str(work / "profile")}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(job)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{job}: exit {done.returncode}\n{done.stderr[-4000:]}")

    measured = json.loads(done.stdout.strip().splitlines()[-1])
    spans = [Span(*span) for span in measured["spans"]]
    return profile_of(spans, measured["photos"], cores, measured["cpu"])


def profile_of(spans: Sequence[Span], photos: int, cores: int, cpu: float) -> Profile:
    """Return the profile of work at these times."""
    beside = _seconds_beside_others(spans)
    stages = [
        Stage(
            name, sum(span.end - span.start for span in spans if span.stage == name), beside[name]
        )
        for name in STAGES
    ]
    seconds = max(span.end for span in spans) - min(span.start for span in spans)
    return Profile(photos, cores, seconds, cpu, stages)


def _seconds_beside_others(spans: Iterable[Span]) -> dict[str, float]:
    """Return, for each stage, its threads' seconds while a thread of another stage was at work."""
    changes = [(span.start, 1, span.stage) for span in spans]
    changes += [(span.end, -1, span.stage) for span in spans]

    running = dict.fromkeys(STAGES, 0)
    beside = dict.fromkeys(STAGES, 0.0)
    before = 0.0
    for now, change, stage in sorted(changes):
        at_work = [name for name in STAGES if running[name]]
        if len(at_work) > 1:
            for name in at_work:
                beside[name] += running[name] * (now - before)
        running[stage] += change
        before = now
    return beside


# The following code runs in a process of its own.


class Watch:
    """Collect spans from the threads of a worker."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Note work that has taken so long and has just ended."""
        now = time.perf_counter()
        with self._lock:
            self.spans.append(Span(stage, now - seconds, now))

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return a callable that does the work and notes its time."""

        @functools.wraps(work)
        def inner(*args: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*args, **named)
            finally:
                self.add(stage, time.perf_counter() - started)

        return inner

    def each(self, stage: str, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items and note the time that each takes to come."""
        source = iter(items)
        following = self.timed(stage, lambda: next(source, None))
        while (item := following()) is not None:
            yield item


def run(photos: str, pack: str, runtime: str, dest: str) -> dict[str, Any]:
    """Score with a worker in this process, and return its spans."""
    from jobs.bench_overhead import Phases
    from jobs.bench_safety import SameProcess
    from skinbatch.config import load_config
    from skinbatch.engines.local import LocalEngine
    from skinbatch.engines.score import score
    from skinbatch.scoring import ahead, unit_scorer
    from skinbatch.scoring.seconds import Seconds

    watch = Watch()
    cpu: list[float] = []
    plain_ahead, plain_add = ahead.decoded_ahead, Seconds.add

    def decoded_ahead(items: Iterable[Any], *others: Any) -> Any:
        cpu.append(time.process_time())
        return plain_ahead(watch.each("fetch", items), *others)

    def add(self: Seconds, part: str, seconds: float) -> None:
        plain_add(self, part, seconds)
        if part in STAGES:
            watch.add(part, seconds)

    setattr(unit_scorer, "decoded_ahead", decoded_ahead)  # noqa: B010  the name belongs to `ahead`
    Seconds.add = add  # type: ignore[method-assign]
    ahead._decode = watch.timed("decode", ahead._decode)
    commit = watch.timed("write", unit_scorer.UnitScorer._commit)
    unit_scorer.UnitScorer._commit = commit  # type: ignore[method-assign]
    LocalEngine.begin = SameProcess.begin  # type: ignore[method-assign, assignment]
    LocalEngine.start = SameProcess.start  # type: ignore[method-assign, assignment]

    config = load_config(overrides={"engine": {"runtime": runtime}})
    report = score(photos, dest, pack=pack, engine="local", config=config, presenter=Phases())
    if report.exit_code:
        raise SystemExit(f"exit {report.exit_code}: {report.message}")
    return {
        "photos": report.rows,
        "cpu": time.process_time() - cpu[0],
        "spans": [(span.stage, span.start, span.end) for span in watch.spans],
    }


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
