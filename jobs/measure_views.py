"""Measure a pack on clinical photos: `python jobs/measure_views.py PHOTOS OUT [--pack PACK]`.

PHOTOS is the folder that jobs/clinical_photos.py made. Its part `valid` is scored, and the results
are counted by what the photos show.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import skinbatch

# The photos apart, as jobs/clinical_photos.py sorts them.
VALID = Path("clinical/valid/images")
# The words for what clinical_photos.csv records about a photo.
SHOWN = {
    "face": "parts of the face",
    "skin": "nothing but skin",
    "partly": "skin beside a ruler or another thing",
    "body": "a hand, foot, limb, trunk or neck",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder that jobs/clinical_photos.py made")
    parser.add_argument("out", type=Path, help="folder for the tables")
    parser.add_argument("--pack", default="starter", help="(default: %(default)s)")
    args = parser.parse_args()
    if not (args.photos / VALID).is_dir():
        parser.error(
            f"{args.photos} has no {VALID}; make it with `python jobs/clinical_photos.py DATA {args.photos}`"
        )
    print("\n".join(measure_views(args.pack, args.photos, args.out)))
    return 0


def measure_views(pack: str, photos: Path, out: Path) -> list[str]:
    """Return a Markdown table of the clinical photos of the part `valid`.

    It shows how many have probabilities, and how many have a grade.
    """
    source, scored = out / "photos", out / "scored"
    shutil.rmtree(out, ignore_errors=True)
    # Photos are copied, because links that lead out of a source are not followed.
    shutil.copytree(photos / VALID, source)
    skinbatch.score(str(source), str(scored), pack=pack, engine="local")

    rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in skinbatch.open(str(scored)).images().to_pylist():
        rows[row["image_id"].split("-")[0]].append(row)
    header = "| photos apart that show | photos | with probabilities | with a grade | views |"
    return [header, "|---|---|---|---|---|", *_table(rows)]


def _table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    for shows, words in SHOWN.items():
        mine = rows.get(shows, ())
        if not mine:
            continue
        probable = sum(
            any(row[name] is not None for name in row if name.startswith("prob_")) for row in mine
        )
        graded = sum(row["grade"] is not None for row in mine)
        views = Counter(row["view"] or "none" for row in mine)
        counts = ", ".join(f"{number} {view}" for view, number in views.most_common())
        yield f"| {words} | {len(mine)} | {probable / len(mine):.3f} | {graded / len(mine):.3f} | {counts} |"


if __name__ == "__main__":
    sys.exit(main())
