"""Measure the pipeline's speed and memory beside plain loops and Ray Data.

All sides run once with the same photos, models and cores. Every side is a process of its own,
started anew for each repeat; the sides take turns. Rates leave out start-up and the loading of
models; end to end is from the start of the process to its end. With --baseline, the exit code is 1
if a ratio of two sides is a tenth lower than the file says.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.bench_evaluate import measure as measure_evaluation
from jobs.bench_loops import Job
from jobs.bench_memory import Growth, peaks
from jobs.bench_models import TILING_TARGET, Rates, as_json, measure, packs
from jobs.bench_objects import measure as measure_objects
from jobs.bench_overhead import measure as measure_overhead
from jobs.bench_photos import Photos, from_demo, from_folder, write_shard, write_shards
from jobs.bench_profile import measure as measure_profile
from jobs.bench_readers import measure as measure_readers
from jobs.bench_rescore import measure as measure_rescore
from jobs.bench_sides import ALONE, LOCAL, TILING
from jobs.bench_speed import NAMES, Conditions, Side, command, compare, once, result_of
from jobs.bench_speed import measure as measure_speed
from skinbatch.models.fake import write_fake_pack
from skinbatch.models.pack import load_pack
from skinbatch.scoring.hardware import usable_cpus
from skinbatch.scoring.scorer import CPU_BATCH

_PIPELINE_S = 12.0
# The number of photos that an architecture scores in the pipeline, chosen to take some seconds.
_FEWEST, _MOST = 24, 480


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
            profile: args.profile,
            objects: args.objects,
        }
        measured = next((kind for kind, chosen in kinds.items() if chosen), speed)
        results = measured(args, pack, work)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if args.baseline is not None and measured is speed:
        fell = compare(results, args.baseline)
        if fell:
            raise SystemExit("slower than before: " + "; ".join(fell))


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
        "--runtime",
        choices=("auto", "torch", "openvino"),
        default="auto",
        help="what runs the networks of (b), (c), (d) and of --profile; default: auto",
    )
    parser.add_argument(
        "--batch",
        type=int,
        help="photos per batch for all sides but (f), and for --models; default: the pipeline's own",
    )
    parser.add_argument("--workers", type=int, help="workers of (d); default: its own choice")
    parser.add_argument(
        "--ray-data-batches", default="4,8,16,32", help="batch sizes to try for (f)"
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        help="file of earlier ratios; fail if one of them has fallen by more than a tenth",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="measure where one worker's time goes, and what bounds it",
    )
    parser.add_argument(
        "--objects",
        metavar="S3_ADDRESS",
        help="measure reading from a bucket beside a plain boto3 loop; writes --count photos there once",
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
    conditions = Conditions(
        _photos(args.photos, args.count, work),
        load_pack(pack),
        usable_cpus(),
        args.repeats,
        args.runtime,
        batch=args.batch,
        workers=args.workers,
    )
    batches = [int(batch) for batch in args.ray_data_batches.split(",")]
    return measure_speed(args.sides, conditions, batches, work)


def profile(args: argparse.Namespace, pack: str, work: Path) -> dict[str, Any]:
    """Measure the stages of one worker: their seconds, their overlap, and the bound."""
    cores = usable_cpus()
    photos = _photos(args.photos, args.count, work)
    profile = measure_profile(photos.folder, pack, args.runtime, cores, work)
    print(f"{cores} cores; load before: {os.getloadavg()[0]:.1f}; {photos.described}")
    print(profile.text())
    return {"cores": cores, "pack": args.pack, "profile": profile.as_json()}


def objects(args: argparse.Namespace, _: str, __: Path) -> dict[str, Any]:
    """Measure reading photos from a bucket: as objects, and in tars."""
    cores = usable_cpus()
    print(f"{cores} cores; load before: {os.getloadavg()[0]:.1f}; {args.objects}")
    every = measure_objects(args.objects, args.count, args.repeats)
    for rates in every:
        print(rates.line())
    return {"cores": cores, "objects": [rates.as_json() for rates in every]}


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
        runs.append(peaks(command(job)))
        shutil.rmtree(folder)
    growths = [Growth("worker, photos", few, many, runs[0].worker, runs[1].worker)]
    fake = str(write_fake_pack(work / "fake"))
    photo = next(from_demo(1, work / "one").folder.iterdir())
    few, many = args.memory_units
    for units in (few, many):
        write_shards(units, photo, work / f"shards-{units}")
    for engine in args.engines.split(","):
        memory = []
        for units in (few, many):
            source, dest = str(work / f"shards-{units}"), str(work / f"{engine}-{units}")
            job = Job(engine, source, 2 * units, dest, fake, cores, count_boxes=False)
            memory.append(peaks(command(job)).driver)
        growths.append(Growth(f"driver, units, {engine}", few, many, *memory))
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
        once(alone, work)
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
        once(piped, work)
        folded = alone.spent.pop("folded")
        return Rates(max(alone.spent.values()), rate, folded, piped.photos / piped.seconds[0])

    speeds = measure(packs(work, args.architectures), run, args.repeats)
    tiled = Side(Job(TILING, str(work / "photos-32"), 0, "", "starter", cores))
    once(tiled, work)
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
    evaluation = measure_evaluation(args.evaluate_photos, args.evaluate_boxes, args.bootstrap, work)
    print(f"{cores} cores; {evaluation.line()}")
    return {"cores": cores, "evaluate": asdict(evaluation)}


def readers(args: argparse.Namespace, _: str, work: Path) -> dict[str, Any]:
    """Measure `report`, `export` and `regrade` over a large destination."""
    cores = usable_cpus()
    print(f"{cores} cores; load before: {os.getloadavg()[0]:.1f}")
    readers, regrading = measure_readers(args.evaluate_photos, args.evaluate_boxes, work)
    for reader in readers:
        print(reader.line())
    print(regrading.line())
    return {
        "cores": cores,
        "readers": [asdict(reader) for reader in readers],
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
    overhead = measure_overhead(
        photos.folder, (pack, fake), tuple(args.overhead_photos), args.finished_units, work
    )
    return {"cores": cores, "pack": args.pack, "photos": photos.count} | overhead


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
        result = result_of(job)
        return result["photos"], result["seconds"]

    rescore = measure_rescore(pack, args.repeats, work, run)
    print(rescore.line())
    return {
        "cores": cores,
        "pack": args.pack,
        "rescore": asdict(rescore) | {"ratio": rescore.ratio},
    }


def _taken(source: Path | None, count: int, folder: Path) -> None:
    if source:
        from_folder(source, count, folder)
    else:
        from_demo(count, folder, distinct=min(count, 100))


def _photos(source: Path | None, count: int, work: Path) -> Photos:
    return (
        from_folder(source, count, work / "photos") if source else from_demo(count, work / "photos")
    )


if __name__ == "__main__":
    main()
