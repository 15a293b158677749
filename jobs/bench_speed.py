"""Measure the pipeline beside plain loops and Ray Data, and compare ratios with those of an earlier day."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from jobs.bench_loops import Job
from jobs.bench_photos import Photos
from jobs.bench_sides import BARE, BEST, LOADER, LOCAL, LOCAL_TORCH, RAY, RAY_DATA
from skinbatch.models.pack import Pack

NAMES = {
    BARE: "(a) torch, plain loop",
    BEST: "(b) best, plain loop",
    LOCAL: "(c) --engine local",
    RAY: "(d) --engine ray",
    LOCAL_TORCH: "(e) local with torch",
    RAY_DATA: "(f) Ray Data, torch",
    LOADER: "(g) DataLoader, mmdet",
}
# The sides whose networks run on the runtime that is measured. The others run on torch.
_ON_RUNTIME = (BEST, LOCAL, RAY)
# How much faster the pipeline has to be than with torch in fp32: on processors with AMX, if the pack
# declares bf16, and on any other.
_FASTER_AMX, _FASTER = 2.5, 1.5
# The part of a ratio by which it may fall before the benchmark fails.
_MOST_FALL = 0.1
# A run that takes longer than this counts as hung.
_LIMIT_S = 1800


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
            f"{NAMES[self.job.side]:<22} {rate} {statistics.median(self.end_to_end):14.1f} {spread:>13} "
            f"{self.whole_rate:12.2f} {self.boxes:8,}"
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """Hold one side's photos per second over another's, and the least that is aimed at."""

    over: str
    under: str
    value: float
    target: float
    end_to_end: bool

    @property
    def name(self) -> str:
        how = "end to end" if self.end_to_end else "after warm-up"
        return f"{self.over} / {self.under} {how}"

    def line(self) -> str:
        what = f"{NAMES[self.over][:3]} / {NAMES[self.under][:3]}"
        how = "end to end" if self.end_to_end else "after warm-up"
        met = "reached" if self.value >= self.target else "MISSED"
        return f"{what} {how:<14} {self.value:5.2f}   target >= {self.target:.2f} {met}"


@dataclass(frozen=True, slots=True)
class Conditions:
    """Hold what all sides have in common.

    batch: None for the pipeline's own. workers: of ray. runtime: see `[engine] runtime`.
    """

    photos: Photos
    pack: Pack
    cores: int
    repeats: int
    runtime: str
    batch: int | None = None
    workers: int | None = None

    def job(self, side: str) -> Job:
        return Job(
            side,
            str(self.photos.folder),
            self.photos.count,
            "",
            str(self.pack.directory),
            self.cores,
            runtime=self.runtime if side in _ON_RUNTIME else "torch",
            batch=self.batch,
            workers=self.workers,
        )

    @property
    def key(self) -> str:
        """Return what ratios depend on, apart from the code."""
        return (
            f"{self.cores} cores of {platform.machine()} with {_instructions()}, runtime {self.runtime}, "
            f"pack {self.pack.name}, {self.photos.count} photos: {self.photos.described}"
        )

    def heading(self, load: float) -> str:
        photos = self.photos
        return (
            f"{photos.count} photos, {photos.distinct} of them distinct, {photos.megabytes} MB: {photos.described}\n"
            f"pack {self.pack.name}; {self.cores} cores with {_instructions()}; torch {version('torch')}, ray {version('ray')}\n"
            f"Medians of {self.repeats} interleaved repeats. Load before the first: {load:.1f}.\n"
            "photos/s of all sides but (f) leave out start-up and the loading of models: the clock runs from the first photo\n"
            "or unit to the last commit. Files and code are in the page cache, because a first run of (a) is not counted.\n"
            f"(b), (c) and (d) run the networks with runtime `{self.runtime}`."
        )


def measure(
    sides: Sequence[str], conditions: Conditions, ray_data_batches: Sequence[int], work: Path
) -> dict[str, Any]:
    """Measure every side in turn, and print the medians and their ratios."""
    load = os.getloadavg()[0]
    print(conditions.heading(load), flush=True)
    if LOADER in sides and not _is_mmdet(conditions.pack):
        print(f"{NAMES[LOADER]} is left out, because the pack's detector is not one of mmdet's.")
        sides = [side for side in sides if side != LOADER]

    # Dropped: it warms the caches of files and code.
    once(Side(conditions.job(BARE)), work)
    jobs = {side: conditions.job(side) for side in sides}
    tuned: dict[str, float] = {}
    if RAY_DATA in jobs:
        jobs[RAY_DATA], tuned = _tune(jobs[RAY_DATA], ray_data_batches, work)

    measured = {name: Side(job) for name, job in jobs.items()}
    for _ in range(conditions.repeats):
        for side in measured.values():
            once(side, work)

    ratios = _ratios(measured, conditions.pack)
    _show(measured, ratios)
    return {
        "photos": asdict(conditions.photos) | {"folder": None},
        "pack": conditions.pack.name,
        "cores": conditions.cores,
        "key": conditions.key,
        "load_before": load,
        "repeats": conditions.repeats,
        "ray_data_tuning_s": tuned,
        "sides": {name: _as_json(side) for name, side in measured.items()},
        "ratios": [asdict(ratio) | {"name": ratio.name} for ratio in ratios],
    }


def compare(measured: dict[str, Any], baseline: Path) -> list[str]:
    """Compare ratios with those that a file holds for the same conditions, and return what fell.

    Ratios that the file does not hold are added to it. Those that it holds stay, so that many small
    falls do not pass unseen; delete an entry to begin it anew.

    Args:
        measured: of `measure`.
        baseline: JSON, ratios by conditions. It need not exist.
    """
    known = json.loads(baseline.read_text(encoding="utf-8")) if baseline.exists() else {}
    of_conditions = known.setdefault(measured["key"], {})

    fell, added = [], False
    for ratio in measured["ratios"]:
        name, value = ratio["name"], ratio["value"]
        before = of_conditions.get(name)
        if before is None:
            of_conditions[name] = value
            added = True
        elif value < (1 - _MOST_FALL) * before:
            fell.append(f"{name}: {value:.2f}, and {before:.2f} before")

    if added:
        baseline.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{baseline} holds the ratios that later runs are compared with")
    return fell


def once(side: Side, work: Path) -> float:
    """Run one side once, add the result to it, and return its seconds end to end."""
    dest = work / f"out-{side.job.side}"
    started = time.perf_counter()
    result = result_of(replace(side.job, dest=str(dest)))
    took = time.perf_counter() - started
    shutil.rmtree(dest, ignore_errors=True)
    side.photos, side.boxes, side.spent = result["photos"], result["boxes"], result["spent"]
    side.seconds.append(result["seconds"])
    side.end_to_end.append(took)
    return took


def command(job: Job) -> list[str]:
    """Return the command that runs one side in a process of its own."""
    script = Path(__file__).with_name("bench_sides.py")
    return [sys.executable, str(script), json.dumps(asdict(job))]


def result_of(job: Job) -> dict[str, Any]:
    """Run one side in a process of its own and return what it measured."""
    done = subprocess.run(command(job), capture_output=True, text=True, timeout=_LIMIT_S)
    if done.returncode:
        raise SystemExit(f"{job}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _tune(job: Job, batches: Sequence[int], work: Path) -> tuple[Job, dict[str, float]]:
    """Return the settings of Ray Data that are fastest end to end, and the seconds of each.

    Either one actor has all cores, or there is one actor per core.
    """
    tries = [replace(job, batch=b, actors=1, actor_threads=job.cores) for b in batches]
    if job.cores > 1:
        tries += [replace(job, batch=b, actors=job.cores, actor_threads=1) for b in batches]
    took = [once(Side(one), work) for one in tries]
    names = [
        f"{one.actors} actors x {one.actor_threads} threads, batches of {one.batch}"
        for one in tries
    ]
    best = min(range(len(tries)), key=took.__getitem__)
    tried = "; ".join(f"{n} {s:.1f} s" for n, s in zip(names, took, strict=True))
    print(f"Ray Data, tuned: {names[best]} (tried: {tried})")
    return tries[best], {name: round(seconds, 2) for name, seconds in zip(names, took, strict=True)}


def _ratios(sides: dict[str, Side], pack: Pack) -> list[Ratio]:
    amx = torch.cpu.get_capabilities().get("amx_bf16")
    faster = _FASTER_AMX if pack.manifest.precision == "bf16" and amx else _FASTER
    aims = [
        (LOCAL, BEST, 0.90, False),
        (RAY, BEST, 0.85, False),
        (LOCAL, BARE, 0.90, False),
        (LOCAL, LOCAL_TORCH, faster, False),
        (RAY, RAY_DATA, faster, True),
        (LOCAL, LOADER, 1.0, True),
    ]
    ratios = []
    for over, under, target, end_to_end in aims:
        if over in sides and under in sides:
            a, b = sides[over], sides[under]
            value = a.whole_rate / b.whole_rate if end_to_end else a.rate / b.rate
            ratios.append(Ratio(over, under, round(value, 3), target, end_to_end))
    return ratios


def _show(sides: dict[str, Side], ratios: Sequence[Ratio]) -> None:
    print(
        f"\n{'':<22} {'photos/s':>9} {'end to end, s':>14} {'min-max, s':>13} {'overall /s':>12} {'boxes':>8}"
    )
    print("\n".join(side.line() for side in sides.values()), end="\n\n")
    print("\n".join(ratio.line() for ratio in ratios), end="\n\n")
    for name in (LOCAL, RAY):
        if name in sides:
            print(f"{NAMES[name]}: {_where(sides[name])}")


def _where(side: Side) -> str:
    """Describe the workers' time as shares of the time of all their threads."""
    parts = sorted(((s, part) for part, s in side.spent.items() if part != "unit"), reverse=True)
    whole = sum(s for s, _ in parts)
    return "share of the threads' time: " + ", ".join(
        f"{part} {100 * s / max(whole, 1e-9):.0f} %" for s, part in parts
    )


def _as_json(side: Side) -> dict[str, Any]:
    rates = {
        "photos_per_second": side.rate,
        "photos_per_second_end_to_end": side.whole_rate,
    }
    return {name: value for name, value in asdict(side).items() if name != "job"} | rates


def _is_mmdet(pack: Pack) -> bool:
    return pack.detector.arch != "yolo-onnx" and not pack.detector.arch.startswith("fake")


def _instructions() -> str:
    """Return the vector instructions that networks can use here."""
    level: str = torch.backends.cpu.get_cpu_capability()
    return f"{level} and bf16" if _has_bf16() else level


def _has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
