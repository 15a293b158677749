"""Provide a fake model of each kind: pure functions of the pixels, without weights or framework.

They are for tests of everything around the models, here and in projects that build on skinbatch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.models.family import BuildOptions, Family
from skinbatch.models.manifest import Manifest, write_manifest
from skinbatch.models.protocols import Classifier, Detector, InputKind, Segmenter
from skinbatch.models.stages import ClassifierStage, DetectorStage, SegmenterStage
from skinbatch.types import Detections

SCORE = 0.9
BODY_RED = 150
KILLS = (1, 2, 253)
HANGS = (1, 253, 2)
# The colours of a photo's upper left 8 x 8 pixels to which the mortal segmenter reacts.
RAISES = (253, 1, 2)


class FakeSegmenter:
    """Label skin by its colour, or as an ellipse in the middle if there is little of that colour.

    The nose is a disc in the middle of the skin. With a class `body`, skin whose red is under
    BODY_RED belongs to the body, and only skin of the face has a nose.

    size: long side of the label maps in pixels; smaller photos keep their own size. mortal: some
    photos break the model. One with KILLS in its corner kills the process, one with HANGS never
    returns, and one with RAISES raises an error.
    """

    def __init__(self, classes: Sequence[str], size: int = 256, mortal: bool = False) -> None:
        self.classes = tuple(classes)
        self.size = size
        self.mortal = mortal

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        if self.mortal:
            for photo in photos:
                _meet_fate(photo)
        return [self._labels(photo) for photo in photos]

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        scale = min(1.0, self.size / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _labels(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = photo.shape[:2]
        h, w = self.map_size(height, width)
        small = np.asarray(cv2.resize(photo, (w, h), interpolation=cv2.INTER_AREA), np.int16)
        r, g, b = small[..., 0], small[..., 1], small[..., 2]
        skin = (r > 95) & (g > 40) & (b > 20) & (r > g) & (g >= b - 10) & (r - b > 15)
        y, x = np.mgrid[:h, :w]
        if skin.mean() < 0.02:
            skin = ((x + 0.5) / w - 0.5) ** 2 / 0.35**2 + ((y + 0.5) / h - 0.5) ** 2 / 0.45**2 <= 1
        body = skin & (r < BODY_RED) if "body" in self.classes else np.zeros_like(skin)
        skin &= ~body
        labels = np.full((h, w), self.classes.index("background"), np.uint8)
        if body.any():
            labels[body] = self.classes.index("body")
        if not skin.any():
            return labels
        ys, xs = np.nonzero(skin)
        radius = 0.06 * min(h, w)
        nose = skin & ((x - xs.mean()) ** 2 + (y - ys.mean()) ** 2 <= radius**2)
        labels[skin] = self.classes.index("skin")
        labels[nose] = self.classes.index("nose")
        return labels


def _meet_fate(photo: NDArray[np.uint8]) -> None:
    corner = photo[:8, :8].reshape(-1, 3)
    if (corner == KILLS).all():
        os.abort()
    if (corner == HANGS).all():
        threading.Event().wait()
    if (corner == RAISES).all():
        raise RuntimeError("the photo has the colour that this fake raises on")


class FakeDetector:
    """Find connected regions of strong red (r > 200, g < 90, b < 90), each with score 0.9."""

    def __init__(
        self, classes: Sequence[str], input: InputKind = "crop", max_boxes: int = 500
    ) -> None:
        self.classes = tuple(classes)
        self.input: InputKind = input
        self._max_boxes = max_boxes

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        return [self._detect(photo) for photo in photos]

    def _detect(self, photo: NDArray[np.uint8]) -> Detections:
        red = (photo[..., 0] > 200) & (photo[..., 1] < 90) & (photo[..., 2] < 90)
        stats = cv2.connectedComponentsWithStats(red.astype(np.uint8), connectivity=8)[2][1:]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in stats], np.float32).reshape(
            -1, 4
        )
        kept = boxes[: self._max_boxes]
        scores = np.full(len(kept), SCORE, np.float32)
        return Detections(
            kept, scores, np.zeros(len(kept), np.int64), len(boxes) >= self._max_boxes
        )


class FakeClassifier:
    """Return for class i the mean of channel i mod 3, over 255, divided by i // 3 + 1."""

    def __init__(
        self, head: str, classes: Sequence[str], input: InputKind = "crop", threshold: float = 0.5
    ) -> None:
        self.head = head
        self.classes = tuple(classes)
        self.input: InputKind = input
        self.threshold = threshold

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        rows = [
            [photo[..., i % 3].mean() / 255 / (i // 3 + 1) for i in range(len(self.classes))]
            for photo in photos
        ]
        return np.array(rows, np.float32).reshape(-1, len(self.classes))


def write_fake_pack(directory: Path, mortal: bool = False, closeups: bool = False) -> Path:
    """Write a pack of the three fakes as `directory/pack.toml` and return the directory.

    Args:
        directory: the pack's folder; it is made if it does not exist.
        mortal: see FakeSegmenter.
        closeups: make the segmenter recognise close-ups and skin of the body.
    """
    directory.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        name="fake",
        version="1",
        description="Models that look at colours only, for tests",
        licence="Apache-2.0",
        segmenter=SegmenterStage(
            arch="fake-mortal-segmenter" if mortal else "fake-segmenter",
            classes=("background", "skin", "nose", *(("body",) if closeups else ())),
            closeups=closeups,
        ),
        detector=DetectorStage(arch="fake-detector", classes=("acne",), threshold=0.5),
        classifier=(
            ClassifierStage(
                arch="fake-classifier", classes=("rosacea", "lupus_erythematosus"), threshold=0.5
            ),
        ),
    )
    write_manifest(manifest, directory)
    return directory


def _segmenter(stage: SegmenterStage, weights: Path, options: BuildOptions) -> FakeSegmenter:
    mortal = stage.arch == "fake-mortal-segmenter"
    return FakeSegmenter(stage.classes, stage.size, mortal=mortal)


def _detector(stage: DetectorStage, weights: Path, options: BuildOptions) -> FakeDetector:
    return FakeDetector(stage.classes, stage.input, options.settings.max_boxes)


def _classifier(stage: ClassifierStage, weights: Path, options: BuildOptions) -> FakeClassifier:
    return FakeClassifier(stage.head, stage.classes, stage.input, stage.threshold)


SEGMENTERS: Family[SegmenterStage, Segmenter] = Family(_segmenter)
DETECTORS: Family[DetectorStage, Detector] = Family(_detector)
CLASSIFIERS: Family[ClassifierStage, Classifier] = Family(_classifier)
