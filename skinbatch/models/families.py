"""Name the families of architectures of each stage, and import the code of one when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skinbatch.models.architectures import Architecture
from skinbatch.models.family import Family
from skinbatch.models.protocols import Classifier, Detector, Segmenter
from skinbatch.models.stages import ClassifierStage, DetectorStage, SegmenterStage


def _bisenet() -> Family[SegmenterStage, Segmenter]:
    from skinbatch.models.segmenters.family import FAMILY

    return FAMILY


def _fake_segmenters() -> Family[SegmenterStage, Segmenter]:
    from skinbatch.models.fake import SEGMENTERS

    return SEGMENTERS


def _mmdet() -> Family[DetectorStage, Detector]:
    from skinbatch.models.detectors.mmdet.family import FAMILY

    return FAMILY


def _onnx_detectors() -> Family[DetectorStage, Detector]:
    from skinbatch.models.detectors.onnx_family import FAMILY

    return FAMILY


def _fake_detectors() -> Family[DetectorStage, Detector]:
    from skinbatch.models.fake import DETECTORS

    return DETECTORS


def _torch_classifiers() -> Family[ClassifierStage, Classifier]:
    from skinbatch.models.classifiers.family import FAMILY

    return FAMILY


def _onnx_classifiers() -> Family[ClassifierStage, Classifier]:
    from skinbatch.models.classifiers.onnx_family import FAMILY

    return FAMILY


def _fake_classifiers() -> Family[ClassifierStage, Classifier]:
    from skinbatch.models.fake import CLASSIFIERS

    return CLASSIFIERS


SEGMENTERS: Mapping[str, Callable[[], Family[SegmenterStage, Segmenter]]] = {
    "bisenet": _bisenet,
    "fake": _fake_segmenters,
}
DETECTORS: Mapping[str, Callable[[], Family[DetectorStage, Detector]]] = {
    "mmdet": _mmdet,
    "onnx": _onnx_detectors,
    "fake": _fake_detectors,
}
CLASSIFIERS: Mapping[str, Callable[[], Family[ClassifierStage, Classifier]]] = {
    "torch": _torch_classifiers,
    "onnx": _onnx_classifiers,
    "fake": _fake_classifiers,
}
_OF_STAGE: Mapping[str, Mapping[str, Callable[[], Family[Any, Any]]]] = {
    "segmenter": SEGMENTERS,
    "detector": DETECTORS,
    "classifier": CLASSIFIERS,
}


def family_of(architecture: Architecture) -> Family[Any, Any]:
    """Return the code that handles an architecture."""
    return _OF_STAGE[architecture.stage][architecture.family]()


def defaults_of(architecture: Architecture, backbone: str | None = None) -> dict[str, Any]:
    """Return the fields of a stage that go with an architecture, if nothing else sets them.

    backbone: the network's name in timm, if the architecture takes one.

    Raises PackError if timm lacks the backbone.
    """
    return family_of(architecture).defaults(architecture, backbone)
