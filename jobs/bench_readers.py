"""Measure the readers of a destination of the size of FFHQ: `report`, `export` and `regrade`.

The tables are made up, written by the package's own writer, and the real commands run over them.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.bench_evaluate import cpu_seconds, generate
from jobs.bench_memory import peaks
from skinbatch.reading import destination_store
from skinbatch.runs.regrade import regrade

# The targets on two cores, for 70,000 photos with 2 million boxes.
TARGET_S, TARGET_MIB = 60.0, 2048.0
# A report may take this much for each million rows, and this much without any.
TARGET_MB, TARGET_EMPTY_MB = 10.0, 0.3
# Boxes a second that `regrade` has to grade.
TARGET_RATE = 1_000_000.0


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
            f"{self.command:<20} {self.photos:,} photos, {self.boxes:,} boxes: {self.seconds:.0f} s "
            f"(computing {self.cpu_seconds:.0f} s), {self.mib:,.0f} MiB, writes {self.megabytes:,.1f} MB   "
            f"target < {TARGET_S:.0f} s {'reached' if met else 'MISSED'}"
        )


@dataclass(frozen=True, slots=True)
class Regrading:
    """Hold how fast `regrade` graded stored boxes: from the first file read to the last one written."""

    boxes: int
    cpu_seconds: float

    def line(self) -> str:
        rate = self.boxes / self.cpu_seconds
        return (
            f"{'regrade':<20} {self.boxes:,} boxes: computing {self.cpu_seconds:.1f} s, {rate:,.0f} boxes a second   "
            f"target >= {TARGET_RATE:,.0f} {'reached' if rate >= TARGET_RATE else 'MISSED'}"
        )


def measure(photos: int, boxes: int, work: Path) -> tuple[list[Reader], Regrading]:
    """Make tables of that many photos and about that many boxes, and run the commands over them."""
    dest = work / "scored"
    generate(dest, work / "truth.json", photos, boxes, np.random.default_rng(0))
    page = work / "report.html"
    commands = {"report": (["report", str(dest), "-o", str(page)], page)}
    for form in ("coco", "label-studio"):
        commands[f"export {form}"] = (
            ["export", str(dest), str(work / form), "--format", form],
            work / form,
        )

    readers = []
    for name, (arguments, written) in commands.items():
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
                round(_size(written) / 1e6, 2),
            )
        )
    return readers, _regrading(dest)


def _size(written: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = (
        [written] if written.is_file() else [path for path in written.rglob("*") if path.is_file()]
    )
    return sum(file.stat().st_size for file in files)


def _regrading(dest: Path) -> Regrading:
    """Grade all boxes of a destination by another threshold."""
    started = time.process_time()
    done = regrade(destination_store(dest), threshold=0.5)
    return Regrading(done.boxes, time.process_time() - started)
