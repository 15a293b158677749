"""Compare precisions and runtimes: `python jobs/measure_precision.py PHOTOS OUT [--pack PACK]`.

PHOTOS is the folder that jobs/clinical_photos.py made. The validation photos of the starter recipes
are scored in each way, and compared with torch in fp32. A way passes if grades are equal on 98 % of
the photos, and Dice, AP50, the count error and the mean recall stay within 0.003, 0.003, 0.05 and
0.01. `jobs/benchmark.py` measures the speed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import skinbatch
from jobs.measure_stages import copied_truths, evaluated
from skinbatch.models.runtime.network import computes_bf16

# Runtime and precision. The others are compared with the first.
WAYS = (("torch", "fp32"), ("openvino", "fp32"), ("torch", "bf16"), ("openvino", "bf16"))
EQUAL_GRADES = 0.98
# The largest change of each number.
MOST = {"Dice": 0.003, "AP50": 0.003, "count MAE": 0.05, "mean recall": 0.01}
HEAD = (
    "| runtime | precision | equal grades | equal counts | largest change of a probability | "
    + " | ".join(MOST)
    + " | passes |",
    "|" + "---|" * (6 + len(MOST)),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold what one way gave.

    numbers: by the names of MOST. rows: rows of `images`, by stage and image_id.
    """

    numbers: Mapping[str, float]
    rows: Mapping[tuple[str, str], Mapping[str, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder that jobs/clinical_photos.py made")
    parser.add_argument("out", type=Path, help="folder for the tables")
    parser.add_argument("--pack", default="starter", help="(default: %(default)s)")
    args = parser.parse_args()
    if not computes_bf16("cpu"):
        parser.error(
            "this processor has no bf16 (AMX or AVX-512 BF16), so there is nothing to compare"
        )

    print("\n".join(measure_precision(args.pack, args.photos, args.out).table))
    return 0


@dataclass(frozen=True, slots=True)
class Precisions:
    """Hold a Markdown table with a row for each way, and whether every bf16 way passes."""

    table: tuple[str, ...]
    bf16_passes: bool


def measure_precision(
    pack: str, photos: Path, out: Path, ways: Sequence[tuple[str, str]] = WAYS
) -> Precisions:
    """Score and compare in several ways. The content of `out` is removed.

    Args:
        pack: its name or folder.
        photos: the recipes' folder.
        ways: runtime and precision of each; the others are compared with the first.
    """
    truths = copied_truths(photos, out, "valid")
    measured: dict[tuple[str, str], Measured] = {}
    for runtime, precision in ways:
        place = out / f"{runtime}-{precision}"
        place.mkdir()
        config = place / "settings.toml"
        config.write_text(f'[engine]\nruntime = "{runtime}"\n[model]\nprecision = "{precision}"\n')
        evaluations = {
            truth.stage: evaluated(truth, pack, place, "--config", config) for truth in truths
        }
        measured[runtime, precision] = _measured(place, evaluations)
    compared = [_compared(way, one, measured[ways[0]]) for way, one in measured.items()]
    passes = all(one.passes for one in compared if one.precision == "bf16")
    return Precisions((*HEAD, *(one.row for one in compared)), passes)


def _measured(place: Path, evaluations: Mapping[str, Mapping[str, Any]]) -> Measured:
    rows: dict[tuple[str, str], Mapping[str, Any]] = {}
    for stage in evaluations:
        images = skinbatch.open(str(place / f"{stage}-scored")).images()
        rows |= {(stage, row["image_id"]): row for row in images.to_pylist()}

    lesions = evaluations["detector"]["all"]["lesions"]
    own = next(error for error in lesions["count_error"] if error["own"])
    classes = next(
        part
        for name, part in evaluations["classifier"]["all"].items()
        if name.startswith("classes")
    )
    numbers = {
        "Dice": evaluations["segmenter"]["all"]["masks"]["classes"]["skin"]["dice"]["value"],
        "AP50": lesions["detection"]["all boxes"]["500"]["ap50"]["value"],
        "count MAE": own["mae"]["value"],
        "mean recall": classes["classes"]["mean"]["recall"]["value"],
    }
    return Measured(numbers, rows)


@dataclass(frozen=True, slots=True)
class Compared:
    """Hold one way's row of the table, and whether the way passes."""

    precision: str
    row: str
    passes: bool


def _compared(way: tuple[str, str], one: Measured, first: Measured) -> Compared:
    grades = _equal(first, one, "grade")
    changes = {name: abs(one.numbers[name] - first.numbers[name]) for name in MOST}
    passes = grades >= EQUAL_GRADES and all(changes[name] <= MOST[name] for name in MOST)
    numbers = [f"{one.numbers[name]:.4f}" for name in MOST]
    cells = [
        *way,
        f"{grades:.3f}",
        f"{_equal(first, one, 'count_total'):.3f}",
        f"{_largest_change(first, one):.4f}",
        *numbers,
        "yes" if passes else "no",
    ]
    return Compared(way[1], f"| {' | '.join(cells)} |", passes)


def _equal(first: Measured, other: Measured, column: str) -> float:
    """Return the share of photos whose value in a column is the same."""
    same = [row[column] == other.rows[name][column] for name, row in first.rows.items()]
    return sum(same) / len(same)


def _largest_change(first: Measured, other: Measured) -> float:
    """Return the largest change of a probability that both have."""
    changes = [0.0]
    for name, row in first.rows.items():
        for column, value in row.items():
            beside = other.rows[name][column]
            if column.startswith("prob_") and value is not None and beside is not None:
                changes.append(abs(value - beside))
    return max(changes)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
