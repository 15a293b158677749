"""Build models on a device from a pack's stages.

Frameworks are imported here, each only if a stage needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from skinbatch.config import ModelSettings
from skinbatch.errors import UsageError
from skinbatch.models.families import CLASSIFIERS, DETECTORS, SEGMENTERS
from skinbatch.models.family import BuildOptions
from skinbatch.models.pack import Pack
from skinbatch.models.protocols import Classifier, Detector, Models, Segmenter
from skinbatch.models.runtime.runtime import Runtime
from skinbatch.models.stages import ClassifierStage, DetectorStage, SegmenterStage


def build(
    pack: Pack, device: str, settings: ModelSettings, runtime: Runtime | None = None
) -> Models:
    """Verify the files of a pack and build all of its models.

    Args:
        pack: the pack.
        device: `cpu`, `cuda`, `cuda:1`.
        settings: what changes their numbers.
        runtime: how their networks are run; None for torch.

    Raises:
        PackError: names the file with a changed byte or a layer that does not fit.
        UsageError: fp16 was requested on a CPU.
    """
    precision = pack.precision(settings)
    if precision == "fp16" and not device.startswith("cuda"):
        raise UsageError(
            f"precision fp16 needs a GPU, this worker has {device}; set precision = 'fp32' in [model]"
        )
    pack.verify()

    settings = settings.model_copy(update={"precision": precision})
    segmenter = build_segmenter(
        pack.segmenter, pack.weights_file("segmenter"), device, settings, runtime
    )
    detector = build_detector(
        pack.detector, pack.weights_file("detector"), device, settings, runtime
    )
    classifiers = tuple(
        build_classifier(
            stage, pack.weights_file(f"classifier-{stage.head}"), device, settings, runtime
        )
        for stage in pack.manifest.classifier
    )
    return Models(segmenter, detector, classifiers)


def build_segmenter(
    stage: SegmenterStage,
    weights: Path,
    device: str,
    settings: ModelSettings,
    runtime: Runtime | None = None,
) -> Segmenter:
    """Build a segmenter. weights: the file; fakes need none."""
    family = SEGMENTERS[stage.architecture.family]()
    return family.build(stage, weights, BuildOptions(device, settings, runtime))


def build_detector(
    stage: DetectorStage,
    weights: Path,
    device: str,
    settings: ModelSettings,
    runtime: Runtime | None = None,
) -> Detector:
    """Build a detector. weights: the file; the config of arch `mmdet` lies beside it."""
    family = DETECTORS[stage.architecture.family]()
    detector = family.build(stage, weights, BuildOptions(device, settings, runtime))
    if stage.tiling is None:
        return detector
    from skinbatch.models.detectors.tiling import CPU_BATCH, GPU_BATCH, TiledDetector

    batch = GPU_BATCH if device.startswith("cuda") else CPU_BATCH
    tiling = stage.tiling
    if not tiling.tile:
        # Every side of a square is its short side.
        seen_as_it_is = min(stage.size, stage.short_side or stage.size)
        tiling = tiling.model_copy(update={"tile": seen_as_it_is})

    nms_iou = settings.nms_iou or stage.nms_iou
    return TiledDetector(detector, tiling, nms_iou, settings.max_boxes, batch)


def build_classifier(
    stage: ClassifierStage,
    weights: Path,
    device: str,
    settings: ModelSettings,
    runtime: Runtime | None = None,
) -> Classifier:
    """Build a classifier. weights: the file; fakes need none."""
    family = CLASSIFIERS[stage.architecture.family]()
    return family.build(stage, weights, BuildOptions(device, settings, runtime))


# The function that builds the model of each stage.
BUILDERS: Mapping[str, Callable[..., Segmenter | Detector | Classifier]] = {
    "segmenter": build_segmenter,
    "detector": build_detector,
    "classifier": build_classifier,
}
