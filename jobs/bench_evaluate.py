"""Measure the evaluation of a source of the size of FFHQ.

The tables and the truth are made up, and the real command runs over them.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.random import Generator
from numpy.typing import NDArray

from jobs.bench_memory import peaks
from skinbatch.grading.schemes import HAYASHI
from skinbatch.runs import destination, layout, receipts, snapshot
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.listed import collect
from skinbatch.runs.plan import PlanWriter, work_units
from skinbatch.storage.local import LocalStore
from skinbatch.tables.parquet import write_parquet
from skinbatch.tables.schema import BOXES, SCHEMA_VERSION, images_schema
from skinbatch.types import DataFile, ImageRef, Receipt, WorkUnit

# The target on two cores, for 70,000 photos with 2 million boxes.
TARGET_S, TARGET_MIB = 600.0, 4096.0
CLASSES = ("comedone", "papule", "pustule", "nodule")

_FINGERPRINT = "0123456789ab"
_SIDE = 1024
_THRESHOLD = 0.3
# The share of true boxes that were found.
_FOUND = 0.7
# The number of true boxes for each box found.
_TRUE_SHARE = 0.5
# The mean number of true boxes of a photo by severity, before scaling to the requested sum, and the
# share of photos of that severity.
_MEAN = (2.0, 12.0, 30.0, 60.0)
_SHARES = (0.45, 0.35, 0.13, 0.07)
# Makes groups of about 500 photos.
_BITS = 7

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold the measurements of an evaluation.

    seconds: of the whole process, by the clock. cpu_seconds: CPU time, which a busy machine does
    not change. mib: peak resident memory. ap50, mae: results, as proof that the evaluation ran.
    """

    photos: int
    boxes: int
    true_boxes: int
    bootstrap: int
    seconds: float
    cpu_seconds: float
    mib: float
    ap50: float
    mae: float

    def line(self) -> str:
        met = "reached" if self.seconds < TARGET_S and self.mib < TARGET_MIB else "MISSED"
        return (
            f"evaluate: {self.photos:,} photos, {self.boxes:,} boxes, {self.true_boxes:,} annotated boxes, "
            f"{len(CLASSES)} classes, {self.bootstrap:,} bootstrap samples: {self.seconds:.0f} s "
            f"(computing {self.cpu_seconds:.0f} s), {self.mib:,.0f} MiB; AP50 {self.ap50:.3f}, count MAE {self.mae:.2f}   "
            f"target < {TARGET_S:.0f} s and < {TARGET_MIB:,.0f} MiB {met}"
        )


def measure(photos: int, boxes: int, bootstrap: int, work: Path) -> Measured:
    """Make tables and truth of about that many photos and boxes, and run `skinbatch evaluate`."""
    dest, truth, out = work / "scored", work / "truth.json", work / "evaluation"
    generate(dest, truth, photos, boxes, np.random.default_rng(0))
    command = [
        sys.executable,
        "-m",
        "skinbatch",
        "evaluate",
        str(dest),
        str(truth),
        "--out",
        str(out),
    ]
    before, started = cpu_seconds(), time.perf_counter()
    peak = peaks([*command, "--bootstrap", str(bootstrap), "--json"])
    seconds = time.perf_counter() - started
    evaluation = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    lesions: dict[str, Any] = evaluation["all"]["lesions"]
    (own,) = (error for error in lesions["count_error"] if error["own"])
    ap50 = lesions["detection"]["all boxes"]["500"]["ap50"]["value"]
    return Measured(
        evaluation["about"]["photos"]["judged"],
        lesions["boxes"],
        lesions["true_boxes"],
        bootstrap,
        round(seconds, 1),
        round(cpu_seconds() - before, 1),
        round(peak.driver, 1),
        round(ap50, 4),
        round(own["mae"]["value"], 3),
    )


def cpu_seconds() -> float:
    """Return the CPU seconds of child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def generate(dest: Path, truth: Path, photos: int, boxes: int, rng: Generator) -> None:
    """Write a destination as a run leaves it, and COCO truth for it.

    It has `photos` scored photos with about `boxes` boxes. Boxes lie on most of the true ones,
    shifted and resized at random, and elsewhere; those that lie on one score higher.
    """
    severity = rng.choice(4, photos, p=_SHARES)
    names = [f"levle{level}_{n:06d}.jpg" for n, level in enumerate(severity)]
    mean = np.array(_MEAN)[severity]
    number = rng.poisson(mean * (boxes * _TRUE_SHARE / mean.sum()))
    of = np.repeat(np.arange(photos), number)
    true, label = _true_boxes(len(of), rng), rng.integers(0, len(CLASSES), len(of))
    _write_truth(truth, names, of, true, label)
    hit = rng.random(len(of)) < _FOUND
    stray = boxes - int(hit.sum())
    photo = np.concatenate((of[hit], rng.choice(photos, stray, p=(mean + 3) / (mean + 3).sum())))
    predicted = np.concatenate((_shifted(true[hit], rng), _true_boxes(stray, rng)))
    # The class of every tenth true box is wrong.
    mistaken = rng.random(int(hit.sum())) < 0.1
    labels = np.concatenate(
        (np.where(mistaken, (label[hit] + 1) % len(CLASSES), label[hit]), rng.integers(0, 4, stray))
    )
    score = 0.05 + 0.95 * np.concatenate((rng.beta(3, 2, int(hit.sum())), rng.beta(1.2, 6, stray)))
    order = np.lexsort((-score, photo))
    _write_tables(
        dest, names, severity, photo[order], predicted[order], labels[order], score[order], rng
    )


def _true_boxes(number: int, rng: Generator) -> Floats:
    size = rng.lognormal(3.2, 0.4, (number, 2)).clip(6, 200)
    corner = rng.uniform(0, 1, (number, 2)) * (_SIDE - size)
    return np.concatenate((corner, corner + size), axis=1)


def _shifted(boxes: Floats, rng: Generator) -> Floats:
    size = boxes[:, 2:] - boxes[:, :2]
    corner = boxes[:, :2] + rng.normal(0, 0.12, size.shape) * size
    return np.concatenate(
        (corner, corner + size * rng.lognormal(0, 0.15, size.shape)), axis=1
    ).clip(0, _SIDE)


def _write_truth(path: Path, names: list[str], of: Ints, boxes: Floats, label: Ints) -> None:
    xywh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1).round(2).tolist()
    annotations = [
        {
            "id": n,
            "image_id": photo,
            "category_id": k,
            "bbox": box,
            "area": round(box[2] * box[3], 2),
            "iscrowd": 0,
        }
        for n, (photo, k, box) in enumerate(zip(of.tolist(), label.tolist(), xywh, strict=True))
    ]
    images = [
        {"id": n, "file_name": name, "width": _SIDE, "height": _SIDE}
        for n, name in enumerate(names)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, file)


def _write_tables(
    dest: Path,
    names: list[str],
    severity: Ints,
    photo: Ints,
    boxes: Floats,
    label: Ints,
    score: Floats,
    rng: Generator,
) -> None:
    dest.mkdir(parents=True)
    store = LocalStore(str(dest))
    destination.write_destination(store, destination.Destination("/photos", 2, SCHEMA_VERSION))
    grading = {"threshold": _THRESHOLD, "counting": "boxes", "scheme": "hayashi", "view": "auto"}
    numbers = {"model": {"score_floor": 0.05}}
    scoring = destination.Scoring(
        _FINGERPRINT, numbers, grading, "made-up", {}, CLASSES, (), False, destination.now()
    )
    destination.write_scoring(store, scoring)
    on_skin = np.where(rng.random(len(photo)) < 0.93, 1.0, 0.2)
    counted = (score.astype(np.float32) >= _THRESHOLD) & (on_skin >= 0.5)
    counts = np.bincount(photo, weights=counted, minlength=len(names)).astype(np.int64)
    ita = rng.normal(35, 25, len(names))
    level = np.searchsorted((5, 20, 50), counts, side="left")
    sharpness, brightness = (
        rng.lognormal(4, 1, len(names)),
        rng.normal(130, 30, len(names)).clip(0, 255),
    )
    starts = np.searchsorted(photo, np.arange(len(names) + 1))
    number = {name: n for n, name in enumerate(names)}
    refs = [ImageRef(name, f"/photos/{name}", 100, "1") for name in names]
    plan = PlanWriter(store, _FINGERPRINT, lambda shard: 0).write(collect(refs), None, _BITS)
    for unit in work_units(store, _FINGERPRINT, plan, plan.units):
        ids = [ref.image_id for ref in unit.images]
        some = np.array([number[image_id] for image_id in ids])
        rows = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in some])
        images = {
            "image_id": ids,
            "uri": [ref.uri for ref in unit.images],
            "version": [ref.version for ref in unit.images],
            "status": ["ok"] * len(ids),
            "face": [True] * len(ids),
            "width": [_SIDE] * len(ids),
            "height": [_SIDE] * len(ids),
            "ita_degrees": ita[some],
            "count_total": counts[some],
            "sha256": [hashlib.sha256(image_id.encode()).hexdigest() for image_id in ids],
            "view": ["half"] * len(ids),
            "skin_fraction": rng.beta(4, 6, len(ids)),
            "sharpness": sharpness[some],
            "brightness": brightness[some],
            "saturated": [False] * len(ids),
            "grade": np.array(HAYASHI.grades, dtype=object)[level[some]],
            "grade_level": level[some],
            "grade_scheme": ["hayashi"] * len(ids),
            "unit_id": [unit.unit_id] * len(ids),
            "meta": ["{}"] * len(ids),
        }
        box_columns = {
            "image_id": np.array(names, dtype=object)[photo[rows]],
            "box_id": rows - starts[photo[rows]],
            **{edge: boxes[rows, k] for k, edge in enumerate(("x1", "y1", "x2", "y2"))},
            "score": score[rows],
            "label": np.array(CLASSES, dtype=object)[label[rows]],
            "skin_overlap": on_skin[rows],
            "counted": counted[rows],
        }
        tables = {
            "images": _table(images_schema(CLASSES, ()), images),
            "boxes": _table(BOXES, box_columns),
        }
        _commit(store, unit, tables)

    ledger = Ledger.load(store, _FINGERPRINT)
    proofs = (ledger.proof(*inputs) for inputs in plan.units.inputs())
    snapshot.write(
        ledger, 1, plan.name, [stub for proof in proofs if proof is not None for stub in proof]
    )


def _table(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    rows = len(columns["image_id"])
    arrays = [
        pa.array(columns[field.name]).cast(field.type)
        if field.name in columns
        else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def _commit(store: LocalStore, unit: WorkUnit, tables: dict[str, pa.Table]) -> None:
    attempt = layout.fresh()
    files = []
    for kind, table in tables.items():
        data = write_parquet(table, {"schema_version": str(SCHEMA_VERSION)})
        path = layout.data_key(kind, _FINGERPRINT, unit.unit_id, attempt)
        store.put(path, data)
        files.append(
            DataFile(kind, path, hashlib.sha256(data).hexdigest(), len(data), table.num_rows)
        )
    receipt = Receipt(
        unit_id=unit.unit_id,
        generation=1,
        attempt=attempt,
        inputs_sha256=unit.inputs_sha256,
        whole_sha256=unit.inputs_sha256,
        inputs_count=len(unit.images),
        start=0,
        stop=None,
        files=tuple(files),
        statuses={"ok": len(unit.images)},
        copied=0,
        timings={},
        host="made-up",
        written_at=destination.now(),
    )
    store.put(receipts.key_of(_FINGERPRINT, receipt), receipts.to_json(receipt))
