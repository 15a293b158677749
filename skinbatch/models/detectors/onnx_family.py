"""Build detectors from ONNX files, and recognise the files."""

from __future__ import annotations

from pathlib import Path

from skinbatch.models.detectors.yolo_onnx import YoloOnnxDetector
from skinbatch.models.detectors.yolo_onnx import recognise as recognise_file
from skinbatch.models.family import BuildOptions, Family, ImportedFile
from skinbatch.models.findings import Recognised
from skinbatch.models.protocols import Detector
from skinbatch.models.stages import DetectorStage


def build(stage: DetectorStage, weights: Path, options: BuildOptions) -> YoloOnnxDetector:
    """Build a detector. weights: the ONNX file."""
    return YoloOnnxDetector(weights, stage, options.settings, options.device, options.runtime)


def recognise(file: ImportedFile) -> Recognised:
    """Return the settings of the file. Raises PackError naming what does not fit."""
    return recognise_file(file.path, file.given)


FAMILY: Family[DetectorStage, Detector] = Family(build, recognise)
