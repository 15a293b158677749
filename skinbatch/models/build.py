"""Build models on a device from a pack's stages.

Frameworks are imported here, each only if a stage needs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from skinbatch.config import ModelSettings
from skinbatch.errors import PackError
from skinbatch.models.base import Classifier, Detector, Models, Segmenter
from skinbatch.models.pack import DETECTOR_CONFIG
from skinbatch.models.runtime.base import Precision, Runtime
from skinbatch.models.stages import FAKES, ClassifierStage, DetectorStage, SegmenterStage

if TYPE_CHECKING:
    from skinbatch.models.classifiers.classifier import ClassifierSpec
    from skinbatch.models.detectors.mmdet.architectures import DetectorSpec
    from skinbatch.models.pack import Pack


def build(
    pack: Pack, device: str, settings: ModelSettings, runtime: Runtime | None = None
) -> Models:
    """Build all models of a pack whose files have been verified.

    Raises PackError naming the file if a layer does not fit.
    """
    return Models(
        segmenter=build_segmenter(
            pack.segmenter, pack.weights_file("segmenter"), device, settings, runtime
        ),
        detector=build_detector(
            pack.detector, pack.weights_file("detector"), device, settings, runtime
        ),
        classifiers=tuple(
            build_classifier(
                stage, pack.weights_file(f"classifier-{stage.head}"), device, settings, runtime
            )
            for stage in pack.manifest.classifier
        ),
    )


def build_segmenter(
    stage: SegmenterStage,
    weights: Path,
    device: str,
    settings: ModelSettings,
    runtime: Runtime | None = None,
) -> Segmenter:
    """Build a segmenter. weights: the file; fakes need none."""
    if stage.arch in FAKES:
        from skinbatch.models.fake import FakeSegmenter

        return FakeSegmenter(
            stage.classes, stage.size, mortal=stage.arch == "fake-mortal-segmenter"
        )
    from skinbatch.models.preprocess import Normalisation
    from skinbatch.models.segmenters.segmenter import BiSeNetSegmenter

    return BiSeNetSegmenter(
        stage.arch,
        stage.classes,
        _tensors(weights),
        size=stage.size,
        normalisation=Normalisation(stage.mean, stage.std),
        spatial=stage.spatial,
        align_corners=stage.align_corners,
        **_options(weights, device, settings, runtime),
    )


def build_detector(
    stage: DetectorStage,
    weights: Path,
    device: str,
    settings: ModelSettings,
    runtime: Runtime | None = None,
) -> Detector:
    """Build a detector. weights: the file; the config of arch `mmdet` lies beside it."""
    detector = _detector(stage, weights, device, settings, runtime)
    if stage.tiling is None:
        return detector
    from skinbatch.models.detectors.tiling import CPU_BATCH, GPU_BATCH, TiledDetector

    batch = GPU_BATCH if device.startswith("cuda") else CPU_BATCH
    # Every side of a square is its short side.
    seen_as_it_is = min(stage.size, stage.short_side or stage.size)
    tiling = (
        stage.tiling
        if stage.tiling.tile
        else stage.tiling.model_copy(update={"tile": seen_as_it_is})
    )
    return TiledDetector(
        detector, tiling, settings.nms_iou or stage.nms_iou, settings.max_boxes, batch
    )


def _detector(
    stage: DetectorStage,
    weights: Path,
    device: str,
    settings: ModelSettings,
    runtime: Runtime | None,
) -> Detector:
    if stage.arch in FAKES:
        from skinbatch.models.fake import FakeDetector

        return FakeDetector(stage.classes, stage.input, settings.max_boxes)
    if stage.arch == "yolo-onnx":
        from skinbatch.models.detectors.yolo_onnx import YoloOnnxDetector

        return YoloOnnxDetector(weights, stage, settings, device, runtime)
    from skinbatch.models.detectors.mmdet.detector import MMDetDetector

    model = _user_model(weights.with_name(DETECTOR_CONFIG)) if stage.arch == "mmdet" else None
    spec = detector_spec(stage, settings, model)
    try:
        return MMDetDetector(
            spec, _tensors(weights), **_options(weights, device, settings, runtime)
        )
    except PackError as e:
        raise PackError(f"{e}" if str(weights) in str(e) else f"{weights}: {e}") from None


def detector_spec(
    stage: DetectorStage, settings: ModelSettings, model: dict[str, Any] | None = None
) -> DetectorSpec:
    """Return the description from which one of mmdet's detectors is built.

    model: the model config of arch `mmdet`.
    """
    from skinbatch.models.detectors.mmdet.architectures import Anchors, DetectorSpec

    anchors = stage.anchors
    return DetectorSpec(
        arch=stage.arch,
        classes=stage.classes,
        input=stage.input,
        size=stage.size,
        max_upscale=stage.max_upscale,
        short_side=stage.short_side,
        padding=stage.padding,
        strides=stage.strides,
        width=stage.width,
        head_channels=stage.head_channels,
        anchors=Anchors(anchors.scales, anchors.ratios, anchors.sizes) if anchors else None,
        model=model,
        score_floor=settings.score_floor,
        nms_iou=settings.nms_iou or stage.nms_iou,
        max_boxes=settings.max_boxes,
        mean=stage.mean,
        std=stage.std,
        bgr=stage.bgr,
    )


def _user_model(path: Path) -> dict[str, Any]:
    try:
        model: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise PackError(f"{path}: the model of arch `mmdet` cannot be read: {e}") from None
    return model


def build_classifier(
    stage: ClassifierStage,
    weights: Path,
    device: str,
    settings: ModelSettings,
    runtime: Runtime | None = None,
) -> Classifier:
    """Build a classifier. weights: the file; fakes need none."""
    if stage.arch in FAKES:
        from skinbatch.models.fake import FakeClassifier

        return FakeClassifier(stage.head, stage.classes, stage.input, stage.threshold)
    if stage.arch == "onnx":
        from skinbatch.models.classifiers.onnx_classifier import OnnxClassifier

        return OnnxClassifier(weights, stage, device, runtime)
    from skinbatch.models.classifiers.classifier import TorchClassifier

    spec = classifier_spec(stage)
    return TorchClassifier(spec, _tensors(weights), **_options(weights, device, settings, runtime))


def classifier_spec(stage: ClassifierStage) -> ClassifierSpec:
    """Return the description from which a torch classifier is built, in training and scoring."""
    from skinbatch.models.classifiers.classifier import ClassifierSpec
    from skinbatch.models.classifiers.classifier_layouts import network_name
    from skinbatch.models.preprocess import Normalisation

    return ClassifierSpec(
        backbone=network_name(stage.arch, stage.backbone),
        classes=stage.classes,
        head=stage.head,
        input=stage.input,
        size=stage.size,
        fit=stage.fit,
        normalisation=Normalisation(stage.mean, stage.std),
        threshold=stage.threshold,
        top=stage.top,
        outputs="softmax" if stage.outputs == "softmax" else "logistic",
        calibration=stage.calibration,
    )


class _Options(TypedDict):
    where: str
    device: str
    precision: Precision
    runtime: Runtime | None


def _options(
    weights: Path, device: str, settings: ModelSettings, runtime: Runtime | None
) -> _Options:
    """Return the arguments that every torch model takes."""
    return {
        "where": str(weights),
        "device": device,
        "precision": settings.precision or "fp32",
        "runtime": runtime,
    }


def _tensors(weights: Path) -> Mapping[str, Any]:
    from skinbatch.models.weights import read_weights

    return read_weights(weights)
