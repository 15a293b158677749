"""Run one side of the benchmark: `python jobs/bench_sides.py '{"side": "bare", ...}'`.

It is a process of its own. The last line that it prints is its result as JSON. jobs/benchmark.py
starts it and times it from outside.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.bench_loops import (
    RGB,
    Job,
    Result,
    bare,
    bare_batch,
    best,
    decoded,
    faces_of,
    loader,
    networks_on,
    read,
)

if TYPE_CHECKING:
    from skinbatch.scoring.scorer import Scorer

BARE, BEST, LOADER = "bare", "best", "loader"
LOCAL, LOCAL_TORCH, RAY, RAY_DATA = "local", "local-torch", "ray", "ray-data"
ALONE, TILING = "alone", "tiling"
# The engine of `score` for each side that is the pipeline.
ENGINES = {LOCAL: "local", LOCAL_TORCH: "local", RAY: "ray"}
_ALONE_PHOTOS = 32
_ALONE_S = 8.0


def alone(job: Job) -> Result:
    """Run one model with nothing around it, as its library builds it.

    There are two ways to use the cores: one stream of batches on all threads, or one stream of
    batches per core on one thread each, like the pipeline's lanes on few cores. The better way is
    chosen. It is run again with all the bare work of the pack: photos are read and decoded on the
    way, and the stand-ins of the other stages run. Without folding, the pack cannot score more
    photos a second here.

    photos, seconds: of that last run. spent: `one stream` and `streams`, photos/s of each way on
    inputs made before, and `folded`, those of the last run once more with batch norms folded, as in
    the pipeline. A stream continues for `_ALONE_S`, and for two batches at least. The rate of
    several streams is the sum of theirs.
    """
    ways = {"one stream": (1, job.cores)} | ({"streams": (job.cores, 1)} if job.cores > 1 else {})
    rates = {name: _rate(_streams(job, *way)) for name, way in ways.items()}
    way = ways[max(rates, key=rates.__getitem__)]
    streams = _streams(job, *way, whole=True)
    photos = sum(photos for photos, _ in streams)
    rates["folded"] = _rate(_streams(job, *way, whole=True, folded=True))
    return Result(photos, photos / _rate(streams), 0, rates)


def _rate(streams: list[tuple[int, float]]) -> float:
    return sum(photos / seconds for photos, seconds in streams)


def _streams(
    job: Job, streams: int, threads: int, whole: bool = False, folded: bool = False
) -> list[tuple[int, float]]:
    """Return photos and seconds of each stream.

    threads: of torch and ONNX Runtime, which reads the number when a model is made. whole: read and
    decode photos, in as many threads, ahead of all the pack's models, instead of running one model
    on inputs made before.
    """
    import torch

    from skinbatch.config import load_config
    from skinbatch.models.folding import as_built
    from skinbatch.scoring.scorer import Scorer

    torch.set_num_threads(threads)
    with nullcontext() if folded else as_built():
        scorer = Scorer(job.pack, config=load_config(overrides=networks_on(job.runtime)))
    size = job.batch or scorer.batch_size
    model, inputs = _prepared(scorer, job)
    files = sorted(Path(job.source).iterdir())[:_ALONE_PHOTOS]
    batches = [inputs[n : n + size] for n in range(0, len(inputs) - size + 1, size)]
    model(batches[0])

    def stream(first: int) -> tuple[int, float]:
        seen, started = 0, time.perf_counter()
        photos = decoded(itertools.cycle(files), threads, 2 * size)
        with closing(photos):
            while seen < 2 or time.perf_counter() - started < _ALONE_S:
                if whole:
                    bare_batch(scorer, list(itertools.islice(photos, size)))
                else:
                    model(batches[(first + seen) % len(batches)])
                seen += 1
        return seen * size, time.perf_counter() - started

    with ThreadPoolExecutor(streams) as pool:
        return list(pool.map(stream, range(streams)))


def _prepared(scorer: Scorer, job: Job) -> tuple[Any, list[RGB]]:
    """Return the model that `stage` names, and photos as it receives them."""
    from skinbatch.scoring.inference import model_input

    photos = [read(file) for file in sorted(Path(job.source).iterdir())[:_ALONE_PHOTOS]]
    if job.stage == "segmenter":
        return scorer.models.segmenter, photos

    model = scorer.models.detector if job.stage == "detector" else scorer.models.classifiers[0]
    return model, [model_input(p, f, model.input) for p, f in faces_of(scorer, photos)]


def tiling(job: Job) -> Result:
    """Run the pack's detector on photos with three times the sides of its input.

    They are run in tiles, and the same tiles are run one by one. seconds: in tiles. spent: `tile`,
    the time of a single tile, and `tiles`, their number; medians.
    """
    import statistics

    import cv2
    import torch

    from skinbatch.config import load_config
    from skinbatch.models.detectors.tiling import TiledDetector, tiles
    from skinbatch.models.stages import TilingSection
    from skinbatch.scoring.scorer import Scorer

    torch.set_num_threads(job.cores)
    scorer = Scorer(job.pack, config=load_config(overrides=networks_on(job.runtime)))
    detector, side = scorer.models.detector, scorer.pack.detector.size
    tiled = TiledDetector(
        detector, TilingSection(above=side, tile=side), scorer.pack.detector.nms_iou, 500
    )
    files = sorted(Path(job.source).iterdir())[:4]
    enlarged = [
        cv2.resize(read(file), (3 * side, 3 * side), interpolation=cv2.INTER_CUBIC)
        for file in files
    ]
    photos = [np.asarray(photo, np.uint8) for photo in enlarged]
    frames = tiles((3 * side, 3 * side), side, 0.2)
    tiled([photos[0]])
    whole, one = [], []
    for photo in photos * 3:
        started = time.perf_counter()
        tiled([photo])
        whole.append(time.perf_counter() - started)
        started = time.perf_counter()
        for x1, y1, x2, y2 in frames:
            detector([np.ascontiguousarray(photo[y1:y2, x1:x2])])
        one.append((time.perf_counter() - started) / len(frames))
    spent = {"tile": statistics.median(one), "tiles": float(len(frames))}
    return Result(len(whole), statistics.median(whole), 0, spent)


def pipeline(job: Job) -> Result:
    """Run `skinbatch score` with one of its engines.

    seconds: from the first unit handed out to the last commit.
    """
    from skinbatch.config import load_config
    from skinbatch.engines.score import score
    from skinbatch.reading import open as open_destination
    from skinbatch.runs.record import newest
    from skinbatch.storage.locate import open_store

    clock = _Clock()
    overrides = networks_on(job.runtime)
    overrides["engine"] |= {"batch_size": job.batch, "workers": job.workers}
    config = load_config(overrides=overrides)
    report = score(
        job.source,
        job.dest,
        pack=job.pack,
        engine=ENGINES[job.side],
        config=config,
        presenter=clock,
    )
    if report.exit_code:
        raise SystemExit(f"{job.side}: exit {report.exit_code}: {report.message}; {clock.notes}")
    record = newest(open_store(job.dest, config.storage)) or {}
    boxes = open_destination(job.dest).boxes().num_rows if job.count_boxes else 0
    return Result(
        report.rows,
        clock.at["writing the snapshot"] - clock.at["scoring"],
        boxes,
        record["timings"],
    )


def ray_data(job: Job) -> Result:
    """Run Ray Data as in its guide to batch inference: read, score in actors, write Parquet."""
    import skinbatch.engines.ray_engine  # noqa: F401  before ray: it settles how Ray authenticates

    # isort: split
    import pyarrow.parquet as pq
    import ray
    import ray.data

    # Ray Data needs room in the object store for the pixels that pass through it.
    ray.init(
        "local",
        num_cpus=job.cores,
        include_dashboard=False,
        object_store_memory=1 << 30,
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Its own list of extensions silently leaves out WebP.
    extensions = sorted({p.suffix[1:] for p in Path(job.source).iterdir()})
    # A CPU must be left to the tasks that read and write. Without one, Ray Data waits forever.
    cpus = min(1.0, (job.cores - 1) / job.actors)
    started = time.perf_counter()
    (
        ray.data.read_images(job.source, mode="RGB", include_paths=True, file_extensions=extensions)
        .map_batches(
            Predictor,
            fn_constructor_args=(job.pack, job.actor_threads or job.cores),
            batch_size=job.batch or 4,
            concurrency=job.actors,
            num_cpus=cpus,
        )
        .write_parquet(job.dest)
    )
    seconds = time.perf_counter() - started
    table = pq.read_table(job.dest)
    boxes = sum(len(row) // 5 for row in table.column("boxes").to_pylist())
    return Result(table.num_rows, seconds, boxes, {})


class Predictor:
    """Score a batch for `map_batches`, with the same scorer as the pipeline."""

    def __init__(self, pack: str, threads: int) -> None:
        import torch

        from skinbatch.config import load_config
        from skinbatch.scoring.scorer import Scorer

        torch.set_num_threads(threads)
        self.scorer = Scorer(pack, config=load_config(overrides=networks_on("torch")))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = self.scorer.score_batch([np.ascontiguousarray(image) for image in batch["image"]])
        boxes = np.empty(len(results), object)
        boxes[:] = [
            np.array([(b.x1, b.y1, b.x2, b.y2, b.score) for b in r.boxes], np.float32).ravel()
            for r in results
        ]
        columns: dict[str, Any] = {
            "path": batch["path"],
            "status": np.array([str(r.status) for r in results]),
            "count_total": np.array(
                [-1 if r.count_total is None else r.count_total for r in results]
            ),
            "grade": np.array([r.grade or "" for r in results]),
            "sharpness": np.array(
                [np.nan if r.sharpness is None else r.sharpness for r in results]
            ),
            "boxes": boxes,
        }
        for name in self.scorer.pack.prob_columns:
            columns[name] = np.array([r.probs.get(name, np.nan) for r in results], np.float32)
        return columns


class _Clock:
    """Note when each phase of a run first began."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.notes: list[str] = []

    def phase(self, text: str) -> None:
        self.at.setdefault(text, time.perf_counter())

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, progress: object) -> None:
        """Ignore progress."""


SIDES = {
    BARE: bare,
    BEST: best,
    LOADER: loader,
    LOCAL: pipeline,
    LOCAL_TORCH: pipeline,
    RAY: pipeline,
    RAY_DATA: ray_data,
    ALONE: alone,
    TILING: tiling,
}

if __name__ == "__main__":
    given = Job(**json.loads(sys.argv[1]))
    result = SIDES[given.side](given)
    if given.side not in (ALONE, TILING) and result.photos != given.photos:
        raise SystemExit(f"{given.side}: {result.photos} photos instead of {given.photos}")
    print(json.dumps(asdict(result)))
