"""Build classifiers from ONNX files, and recognise the files."""

from __future__ import annotations

from pathlib import Path

from skinbatch.models.classifiers.onnx_classifier import OnnxClassifier
from skinbatch.models.classifiers.onnx_classifier import recognise as recognise_file
from skinbatch.models.family import BuildOptions, Family, ImportedFile
from skinbatch.models.findings import Recognised
from skinbatch.models.protocols import Classifier
from skinbatch.models.stages import ClassifierStage


def build(stage: ClassifierStage, weights: Path, options: BuildOptions) -> OnnxClassifier:
    """Build a classifier. weights: the ONNX file."""
    return OnnxClassifier(weights, stage, options.device, options.runtime)


def recognise(file: ImportedFile) -> Recognised:
    """Return the settings of the file. Raises PackError naming what is undecided."""
    return recognise_file(file.path, file.given)


FAMILY: Family[ClassifierStage, Classifier] = Family(build, recognise)
