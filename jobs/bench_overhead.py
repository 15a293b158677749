"""Measure the cost of everything besides decoding and models.

It is given as photos a second per core, the share of safety, and the cost of resuming. `python
jobs/bench_overhead.py '{"kind": "score", ...}'` is one run in a process of its own;
jobs/benchmark.py starts it.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import subprocess
import sys
import tarfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.bench_archives import finished_destination, tiny_photo

# The number of keys in one listing request of S3.
PAGE = 1000
PHOTOS_A_CORE = 3000
SHARE = 0.03
RESUME_S, RESUME_MIB = 30.0, 500.0
_PER_TAR = 512


@dataclass(frozen=True, slots=True)
class Run:
    """Describe one run of `score`.

    watched: whether safety is timed; the workers then run in the driver's own process.
    """

    source: str
    dest: str
    pack: str
    limit: int | None = None
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Ran:
    """Hold the measurements of one run.

    rows: of the destination. wall, cpu: seconds of the run itself; cpu is that of driver and
    workers together. peak: peak resident memory of the driver in MiB. pages: listing requests of
    1,000 keys that its stores would have answered. keys: number of keys listed. phases: seconds by
    phase. spent: seconds by part of safety.
    """

    rows: int
    scored: int
    copied: int
    message: str
    wall: float
    cpu: float
    peak: float
    pages: int
    keys: int
    phases: dict[str, float]
    spent: dict[str, float]


# The following code runs in a process of its own.


class Phases:
    """Note the time at which each phase began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._now, self._since = "starting", time.perf_counter()

    def phase(self, text: str) -> None:
        now = time.perf_counter()
        self.seconds[self._now] += now - self._since
        self._now, self._since = text.partition(" /")[0], now

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def progress(self, progress: object) -> None:
        """Ignore progress."""


def run(job: Run) -> Ran:
    """Score, and return the measurements."""
    from skinbatch.config import load_config
    from skinbatch.engines.driver import drive
    from skinbatch.engines.local import LocalEngine
    from skinbatch.engines.run import Run
    from skinbatch.engines.setup import prepare

    listed = _count_listings()
    phases = Phases()
    settings = {"limit": job.limit, "max_failures": 1.0, "stop_failures": 1.0}
    config = load_config(overrides={"pack": job.pack, "engine": {"name": "local"}, "run": settings})
    engine, spent = LocalEngine(config.engine), dict[str, float]()
    if job.watched:
        from jobs.bench_safety import SameProcess, watch

        engine, spent = SameProcess(config.engine), watch()
    started, cpu = time.perf_counter(), _cpu()
    report = drive(Run(prepare(job.source, job.dest, config), phases, "bench"), engine)
    wall = time.perf_counter() - started
    phases.phase("end")
    peak = _peak()
    keys, pages = sum(listed), sum(max(1, math.ceil(n / PAGE)) for n in listed)
    if report.exit_code not in (0, 6):
        raise SystemExit(f"exit {report.exit_code}: {report.message}")
    return Ran(
        *(
            report.rows,
            report.scored,
            report.copied,
            report.message,
            wall,
            _cpu() - cpu,
            peak,
            pages,
            keys,
        ),
        {name: round(s, 3) for name, s in phases.seconds.items()},
        {name: round(s, 3) for name, s in spent.items()},
    )


def _peak() -> float:
    """Return the peak resident memory in MiB.

    ru_maxrss does not serve: it begins with the value of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)


def _count_listings() -> list[int]:
    """Collect the number of keys of every listing from now on."""
    from skinbatch.storage.links import Links
    from skinbatch.storage.local import LocalStore

    counts: list[int] = []
    walk = LocalStore._walk

    def counted(
        self: LocalStore, prefix: str, links: Links | None = None
    ) -> Iterator[tuple[str, bool]]:
        counts.append(0)
        at = len(counts) - 1
        for entry in walk(self, prefix, links):
            counts[at] += 1
            yield entry

    LocalStore._walk = counted  # type: ignore[method-assign]
    return counts


# The following code runs in the benchmark's process.


@dataclass(frozen=True, slots=True)
class Rate:
    """Hold the cost of a photo, computed from a small and a large run to leave out the start-up.

    computed: photos were decoded and scored, which the target does not include.
    """

    what: str
    few: int
    many: int
    cpu: float
    wall: float
    computed: bool = False

    @property
    def a_core(self) -> float:
        return (self.many - self.few) / self.cpu

    def line(self) -> str:
        verdict = (
            "" if self.computed else "   reached" if self.a_core >= PHOTOS_A_CORE else "   MISSED"
        )
        return f"{self.what:<58} {self.a_core:9,.0f} {(self.many - self.few) / self.wall:12,.0f}{verdict}"


def start(job: Run) -> Ran:
    """Run one job in a process of its own. Raises SystemExit if it fails."""
    command = [sys.executable, __file__, json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return Ran(**json.loads(done.stdout.strip().splitlines()[-1]))


def rates(few: int, many: int, pack: str, work: Path) -> list[Rate]:
    """Measure photos that need no computing, in each way that this can happen."""
    ways = {
        "empty files": _loose(b""),
        f"empty members of tars of {_PER_TAR}": _tars,
        "16 x 16 px, decoded and scored with models that look at colours": _loose(tiny_photo()),
    }
    measured: list[Rate] = []
    for what, write in ways.items():
        ran: dict[int, Ran] = {}
        again: dict[int, Ran] = {}
        for count in (few, many):
            source, dest = work / f"{len(measured)}-{count}", work / f"{len(measured)}-{count}-out"
            write(source, count)
            ran[count] = start(Run(str(source), str(dest), pack))
            if "scored" in what:
                _touch_one_a_unit(source, dest)
                again[count] = start(Run(str(source), str(dest), pack))
        for name, runs in (
            (what, ran),
            ("rows copied, as one photo of every unit has changed", again),
        ):
            if runs:
                a, b = runs[few], runs[many]
                measured.append(
                    Rate(name, few, many, b.cpu - a.cpu, b.wall - a.wall, computed="scored" in name)
                )
    return measured


def _loose(data: bytes) -> Any:
    def write(folder: Path, count: int) -> None:
        for n in range(count):
            path = folder / f"{n // 1000:03d}" / f"{n:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    return write


def _tars(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for n in range(0, count, _PER_TAR):
        with tarfile.open(folder / f"{n:06d}.tar", "w") as tar:
            for member in range(min(_PER_TAR, count - n)):
                tar.addfile(tarfile.TarInfo(f"{member:03d}.jpg"), io.BytesIO())


def _touch_one_a_unit(source: Path, dest: Path) -> None:
    """Change one photo of every unit, so that the unit's other rows are copied."""
    from skinbatch.reading import open as open_destination

    table = open_destination(dest).images(["image_id", "unit_id"])
    first: dict[str, str] = {}
    for image_id, unit_id in zip(
        *(table.column(n).to_pylist() for n in ("image_id", "unit_id")), strict=True
    ):
        first.setdefault(unit_id, image_id)
    for image_id in first.values():
        os.utime(source / image_id)


def measure(
    photos: Path, packs: tuple[str, str], counts: tuple[int, int], units: int, work: Path
) -> dict[str, Any]:
    """Measure all three and print the results.

    photos: a folder that the first of `packs` scores; the second pack has models that cost nothing.
    counts: few and many photos.
    """
    pack, fake = packs
    few, many = counts
    measured = rates(few, many, fake, work)
    what = f"no models; from {few:,} to {many:,} photos; target {PHOTOS_A_CORE:,} per core"
    print(f"{what:<58} {'per core':>9} {'photos/s':>12}")
    print("\n".join(rate.line() for rate in measured))
    print(
        "per core: photos per second of CPU time, of driver and worker together, without start-up\n"
    )
    real = start(Run(str(photos), str(work / "real"), pack, watched=True))
    safe, whole = sum(real.spent.values()), real.wall - real.phases.get("starting workers", 0.0)
    print(
        f"cost of safety in a run of {real.rows} photos with pack {Path(pack).name}, {whole:.1f} s without loading models:"
    )
    for what, seconds in sorted(real.spent.items(), key=lambda item: -item[1]):
        print(f"  {what:<48} {seconds:8.3f} s {100 * seconds / whole:6.2f} %")
    print(
        f"  {'together':<48} {safe:8.3f} s {100 * safe / whole:6.2f} %   target < {100 * SHARE:.0f} %\n"
    )
    resumed = resume(units, fake, work)
    return {
        "rates": [asdict(rate) | {"a_core": round(rate.a_core)} for rate in measured],
        "safety": {"seconds": whole, "spent": real.spent, "share": round(safe / whole, 4)},
        "resume": {name: asdict(ran) for name, ran in resumed.items()},
    }


def resume(units: int, pack: str, work: Path) -> dict[str, Ran]:
    """Resume a destination whose units are all done.

    The first time it lacks its snapshot, as if a driver had been killed at the end.
    """
    source, dest = work / "shards", work / "finished"
    needed = finished_destination(
        units, source, dest, lambda: start(Run(str(source), str(dest), pack, limit=1))
    )
    measured = {
        name: start(Run(str(source), str(dest), pack))
        for name in ("before its snapshot", "finished")
    }
    print(f"`score` again, {units:,} units done; target < {RESUME_S:.0f} s, < {RESUME_MIB:.0f} MiB")
    for name, ran in measured.items():
        print(
            f"{name:<20} {ran.wall:6.1f} s {ran.peak:6.0f} MiB {ran.pages:6,} listing requests   {_longest(ran)}"
        )
    print(
        f"{needed:,} requests list the source and what the destination keeps of these units, once"
    )
    return measured


def _longest(ran: Ran) -> str:
    return ", ".join(f"{name} {s:.1f} s" for name, s in Counter(ran.phases).most_common(4))


if __name__ == "__main__":
    print(json.dumps(asdict(run(Run(**json.loads(sys.argv[1]))))))
