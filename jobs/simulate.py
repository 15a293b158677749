"""Simulate a very large run: the real driver, with workers that only wait.

    python jobs/simulate.py --workers 1000 --units 2000000 --preempt 0.01
    python jobs/simulate.py --ray --workers 8 --units 3000
    python jobs/simulate.py --plan 10000000

Planning, scheduler, ledger, folds, snapshot and clean-up are those of `skinbatch score`, and every
simulated unit leaves a real receipt. Only time is simulated: a worker takes as long for a unit as
in a measured run (`--like DEST`), and the driver's own processor time is added to the clock, so
workers wait for a driver that is too slow. With `--ray`, nothing is simulated but the models: units
go to real actors, which commit them into a real folder and take no time to score them. With `--plan`,
a listing of so many loose photos is only planned.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import json
import math
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.simulate_plan import plan_listing
from jobs.simulate_store import OneFileStore
from jobs.simulate_workers import Clock, Fleet, SimulatedPool
from skinbatch.config import Config, StorageSettings, load_config
from skinbatch.engines import recorder, scheduler, totals
from skinbatch.engines.driver import drive
from skinbatch.engines.planning import Planner
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import Prepared, prepare
from skinbatch.models.fake import write_fake_pack
from skinbatch.runs import destination, layout, plan, receipts, snapshot
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.listed import LISTED_SCHEMA, Listing
from skinbatch.runs.plan import Plan, PlanWriter
from skinbatch.scoring.assignment import ScoringContext
from skinbatch.storage.locate import open_store
from skinbatch.storage.store import Store
from skinbatch.tables.schema import SCHEMA_VERSION
from skinbatch.types import ShardRef

# Seconds per photo if no measured run is named: log-normal, as on a worker with one core. Half of
# the units take less than 0.1 s a photo, and one in twenty takes more than 0.16 s.
_PHOTO_S, _SPREAD, _DRAWN = 0.1, 0.3, 1000
# What a run should reach: units a second of the driver's processor, a gigabyte of memory, the share
# of worker time without a unit, and units a second through real actors.
AIM_UNITS_A_SECOND, AIM_MIB, AIM_IDLE = 1000, 1000 * 1e6 / 2**20, 0.05
AIM_RAY = 300


@dataclass(frozen=True, slots=True)
class Simulated:
    """Hold what one simulated run showed.

    seconds: simulated, from the first hand-out to the last commit. driver_s: processor seconds of
    the driver while units were handed out. end_s: of writing the snapshot and cleaning up. tail_s:
    from the first idle worker to the end. idle: share of the worker-seconds without a unit. peak:
    peak resident memory of the driver in MiB. before: the same before the first unit. done: units
    that the snapshot names, each once.
    """

    workers: int
    units: int
    preempt: float
    unit_s: float
    seconds: float
    driver_s: float
    simulation_s: float
    end_s: float
    tail_s: float
    idle: float
    peak: float
    before: float
    done: int
    lost: int
    lost_with_unit: int
    unheard: int

    @property
    def units_a_second(self) -> float:
        return self.units / self.driver_s

    @property
    def most_workers(self) -> float:
        """Return how many workers this driver could keep busy with units of this length."""
        return self.units_a_second * self.unit_s

    @property
    def most_units(self) -> float:
        """Return how many units fit into the memory that is aimed for."""
        per_unit = (self.peak - self.before) / self.units
        return (AIM_MIB - self.before) / max(1e-9, per_unit)


class PlannedBefore(Planner):
    """Read the plan that another process has written, so that listing takes no memory here."""

    def plan_source(self) -> Plan:
        return self.newest_plan()


class SimulatedEngine:
    """Start simulated workers; see Engine."""

    name = "simulated"

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self.store, self.fleet = store, fleet
        self.clock = Clock()
        self.pool: SimulatedPool | None = None

    def check(self, source: str, destination: str, config: Config) -> None:
        """Do nothing: simulated workers see everything."""

    def start(self, context: ScoringContext) -> SimulatedPool:
        self.pool = SimulatedPool(context, self.store, self.fleet, self.clock)
        return self.pool

    def close(self) -> None:
        """Do nothing: nothing runs."""


def simulate(fleet: Fleet, units: int, work: Path) -> Simulated:
    """Plan in a process of its own, then run, and return what it showed.

    work: an empty folder for the destination; for two million units it takes about 6 GB.
    """
    planning = multiprocessing.get_context("spawn").Process(target=write_plan, args=(work, units))
    planning.start()
    planning.join()
    if planning.exitcode:
        raise SystemExit("the plan could not be written")

    run = Run(prepare_simulated(work), SilentPresenter(), "simulate")
    run.planner = PlannedBefore(run.prepared, run.presenter, run.log, lambda: None)
    engine = SimulatedEngine(run.store, fleet)
    before = memory_mib("VmRSS")
    with on_simulated_time(engine.clock):
        report = drive(run, engine)
    ended = time.process_time()
    pool = engine.pool
    if report.exit_code or pool is None:
        raise SystemExit(f"exit {report.exit_code}: {report.message}")

    peak = memory_mib("VmHWM")
    return Simulated(
        workers=fleet.workers,
        units=units,
        preempt=fleet.preempt,
        unit_s=fleet.photos * sum(fleet.photo_s) / len(fleet.photo_s),
        seconds=pool.ended,
        driver_s=engine.clock.driver,
        simulation_s=engine.clock.simulation,
        end_s=ended - pool.processor,
        tail_s=pool.ended - (pool.first_idle or pool.ended),
        idle=1 - pool.busy_s / pool.there_s,
        peak=peak,
        before=before,
        done=count_done_once(run.store, report.fingerprint),
        lost=pool.counts["lost"],
        lost_with_unit=pool.counts["lost with a unit"],
        unheard=pool.counts["committed, but not heard of"],
    )


def through_ray(workers: int, units: int, work: Path) -> str:
    """Run the units through real actors, and return a table of what it showed."""
    from jobs.simulate_ray import FakeRayEngine  # imports ray

    write_plan(work, units, in_folder=True)
    run = Run(prepare_simulated(work, in_folder=True), SilentPresenter(), "simulate")
    run.planner = PlannedBefore(run.prepared, run.presenter, run.log, lambda: None)
    engine = FakeRayEngine(workers)
    try:
        report = drive(run, engine)
    finally:
        engine.close()
    if report.exit_code or engine.pool is None:
        raise SystemExit(f"exit {report.exit_code}: {report.message}")
    wall, processor = engine.pool.seconds()
    done = count_done_once(run.store, report.fingerprint)
    return _markdown(
        [
            ("units, actors", f"{units:,}, {workers}", ""),
            ("units committed, each once", f"{done:,}", "all"),
            ("units a second, by the clock", f"{units / wall:,.0f}", f"{AIM_RAY}"),
            ("units a second of the driver's processor", f"{units / processor:,.0f}", ""),
        ]
    )


def planning(photos: int, work: Path) -> str:
    """Plan a listing, and return a table of what it took."""
    planned, units, seconds = plan_listing(photos, work)
    rows = [
        ("photos and units of the plan", f"{planned:,}, {units:,}", ""),
        ("peak memory of the driver", f"{memory_mib('VmHWM'):,.0f} MiB", f"{AIM_MIB:,.0f} MiB"),
        ("listing and planning", f"{seconds:,.0f} s", ""),
    ]
    return _markdown(rows)


@contextmanager
def on_simulated_time(clock: Clock) -> Iterator[None]:
    """Let the scheduler, the totals and the record read this clock."""
    modules = scheduler, totals, recorder
    for module in modules:
        module.time = SimpleNamespace(monotonic=lambda: clock.now)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.time = time  # type: ignore[attr-defined]


def prepare_simulated(work: Path, in_folder: bool = False) -> Prepared:
    """Return checked settings with an empty source and fake models.

    in_folder: the destination is a folder, not one file.
    """
    source, pack = work / "source", work / "pack"
    if not source.exists():
        source.mkdir(parents=True)
        write_fake_pack(pack)
    config = load_config(overrides={"pack": str(pack), "run": {"max_failures": 1.0}})
    ready = prepare(str(source), str(work / "dest"), config)
    return ready if in_folder else replace(ready, store=OneFileStore(work / "one-file.sqlite"))


def write_plan(work: Path, units: int, in_folder: bool = False) -> None:
    """Plan `units` tar files, each of which is one unit."""
    ready = prepare_simulated(work, in_folder)
    store, scoring = ready.store, ready.scoring
    destination.write_destination(
        store, destination.Destination(ready.source_uri, 0, SCHEMA_VERSION)
    )
    destination.write_scoring(store, scoring)
    shards = tuple(_shard(number) for number in range(units))
    listing = Listing(LISTED_SCHEMA.empty_table(), shards)
    PlanWriter(store, scoring.fingerprint, lambda shard: 0).write(listing, None, 0)


def _shard(number: int) -> ShardRef:
    key = f"{number // 1000:05d}/{number:08d}.tar"
    etag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    return ShardRef(key, f"s3://photos/archive/{key}", "tar", 10**9 + number, etag)


def count_done_once(store: Store, fingerprint: str) -> int:
    """Return the number of planned units, each of which has one receipt, which the snapshot names.

    Raises SystemExit if any unit is missing, or is there twice.
    """
    (plan_name,) = plan.names(store, fingerprint)
    planned = plan.read(store, fingerprint, plan_name).units.inputs()
    (name,) = snapshot.names(store, fingerprint)
    data, _ = store.get(f"{layout.snapshots_prefix(fingerprint)}{name}.parquet")
    kept = store.keys(layout.receipts_prefix(fingerprint))
    with receipts.open_parquet(data) as file:
        named = receipts.rows_of(file, "unit_id", "receipt")
        for number, (unit, row, key) in enumerate(zip_longest(planned, named, kept)):
            if unit is None or row is None or row != (unit[0], key):
                raise SystemExit(
                    f"unit {number}: planned {unit}, in the snapshot {row}, kept {key}"
                )
    return number + 1


def memory_mib(field: str) -> float:
    """Return `VmRSS`, the resident memory of this process, or `VmHWM`, its peak, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def measured_times(dest: str) -> list[float]:
    """Return the seconds per photo of each unit of a destination's newest scoring."""
    store = open_store(dest, StorageSettings())
    fingerprint = destination.choose_scoring(store, None)
    ledger = Ledger.load(store, fingerprint)
    units = (ledger.receipt(stub) for stub in ledger if stub.complete)
    times = [
        unit.timings["unit"] / unit.inputs_count
        for unit in units
        if unit.inputs_count and "unit" in unit.timings
    ]
    if not times:
        raise SystemExit(f"{dest}: no unit there has been timed; score it first")
    return times


def usual_times(seed: int) -> list[float]:
    """Return seconds per photo where no measured run is named."""
    generator = random.Random(seed)
    return [generator.lognormvariate(math.log(_PHOTO_S), _SPREAD) for _ in range(_DRAWN)]


def table(found: Simulated) -> str:
    """Return what was found as a table in Markdown."""
    limit = (
        "the driver's processor" if found.most_workers < found.workers else "the driver's memory"
    )
    rows = [
        (
            "units, workers, preempted an hour",
            f"{found.units:,}, {found.workers:,}, {found.preempt:.1%}",
            "",
        ),
        ("units committed, each once", f"{found.done:,}", "all"),
        (
            "workers lost; with a unit; after its receipt",
            f"{found.lost:,}; {found.lost_with_unit:,}; {found.unheard:,}",
            "",
        ),
        (
            "units a second that the driver hands out and commits",
            f"{found.units_a_second:,.0f}",
            f"{AIM_UNITS_A_SECOND:,}",
        ),
        ("peak memory of the driver", f"{found.peak:,.0f} MiB", f"{AIM_MIB:,.0f} MiB"),
        ("worker time without a unit", f"{found.idle:.2%}", f"at most {AIM_IDLE:.0%}"),
        ("first idle worker to the end", f"{found.tail_s:,.0f} s of {found.seconds:,.0f} s", ""),
        ("snapshot and clean-up, processor time", f"{found.end_s:,.0f} s", ""),
        (
            f"workers that one driver keeps busy, at {found.unit_s:.0f} s a unit",
            f"{found.most_workers:,.0f}",
            "",
        ),
        ("units that fit into a gigabyte", f"{found.most_units:,.0f}", ""),
        ("what limits first", limit, ""),
    ]
    return _markdown(rows)


def _markdown(rows: list[tuple[str, str, str]]) -> str:
    lines = [f"| {what} | {value} | {aim} |" for what, value, aim in rows]
    return "\n".join(["| | found | aim |", "|---|---|---|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--units", type=int, default=2_000_000)
    parser.add_argument(
        "--preempt", type=float, default=0.01, help="share of the workers lost an hour"
    )
    parser.add_argument("--photos", type=int, default=500, help="photos in a unit")
    parser.add_argument("--like", metavar="DEST", help="draw times from this destination's units")
    parser.add_argument("--start", type=float, default=60.0, help="seconds until a worker is ready")
    parser.add_argument(
        "--replace", type=float, default=180.0, help="seconds until a lost machine is replaced"
    )
    parser.add_argument("--ray", action="store_true", help="send the units through real Ray actors")
    parser.add_argument(
        "--plan", type=int, metavar="PHOTOS", help="only plan a listing of so many loose photos"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--work", type=Path, help="folder for the destination, about 3 KB a unit")
    parser.add_argument("--profile", type=Path, help="write a profile of the run to this file")
    args = parser.parse_args()

    photo_s = measured_times(args.like) if args.like else usual_times(args.seed)
    fleet = Fleet(
        args.workers, photo_s, args.photos, args.preempt, args.start, args.replace, args.seed
    )
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        if args.plan:
            print(planning(args.plan, Path(folder)))
            return
        if args.ray:
            print(through_ray(args.workers, args.units, Path(folder)))
            return
        if args.profile:
            profile = cProfile.Profile()
            found = profile.runcall(simulate, fleet, args.units, Path(folder))
            profile.dump_stats(args.profile)
        else:
            found = simulate(fleet, args.units, Path(folder))
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(asdict(found), indent=2))


if __name__ == "__main__":
    main()
