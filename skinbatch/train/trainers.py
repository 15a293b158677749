"""Name the function that trains each stage, and import its frameworks when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.recipe import Recipe
from skinbatch.train.results.result import TrainedStage

Train = Callable[[Recipe, Path, TrainingProgress], TrainedStage]


def _segmenter() -> Train:
    from skinbatch.train.segmentation.training import train_segmenter

    return train_segmenter


def _detector() -> Train:
    from skinbatch.train.detection.training import train_detector

    return train_detector


def _classifier() -> Train:
    from skinbatch.train.classification.training import train_classifier

    return train_classifier


# Imports the trainer of each stage.
TRAINERS: Mapping[str, Callable[[], Train]] = {
    "segmenter": _segmenter,
    "detector": _detector,
    "classifier": _classifier,
}
