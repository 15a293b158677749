"""Score photos: segment, crop, detect, classify, count and grade.

One `Scorer` serves single photos in a notebook as well as the batches of a unit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skinbatch.archive.decode import PhotoError, decode, decode_image
from skinbatch.archive.named import read_named
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.models.build import build
from skinbatch.models.detectors.tiling import TiledDetector
from skinbatch.models.pack import Pack, load_pack
from skinbatch.models.runtime.network import computed_by
from skinbatch.models.runtime.runtime import Runtime
from skinbatch.scoring.earlier import Earlier
from skinbatch.scoring.inference import RGB, Inference
from skinbatch.scoring.photo_result import PhotoResults
from skinbatch.scoring.seconds import Seconds
from skinbatch.storage.locate import Locator
from skinbatch.types import ImageResult

Photo = str | Path | bytes | bytearray | memoryview | RGB | Image.Image

CPU_BATCH = 4
GPU_BATCH = 32


class Scorer:
    """Score photos with one pack: `scorer(photo)` for one photo, `score_batch` for many.

    Threads may share a scorer if its models allow that; those of this package do.

    Args:
        pack: Name or folder of a pack, or a loaded Pack.
        device: `auto` (a GPU if there is one, else the CPU) or one of torch's device names.
        config: Settings; None for the defaults.
        on_progress: Called by the threads that use the scorer, after every call of a model, and
            after every few tiles of a model that cuts photos into tiles.
        lanes: threads that will call the scorer at the same time.

    Raises:
        PackError: If the pack is missing or malformed, or its files do not have their recorded
            hashes.

    Example:
        >>> scorer = skinbatch.Scorer("packs/own", device="cpu")
        >>> result = scorer("photos/visit-1/a.jpg")
        >>> result.count_total, result.count_left, result.grade
        (4, 3, 'mild')
    """

    def __init__(
        self,
        pack: str | Path | Pack = "starter",
        *,
        device: str = "auto",
        config: Config | None = None,
        on_progress: Callable[[], None] = lambda: None,
        lanes: int = 1,
    ) -> None:
        self.config = config or Config()
        self.pack = pack if isinstance(pack, Pack) else load_pack(str(pack), self.config.storage)
        self.device = (
            ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        )
        runtime = Runtime(self.config.engine.runtime, torch.get_num_threads(), lanes)
        self.models = build(self.pack, self.device, self.config.model, runtime)
        self.computed_by = computed_by(runtime, self.device, self.pack.precision(self.config.model))
        self.batch_size = self.config.engine.batch_size or (
            CPU_BATCH if self.device == "cpu" else GPU_BATCH
        )
        self.seconds = Seconds()
        self._on_progress = on_progress
        self._locator = Locator(self.config.storage)
        if isinstance(self.models.detector, TiledDetector):
            self.models.detector.on_tiles = on_progress

    def __call__(self, image: Photo) -> ImageResult:
        """Score one photo.

        Args:
            image: A path or an s3:// address; either of a shard followed by `/member`; the bytes of
                a file; a PIL image in any mode; or an (H, W, 3) uint8 RGB array of the photo as
                displayed. EXIF orientation is applied to all but the array.

        Returns:
            The result. Boxes are in pixels of the displayed photo. If the photo cannot be decoded,
            `status` and `error` give the reason.

        Raises:
            UsageError: If nothing has that name, or the array has another shape or type.
            StoreError: If the store does not answer, or does not allow the photo to be read.

        Example:
            >>> skinbatch.Scorer("packs/own")("photos/visit-1/cut-off.jpg").status.value
            'truncated'
        """
        try:
            rgb = self._pixels(image)
        except PhotoError as e:
            return ImageResult(e.status, str(e))
        return self.score_batch([rgb])[0]

    def _pixels(self, image: Photo) -> RGB:
        settings = self.config.decode
        if isinstance(image, str | Path):
            name = os.fspath(image)
            fetched = read_named(name, self._locator, settings)
            if fetched.data is None:
                raise PhotoError(fetched.status, fetched.error or name)
            return decode(fetched.data, settings, name).rgb
        if isinstance(image, bytes | bytearray | memoryview):
            return decode(bytes(image), settings, "image").rgb
        if isinstance(image, Image.Image):
            return decode_image(image, settings, "image").rgb
        if (
            not isinstance(image, np.ndarray)
            or image.ndim != 3
            or image.shape[2] != 3
            or image.dtype != np.uint8
        ):
            got = (
                f"{image.dtype} {image.shape}"
                if isinstance(image, np.ndarray)
                else type(image).__name__
            )
            raise UsageError(
                f"a photo is a path, bytes, a PIL image or an (H, W, 3) uint8 RGB array, not {got}"
            )
        return np.ascontiguousarray(image)

    def score_batch(
        self, photos: Sequence[RGB], earlier: Sequence[Earlier | None] | None = None
    ) -> list[ImageResult]:
        """Score several photos and return their results in the same order.

        A photo on which a model raises or returns NaN gets the status `model_error`; the others are
        scored.

        Args:
            photos: One (H, W, 3) uint8 RGB array for each photo, as displayed.
            earlier: What is taken from an earlier scoring, for each photo. The models of these
                stages are not run.

        Returns:
            One result for each photo, with boxes in pixels of the photo as displayed.

        Raises:
            MemoryError: If a photo alone in a batch needs more memory than there is.
            DeviceLost: If this process cannot use the GPU any more.

        Example:
            >>> grey = np.full((96, 96, 3), 128, np.uint8)
            >>> [result.count_total for result in skinbatch.Scorer("packs/own").score_batch([grey])]
            [0]
        """
        infer = Inference(
            self.models,
            closeups=self.pack.segmenter.closeups,
            seconds=self.seconds,
            on_progress=self._on_progress,
        )
        outputs = infer(photos, earlier or [None] * len(photos))

        start = time.perf_counter()
        maker = PhotoResults(self.models, self.config, self.pack.threshold)
        results = [maker.of(outputs, n) for n in range(len(photos))]
        self.seconds.add("grade", time.perf_counter() - start)
        return results
