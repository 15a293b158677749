"""Measure the pipeline's speed and memory beside the bare models and Ray Data.

All sides run once with the same photos, models and cores. Every side is a process of its own,
started anew for each repeat; the sides take turns. Rates leave out start-up and the loading of
models; end to end is from the start of the process to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.bench_evaluate import measure as measure_evaluation
from jobs.bench_memory import Growth, peaks
from jobs.bench_models import TILING_TARGET, Rates, as_json, measure, packs
from jobs.bench_overhead import measure as measure_overhead
from jobs.bench_photos import Photos, from_demo, from_folder, write_shard, write_shards
from jobs.bench_readers import measure as measure_readers
from jobs.bench_rescore import measure as measure_rescore
from jobs.bench_sides import ALONE, BARE, LOCAL, RAY, RAY_DATA, TILING, Job
from skinbatch.models.fake import write_fake_pack
from skinbatch.models.pack import load_pack
from skinbatch.scoring.device import usable_cpus
from skinbatch.scoring.scorer import CPU_BATCH

NAMES = {
    BARE: "(a) bare work",
    LOCAL: "(b) --engine local",
    RAY: "(c) --engine ray",
    RAY_DATA: "(d) Ray Data",
}

# A run that takes longer than this counts as hung.
_LIMIT_S = 1800
_PIPELINE_S = 12.0
# The number of photos that an architecture scores in the pipeline, chosen to take some seconds.
_FEWEST, _MOST = 24, 480


@dataclass(slots=True)
class Side:
    """Hold the measurements of one side, one entry per repeat.

    seconds: of the photos alone. end_to_end: seconds of the whole process.
    """

    job: Job
    photos: int = 0
    boxes: int = 0
    seconds: list[float] = field(default_factory=list)
    end_to_end: list[float] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.photos / statistics.median(self.seconds)

    @property
    def whole_rate(self) -> float:
        return self.photos / statistics.median(self.end_to_end)

    def line(self) -> str:
        # Ray Data's pipeline does not separate the loading of its models from its work.
        rate = f"{self.rate:9.2f}" if self.job.side != RAY_DATA else f"{'–':>9}"
        spread = f"{min(self.end_to_end):.1f}-{max(self.end_to_end):.1f}"
        return (
            f"{NAMES[self.job.side]:<20} {rate} {statistics.median(self.end_to_end):14.1f} {spread:>13} "
            f"{self.whole_rate:12.2f} {self.boxes:8,}"
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """Hold one side's photos per second over another's, and the target."""

    over: str
    under: str
    value: float
    target: float
    end_to_end: bool

    def line(self) -> str:
        what = f"{NAMES[self.over][:3]} / {NAMES[self.under][:3]}"
        how = "end to end" if self.end_to_end else "after warm-up"
        wanted = f"> {self.target:.0f}" if self.end_to_end else f">= {self.target:.2f}"
        met = self.value > self.target if self.end_to_end else self.value >= self.target
        return f"{what} {how:<14} {self.value:5.2f}   target {wanted:<8} {'reached' if met else 'MISSED'}"


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="skinbatch-bench-") as scratch:
        work = Path(scratch)
        pack = str(write_fake_pack(work / "fake")) if args.pack == "fake" else args.pack
        load_pack(pack).verify()
        kinds = {
            evaluation: args.evaluate,
            readers: args.readers,
            models: args.models,
            memory: args.memory,
            overhead: args.overhead,
            rescore: args.rescore,
        }
        measured = next((kind for kind, wanted in kinds.items() if wanted), speed)
        found = measured(args, pack, work)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--photos", type=Path, help="folder of photos; default: the demonstration's photos"
    )
    parser.add_argument("--count", type=int, default=240, help="photos that every side scores")
    parser.add_argument(
        "--pack", default="starter", help="name or directory; `fake`: models that cost nothing"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", default=",".join(NAMES), help="some of " + ",".join(NAMES))
    parser.add_argument(
        "--batch",
        type=int,
        help="photos per batch for (a), (b), (c) and --models; default: the pipeline's own",
    )
    parser.add_argument("--workers", type=int, help="workers of (c); default: its own choice")
    parser.add_argument(
        "--ray-data-batches", default="4,8,16,32", help="batch sizes to try for (d)"
    )
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    parser.add_argument(
        "--memory-photos", type=int, nargs=2, default=(100, 2000), metavar=("FEW", "MANY")
    )
    parser.add_argument(
        "--memory-units", type=int, nargs=2, default=(20, 2000), metavar=("FEW", "MANY")
    )
    parser.add_argument(
        "--engines", default="local,ray", help="engines whose driver --memory measures over units"
    )
    parser.add_argument(
        "--models",
        action="store_true",
        help="measure every architecture, alone and in the pipeline",
    )
    parser.add_argument(
        "--architectures", help="some of `skinbatch pack architectures`; default: all"
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="measure the speed and memory of `skinbatch evaluate` on made-up tables",
    )
    parser.add_argument(
        "--readers",
        action="store_true",
        help="measure `report`, `export` and `regrade` on made-up tables",
    )
    parser.add_argument(
        "--evaluate-photos",
        type=int,
        default=70_000,
        help="photos of the tables of --evaluate and --readers",
    )
    parser.add_argument(
        "--evaluate-boxes",
        type=int,
        default=2_000_000,
        help="boxes of the tables of --evaluate and --readers",
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="bootstrap samples of --evaluate"
    )
    parser.add_argument(
        "--overhead",
        action="store_true",
        help="measure the cost of everything but decoding and models, and of resuming",
    )
    parser.add_argument(
        "--rescore",
        action="store_true",
        help="measure a scoring with a new classifier and all other stages taken",
    )
    parser.add_argument(
        "--overhead-photos", type=int, nargs=2, default=(8192, 40960), metavar=("FEW", "MANY")
    )
    parser.add_argument(
        "--finished-units",
        type=int,
        default=200_000,
        help="units of the destination that --overhead resumes",
    )
    parser.add_argument("--json", type=Path, help="file for all measurements")
    args = parser.parse_args()
    args.sides = args.sides.split(",")
    if unknown := [side for side in args.sides if side not in NAMES]:
        parser.error(f"no side `{unknown[0]}`; there are: {', '.join(NAMES)}")
    return args


def speed(args: argparse.Namespace, pack: str, work: Path) -> dict[str, Any]:
    """Measure every side in turn, `--repeats` times, and the ratios of their medians."""
    photos = _photos(args.photos, args.count, work)
    cores = usable_cpus()
    load = os.getloadavg()[0]
    jobs = {
        side: Job(
            side,
            str(photos.folder),
            photos.count,
            "",
            pack,
            cores,
            batch=args.batch,
            workers=args.workers,
        )
        for side in args.sides
    }
    print(_heading(args, photos, cores, load), flush=True)
    # Dropped: it warms the caches of files and code.
    _once(Side(replace(jobs[args.sides[0]], side=BARE)), work)
    tuned: dict[str, float] = {}
    if RAY_DATA in jobs:
        jobs[RAY_DATA], tuned = _tune(
            jobs[RAY_DATA], [int(b) for b in args.ray_data_batches.split(",")], work
        )
    sides = {name: Side(job) for name, job in jobs.items()}
    for _ in range(args.repeats):
        for side in sides.values():
            _once(side, work)
    ratios = _ratios(sides)
    print(
        f"\n{'':<20} {'photos/s':>9} {'end to end, s':>14} {'min-max, s':>13} {'overall /s':>12} {'boxes':>8}"
    )
    print("\n".join(side.line() for side in sides.values()), end="\n\n")
    print("\n".join(ratio.line() for ratio in ratios), end="\n\n")
    for name in (LOCAL, RAY):
        if name in sides:
            print(f"{NAMES[name]}: {_where(sides[name])}")
    return {
        "photos": asdict(photos) | {"folder": None},
        "pack": args.pack,
        "cores": cores,
        "load_before": load,
        "repeats": args.repeats,
        "ray_data_tuning_s": tuned,
        "sides": {
            name: {k: v for k, v in asdict(side).items() if k != "job"}
            | {"photos_per_second": side.rate, "photos_per_second_end_to_end": side.whole_rate}
            for name, side in sides.items()
        },
        "ratios": [asdict(ratio) for ratio in ratios],
    }


def memory(args: argparse.Namespace, pack: str, work: Path) -> dict[str, Any]:
    """Measure a worker over few and many photos, and the driver over few and many units.

    The driver's models cost nothing.
    """
    cores = usable_cpus()
    few, many = args.memory_photos
    print(
        f"peak resident memory, sampled with psutil. Worker: pack {args.pack}. Driver: fake models, 2 photos per unit."
    )
    runs = []
    for count in (few, many):
        folder = work / f"photos-{count}"
        if args.photos:
            from_folder(args.photos, count, folder)
        else:
            from_demo(count, folder, distinct=few)
        job = Job(
            LOCAL, str(folder), count, str(work / f"out-{count}"), pack, cores, count_boxes=False
        )
        runs.append(peaks(_command(job)))
        shutil.rmtree(folder)
    growths = [Growth("worker, photos", few, many, runs[0].worker, runs[1].worker)]
    fake = str(write_fake_pack(work / "fake"))
    photo = next(from_demo(1, work / "one").folder.iterdir())
    few, many = args.memory_units
    for units in (few, many):
        write_shards(units, photo, work / f"shards-{units}")
    for engine in args.engines.split(","):
        found = []
        for units in (few, many):
            source, dest = str(work / f"shards-{units}"), str(work / f"{engine}-{units}")
            job = Job(engine, source, 2 * units, dest, fake, cores, count_boxes=False)
            found.append(peaks(_command(job)).driver)
        growths.append(Growth(f"driver, units, {engine}", few, many, *found))
    print("\n".join(growth.line() for growth in growths))
    return {"pack": args.pack, "cores": cores, "memory": [growth.as_json() for growth in growths]}


def models(args: argparse.Namespace, _: str, work: Path) -> dict[str, Any]:
    """Measure every architecture, alone and in the pipeline."""
    cores = usable_cpus()
    print(
        f"{cores} cores, seeded random weights, photos per second:\n"
        f"  model     the model as its library builds it, on prepared inputs, in batches of {args.batch or CPU_BATCH};\n"
        "            the better of one stream on all threads and one stream per core on one thread each\n"
        "  alone     the same, with decoding and stand-ins for the other stages\n"
        "  folded    the same as alone, with batch norms folded into convolutions\n"
        "  pipeline  --engine local over one tar, folded, with receipts and tables\n"
        "  ratio     pipeline / alone\n"
        "  kept      pipeline / folded"
    )

    def run(pack: str, stage: str) -> Rates:
        folder = work / "photos-32"
        if not folder.exists():
            _taken(args.photos, 32, folder)
        job = Job(ALONE, str(folder), 0, "", pack, cores, batch=args.batch, stage=stage)
        alone = Side(job)
        _once(alone, work)
        rate = alone.photos / alone.seconds[0]
        count = min(_MOST, max(_FEWEST, 8 * round(rate * _PIPELINE_S / 8)))
        shard = work / f"sharded-{count}.tar"
        if not shard.exists():
            folder = shard.with_suffix("")
            _taken(args.photos, count, folder)
            write_shard(folder, shard)
        piped = Side(
            Job(LOCAL, str(shard), count, "", pack, cores, batch=args.batch, count_boxes=False)
        )
        _once(piped, work)
        folded = alone.spent.pop("folded")
        return Rates(max(alone.spent.values()), rate, folded, piped.photos / piped.seconds[0])

    speeds = measure(packs(work, args.architectures), run, args.repeats)
    tiled = Side(Job(TILING, str(work / "photos-32"), 0, "", "starter", cores))
    _once(tiled, work)
    tiles, tile = tiled.spent["tiles"], tiled.spent["tile"]
    cost = tiled.seconds[0] / (tiles * tile)
    met = "reached" if cost <= TILING_TARGET else "MISSED"
    print(
        f"tiling: {tiles:.0f} tiles in {tiled.seconds[0]:.2f} s, one by one {tiles * tile:.2f} s: x {cost:.2f}",
        end="   ",
    )
    print(f"target <= {TILING_TARGET} {met}")
    return {"cores": cores, "repeats": args.repeats, "models": as_json(speeds), "tiling": cost}


def evaluation(args: argparse.Namespace, _: str, work: Path) -> dict[str, Any]:
    """Measure the evaluation of a large source in a process of its own."""
    cores = usable_cpus()
    found = measure_evaluation(args.evaluate_photos, args.evaluate_boxes, args.bootstrap, work)
    print(f"{cores} cores; {found.line()}")
    return {"cores": cores, "evaluate": asdict(found)}


def readers(args: argparse.Namespace, _: str, work: Path) -> dict[str, Any]:
    """Measure `report`, `export` and `regrade` over a large destination."""
    cores = usable_cpus()
    print(f"{cores} cores; load before: {os.getloadavg()[0]:.1f}")
    found, regrading = measure_readers(args.evaluate_photos, args.evaluate_boxes, work)
    for reader in found:
        print(reader.line())
    print(regrading.line())
    return {
        "cores": cores,
        "readers": [asdict(reader) for reader in found],
        "regrade": asdict(regrading),
    }


def overhead(args: argparse.Namespace, pack: str, work: Path) -> dict[str, Any]:
    """Measure the overhead.

    That is photos a second per core without computing, the share of safety in a real run, and
    resuming a finished run.
    """
    cores = usable_cpus()
    photos = _photos(args.photos, args.count, work)
    print(f"{cores} cores; load before: {os.getloadavg()[0]:.1f}; --engine local; local disk")
    fake = str(write_fake_pack(work / "fake"))
    found = measure_overhead(
        photos.folder, (pack, fake), tuple(args.overhead_photos), args.finished_units, work
    )
    return {"cores": cores, "pack": args.pack, "photos": photos.count} | found


def rescore(args: argparse.Namespace, pack: str, work: Path) -> dict[str, Any]:
    """Measure a scoring with a new classifier, beside a full one with the same pack."""
    cores = usable_cpus()
    photos = _photos(args.photos, args.count, work)
    print(
        f"{cores} cores; load before: {os.getloadavg()[0]:.1f}; --engine local; pack {args.pack}; {photos.described}"
    )

    def run(address: str, dest: Path) -> tuple[int, float]:
        job = Job(
            LOCAL, str(photos.folder), photos.count, str(dest), address, cores, batch=args.batch
        )
        found = _result(job)
        return found["photos"], found["seconds"]

    found = measure_rescore(pack, args.repeats, work, run)
    print(found.line())
    return {"cores": cores, "pack": args.pack, "rescore": asdict(found) | {"ratio": found.ratio}}


def _taken(source: Path | None, count: int, folder: Path) -> None:
    if source:
        from_folder(source, count, folder)
    else:
        from_demo(count, folder, distinct=min(count, 100))


def _photos(source: Path | None, count: int, work: Path) -> Photos:
    return (
        from_folder(source, count, work / "photos") if source else from_demo(count, work / "photos")
    )


def _command(job: Job) -> list[str]:
    return [
        sys.executable,
        str(Path(__file__).with_name("bench_sides.py")),
        json.dumps(asdict(job)),
    ]


def _once(side: Side, work: Path) -> float:
    """Run one side once, add the result to it, and return its seconds end to end."""
    dest = work / f"out-{side.job.side}"
    started = time.perf_counter()
    result = _result(replace(side.job, dest=str(dest)))
    took = time.perf_counter() - started
    shutil.rmtree(dest, ignore_errors=True)
    side.photos, side.boxes, side.spent = result["photos"], result["boxes"], result["spent"]
    side.seconds.append(result["seconds"])
    side.end_to_end.append(took)
    return took


def _result(job: Job) -> dict[str, Any]:
    """Run one side in a process of its own and return what it measured."""
    done = subprocess.run(_command(job), capture_output=True, text=True, timeout=_LIMIT_S)
    if done.returncode:
        raise SystemExit(f"{job}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _tune(job: Job, batches: list[int], work: Path) -> tuple[Job, dict[str, float]]:
    """Return the settings of Ray Data that are fastest end to end, and the seconds of each.

    Either one actor has all cores, or there is one actor per core.
    """
    tries = [replace(job, batch=b, actors=1, actor_threads=job.cores) for b in batches]
    if job.cores > 1:
        tries += [replace(job, batch=b, actors=job.cores, actor_threads=1) for b in batches]
    took = [_once(Side(one), work) for one in tries]
    names = [
        f"{one.actors} actors x {one.actor_threads} threads, batches of {one.batch}"
        for one in tries
    ]
    best = min(range(len(tries)), key=took.__getitem__)
    print(
        f"Ray Data, tuned: {names[best]} (tried: {'; '.join(f'{n} {s:.1f} s' for n, s in zip(names, took, strict=True))})"
    )
    return tries[best], {name: round(seconds, 2) for name, seconds in zip(names, took, strict=True)}


def _ratios(sides: dict[str, Side]) -> list[Ratio]:
    wanted = [(LOCAL, BARE, 0.90, False), (RAY, BARE, 0.85, False), (RAY, RAY_DATA, 1.0, True)]
    found = []
    for over, under, target, end_to_end in wanted:
        if over in sides and under in sides:
            a, b = sides[over], sides[under]
            value = a.whole_rate / b.whole_rate if end_to_end else a.rate / b.rate
            found.append(Ratio(over, under, round(value, 3), target, end_to_end))
    return found


def _where(side: Side) -> str:
    """Describe the workers' time as shares of the time of all their threads."""
    parts = sorted(((s, part) for part, s in side.spent.items() if part != "unit"), reverse=True)
    whole = sum(s for s, _ in parts)
    return "share of the threads' time: " + ", ".join(
        f"{part} {100 * s / max(whole, 1e-9):.0f} %" for s, part in parts
    )


def _heading(args: argparse.Namespace, photos: Photos, cores: int, load: float) -> str:
    return (
        f"{photos.count} photos, {photos.distinct} of them distinct, {photos.megabytes} MB: {photos.described}\n"
        f"pack {args.pack}; {cores} cores; torch {version('torch')}, ray {version('ray')}\n"
        f"Medians of {args.repeats} interleaved repeats. Load before the first: {load:.1f}.\n"
        "photos/s of (a), (b) and (c) leave out start-up and the loading of models: the clock runs from the first photo or\n"
        "unit to the last commit. Files and code are in the page cache, because a first run of (a) is not counted."
    )


if __name__ == "__main__":
    main()
