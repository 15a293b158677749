"""Build mmdet's detectors, and recognise their weights.

Frameworks are imported by the functions that need them, because a recipe needs only the defaults.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from skinbatch.config import ModelSettings
from skinbatch.errors import PackError, UsageError
from skinbatch.models.detectors.mmdet.spec import Anchors, DetectorSpec, ModelConfig
from skinbatch.models.family import BuildOptions, Family, ImportedFile
from skinbatch.models.findings import ASSUMED, Recognised
from skinbatch.models.manifest import DETECTOR_CONFIG
from skinbatch.models.protocols import Detector
from skinbatch.models.stages import DetectorStage


def build(stage: DetectorStage, weights: Path, options: BuildOptions) -> Detector:
    """Build a detector. weights: a safetensors file; a user's config lies beside it."""
    from skinbatch.models.detectors.mmdet.detector import MMDetDetector
    from skinbatch.models.weights import read_weights

    model = None
    if stage.config_sha256 is not None:
        model = _kept_config(weights.with_name(DETECTOR_CONFIG))

    spec = detector_spec(stage, options.settings, model)
    try:
        return MMDetDetector(spec, read_weights(weights), **options.for_torch(weights))
    except PackError as e:
        raise PackError(f"{e}" if str(weights) in str(e) else f"{weights}: {e}") from None


def detector_spec(
    stage: DetectorStage, settings: ModelSettings, model: ModelConfig | None = None
) -> DetectorSpec:
    """Return the description from which one of mmdet's detectors is built.

    model: the model config of arch `mmdet`.
    """
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


def recognise(file: ImportedFile) -> Recognised:
    """Return the mmdet detector of a checkpoint and its settings.

    With arch `mmdet`, the user's config is written to the pack's folder.
    """
    from skinbatch.models.checkpoint import check_tensors, read_tensors
    from skinbatch.models.detectors.mmdet.detector import build_model
    from skinbatch.models.layers import find_network, shapes_of
    from skinbatch.models.recognition import describe_place

    model: ModelConfig | None = None
    fields = dict(file.architecture.defaults)
    where = f"{ASSUMED}: those of mmdet's public weights of this architecture"
    if file.architecture.layers is None:
        model, fields = _keep_config(_only_config(file), file.directory)
        where = "the mmdet config"

    checkpoint = read_tensors(file.path)
    noted = checkpoint.classes if "classes" not in fields else None
    if noted is not None:
        fields["classes"] = noted
    stage = file.make({**fields, **file.given})
    assert isinstance(stage, DetectorStage)
    spec = detector_spec(stage, ModelSettings(), model)
    try:
        shapes = shapes_of(lambda: build_model(spec, initialise=False))
    except PackError as e:
        raise PackError(f"{file.path}: {e}") from None

    network = find_network(
        file.path, checkpoint.tensors, [shapes], lambda state: state, file.prefix
    )
    check_tensors(file.path, network.tensors)
    sources = {"layers": describe_place(network), "pixels": where, "size": where}
    if "classes" in fields:
        sources["classes"] = (
            "the mmdet config" if noted is None else "mmdet's notes in the checkpoint (`meta`)"
        )
    return Recognised(fields, sources, network.tensors)


def _only_config(file: ImportedFile) -> Path:
    if len(file.configs) != 1:
        raise UsageError("arch `mmdet` needs one mmdet config: --config my.py (or .json, .yaml)")
    return file.configs[0]


def _keep_config(path: Path, directory: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Write the model of a user's mmdet config into `directory`.

    Returns the model, and the stage's fields that follow from the config.
    """
    from skinbatch.models.detectors.mmdet.user_config import read_config

    model, fields = read_config(path)
    text = json.dumps(model, indent=1, sort_keys=True)
    (directory / DETECTOR_CONFIG).write_text(text, encoding="utf-8")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return dict(json.loads(text)), dict(fields) | {"config_sha256": sha256}


def _kept_config(path: Path) -> ModelConfig:
    try:
        model: ModelConfig = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise PackError(f"{path}: the model of arch `mmdet` cannot be read: {e}") from None
    return model


FAMILY: Family[DetectorStage, Detector] = Family(build, recognise)
