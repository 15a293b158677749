"""Measure the readers of a destination of the size of FFHQ: `report` and `export`.

The tables are made up, written by the package's own writer, and the real commands run over them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.bench_evaluate import cpu_seconds, generate
from jobs.bench_memory import peaks

# The targets on two cores, for 70,000 photos with 2 million boxes.
TARGET_S, TARGET_MIB = 60.0, 2048.0
# A report may take this much for each million rows, and this much without any.
TARGET_MB, TARGET_EMPTY_MB = 10.0, 0.3


@dataclass(frozen=True, slots=True)
class Reader:
    """Hold the measurements of one command.

    seconds: of the whole process, by the clock. cpu_seconds: CPU time, which a busy machine hardly
    changes. mib: peak resident memory. megabytes: size of what was written.
    """

    command: str
    photos: int
    boxes: int
    seconds: float
    cpu_seconds: float
    mib: float
    megabytes: float

    def line(self) -> str:
        most = TARGET_EMPTY_MB + TARGET_MB * (self.photos + self.boxes) / 1e6
        met = self.seconds < TARGET_S and (
            self.command != "report" or (self.mib < TARGET_MIB and self.megabytes < most)
        )
        return (
            f"{self.command:<7} {self.photos:,} photos, {self.boxes:,} boxes: {self.seconds:.0f} s (computing "
            f"{self.cpu_seconds:.0f} s), {self.mib:,.0f} MiB, writes {self.megabytes:,.1f} MB   target < {TARGET_S:.0f} s "
            f"{'reached' if met else 'MISSED'}"
        )


def measure(photos: int, boxes: int, work: Path) -> list[Reader]:
    """Make tables of that many photos and about that many boxes, and run the commands over them."""
    dest = work / "scored"
    generate(dest, work / "truth.json", photos, boxes, np.random.default_rng(0))
    page, out = work / "report.html", work / "coco"
    commands: dict[str, tuple[list[str], Callable[[], int]]] = {
        "report": (["report", str(dest), "-o", str(page)], lambda: page.stat().st_size),
        "export": (
            ["export", str(dest), str(out), "--format", "coco"],
            lambda: sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        ),
    }

    readers = []
    for name, (arguments, size) in commands.items():
        before, started = cpu_seconds(), time.perf_counter()
        peak = peaks([sys.executable, "-m", "skinbatch", *arguments])
        seconds = time.perf_counter() - started
        readers.append(
            Reader(
                name,
                photos,
                boxes,
                round(seconds, 1),
                round(cpu_seconds() - before, 1),
                round(peak.driver, 1),
                round(size() / 1e6, 2),
            )
        )
    return readers
