"""Measure the peak memory of a worker by the number of photos, and of the driver by that of units.

Memory is sampled with psutil.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import psutil

SAMPLE_S = 0.05
# A part of a worker's command line, on the local engine and on Ray.
_WORKERS = ("skinbatch.engines.child", "ray::_Actor")


@dataclass(frozen=True, slots=True)
class Peaks:
    """Hold the peak resident memory in MiB of the driver and of the largest worker."""

    driver: float
    worker: float


@dataclass(frozen=True, slots=True)
class Growth:
    """Hold the peaks of a small and of a large run. what: the thing that was counted."""

    what: str
    few: int
    many: int
    few_mib: float
    many_mib: float

    @property
    def ratio(self) -> float:
        return self.many_mib / self.few_mib

    def line(self) -> str:
        sizes = f"{self.few_mib:8.0f} MiB at {self.few:>6,}   {self.many_mib:8.0f} MiB at {self.many:>6,}"
        return f"{self.what:<28} {sizes}   x {self.ratio:.2f}"

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"ratio": round(self.ratio, 3)}


def peaks(command: Sequence[str]) -> Peaks:
    """Run a command to its end and return its peaks. Raises SystemExit if it fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    tree = psutil.Process(process.pid)
    driver = worker = 0
    while process.poll() is None:
        driver = max(driver, _rss(tree))
        for child in _children(tree):
            worker = max(worker, _rss(child) if _is_worker(child) else 0)
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"exit {process.returncode}: {' '.join(command)}")
    return Peaks(driver / 2**20, worker / 2**20)


def _children(tree: psutil.Process) -> list[psutil.Process]:
    try:
        return tree.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process) -> bool:
    try:
        line = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    return any(name in line for name in _WORKERS)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0
