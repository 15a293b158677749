"""Run the plain loops that the pipeline is compared with: decode photos and call the models, nothing else."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from skinbatch.grading.face import Face
    from skinbatch.scoring.scorer import Scorer

RGB = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Job:
    """Describe the work of a side.

    source: contains `photos` photos. dest: place of its tables. cores: number of cores that it may
    use. runtime: of the networks, see `[engine] runtime`. batch: photos per batch, None for the
    pipeline's own. actors, actor_threads: of ray-data's pool. workers: of ray's, None for its own.
    stage: the one that ALONE runs.
    """

    side: str
    source: str
    photos: int
    dest: str
    pack: str
    cores: int
    runtime: str = "torch"
    batch: int | None = None
    actors: int = 1
    actor_threads: int | None = None
    workers: int | None = None
    count_boxes: bool = True
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """Hold the measurements of a side.

    seconds: of the photos alone, with models loaded before. boxes: number found, to check that all
    sides did the same work. spent: seconds by part of the work, if the side measures them.
    """

    photos: int
    seconds: float
    boxes: int
    spent: dict[str, float]


def bare(job: Job) -> Result:
    """Decode in threads ahead of the models, which run in batches on all cores.

    The results are dropped.
    """
    scorer = scorer_of(job, job.cores)
    size = job.batch or scorer.batch_size
    files = sorted(Path(job.source).iterdir())

    boxes = 0
    started = time.perf_counter()
    for photos in _batches(decoded(files, job.cores, 2 * size), size):
        boxes += bare_batch(scorer, photos)
    return Result(len(files), time.perf_counter() - started, boxes, {})


def best(job: Job) -> Result:
    """Run the bare loop in the faster of two ways, chosen by a quarter of the photos.

    It is one loop on all cores, or one loop a core on one thread each. seconds, photos: of the
    faster way with all photos. spent: photos/s of each way.
    """
    ways = {"one loop": (1, job.cores)} | ({"loops": (job.cores, 1)} if job.cores > 1 else {})
    files = sorted(Path(job.source).iterdir())
    tried = {name: _loops(job, files[::4], *way) for name, way in ways.items()}
    rates = {name: result.photos / result.seconds for name, result in tried.items()}

    fastest = _loops(job, files, *ways[max(rates, key=rates.__getitem__)])
    return Result(fastest.photos, fastest.seconds, fastest.boxes, rates)


def _loops(job: Job, files: Sequence[Path], loops: int, threads: int) -> Result:
    scorer = scorer_of(job, threads, loops)
    size = job.batch or scorer.batch_size
    bare_batch(scorer, [read(file) for file in files[:size]])

    shared = _batches(decoded(files, job.cores, 2 * size * loops), size)
    take = _Turns(shared)

    def loop(_: int) -> int:
        return sum(bare_batch(scorer, photos) for photos in take)

    started = time.perf_counter()
    with ThreadPoolExecutor(loops) as pool:
        boxes = sum(pool.map(loop, range(loops)))
    return Result(len(files), time.perf_counter() - started, boxes, {})


class _Turns:
    """Let several threads take from one iterator."""

    def __init__(self, items: Iterator[list[RGB]]) -> None:
        self._items = items
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[list[RGB]]:
        while True:
            with self._lock:
                item = next(self._items, None)
            if item is None:
                return
            yield item


def loader(job: Job) -> Result:
    """Read photos with torch's DataLoader and find lesions with mmdet's own inferencer.

    Masks and probabilities come from the same networks as elsewhere, run by torch.
    """
    from torch.utils.data import DataLoader

    scorer = scorer_of(job, job.cores)
    size = job.batch or scorer.batch_size
    files = sorted(Path(job.source).iterdir())
    batches: Iterable[list[RGB]] = DataLoader(
        files,  # type: ignore[arg-type]
        batch_size=size,
        num_workers=job.cores,
        collate_fn=_read_all,
    )
    detect = mmdet_inferencer(scorer, size)

    boxes = 0
    started = time.perf_counter()
    for photos in batches:
        boxes += bare_batch(scorer, photos, detect)
    return Result(len(files), time.perf_counter() - started, boxes, {})


def _read_all(files: list[Path]) -> list[RGB]:
    return [read(file) for file in files]


Detect = Callable[[Sequence[RGB]], Sequence[Any]]


def mmdet_inferencer(scorer: Scorer, batch_size: int) -> Detect:
    """Return mmdet's DetInferencer with the weights of the pack's detector.

    The callable returns the boxes of each photo above the pack's score floor.
    """
    import torch
    from mmdet.apis import DetInferencer
    from mmengine.config import Config
    from safetensors.torch import load_file

    from skinbatch.models.detectors.mmdet.user_config import model_config

    spec = scorer.models.detector.spec  # type: ignore[attr-defined]
    read_photo = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (spec.size, spec.size), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": ("ori_shape", "img_shape", "scale_factor")},
    ]
    pixels = {
        "type": "DetDataPreprocessor",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "pad_size_divisor": 32,
    }
    model = model_config(spec) | {"data_preprocessor": pixels}
    config = Config(
        {
            "model": model,
            "test_dataloader": {"dataset": {"pipeline": read_photo}},
            "default_scope": "mmdet",
            "visualizer": {"type": "DetLocalVisualizer", "vis_backends": []},
        }
    )
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        tensors = load_file(scorer.pack.weights_file("detector"))
        state = {name: tensor.float() for name, tensor in tensors.items()}
        torch.save(
            {"state_dict": state, "meta": {"dataset_meta": {"classes": spec.classes}}}, file.name
        )
        inferencer = DetInferencer(
            config, file.name, device="cpu", palette="random", show_progress=False
        )

    def detect(photos: Sequence[RGB]) -> list[list[float]]:
        output = inferencer(
            [photo[..., ::-1] if spec.bgr else photo for photo in photos],
            batch_size=batch_size,
            no_save_vis=True,
            no_save_pred=True,
        )
        return [
            [score for score in one["scores"] if score >= spec.score_floor]
            for one in output["predictions"]
        ]

    return detect


def scorer_of(job: Job, threads: int, loops: int = 1) -> Scorer:
    """Return a scorer whose calls use so many threads. loops: calls at the same time."""
    import torch

    from skinbatch.config import load_config
    from skinbatch.scoring.scorer import Scorer

    # ONNX Runtime reads the number when a model is made.
    torch.set_num_threads(threads)
    return Scorer(job.pack, config=load_config(overrides=networks_on(job.runtime)), lanes=loops)


def networks_on(runtime: str) -> dict[str, dict[str, Any]]:
    """Return the settings of a side's networks.

    On torch they compute in fp32, as they do in a loop that says nothing about it.
    """
    precision = "fp32" if runtime == "torch" else None
    return {"engine": {"runtime": runtime}, "model": {"precision": precision}}


def bare_batch(scorer: Scorer, photos: Sequence[RGB], detect: Detect | None = None) -> int:
    """Run the models of a pack on one batch and return the number of boxes.

    detect: runs in place of the pack's detector.
    """
    from skinbatch.scoring.inference import model_input

    models = scorer.models
    seen = faces_of(scorer, photos)
    inputs = [model_input(photo, face, models.detector.input) for photo, face in seen]
    boxes = sum(map(len, (detect or models.detector)(inputs)))
    for classifier in models.classifiers:
        classifier([model_input(photo, face, classifier.input) for photo, face in seen])
    return boxes


def faces_of(scorer: Scorer, photos: Sequence[RGB]) -> list[tuple[RGB, Face]]:
    """Return the photos in which the pack's segmenter finds a face, and those faces."""
    from skinbatch.grading.face import find_face

    segmenter = scorer.models.segmenter
    closeups = scorer.pack.segmenter.closeups
    faces = []
    for label_map, photo in zip(segmenter(photos), photos, strict=True):
        height, width = photo.shape[:2]
        face = find_face(label_map, segmenter.classes, width, height, closeups=closeups)
        if face.found:
            faces.append((photo, face))
    return faces


def decoded(files: Iterable[Path], threads: int, ahead: int) -> Generator[RGB, None, None]:
    """Yield photos in order, with up to `ahead` of them being decoded."""
    left = iter(files)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(read, file) for file in itertools.islice(left, ahead))
        while waiting:
            photo = waiting.popleft().result()
            waiting.extend(pool.submit(read, file) for file in itertools.islice(left, 1))
            yield photo


def read(file: Path) -> RGB:
    """Return the (H, W, 3) uint8 pixels of a photo as displayed."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _batches(photos: Iterator[RGB], size: int) -> Iterator[list[RGB]]:
    batch: list[RGB] = []
    for photo in photos:
        batch.append(photo)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
