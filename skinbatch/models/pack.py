"""Packs: the models of a scoring, with weights, manifest, hashes and card. Reading one needs no framework."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinbatch.config import ModelSettings
from skinbatch.errors import PackError, UsageError
from skinbatch.models.base import Classifier, Detector, Segmenter
from skinbatch.models.manifest import (
    FAKES,
    FILENAME,
    ClassifierStage,
    DetectorStage,
    Manifest,
    SegmenterStage,
    read_manifest,
)
from skinbatch.tables.names import prob_columns

SHIPPED = Path(__file__).parent / "packs"

Stage = SegmenterStage | DetectorStage | ClassifierStage


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a pack, ready to use on one device."""

    segmenter: Segmenter
    detector: Detector
    classifiers: tuple[Classifier, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack's directory and its manifest; small and picklable, models are built where they run."""

    directory: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def stages(self) -> dict[str, Stage]:
        """By the stem of their weights file: `segmenter`, `detector`, `classifier-<head>`."""
        stages: dict[str, Stage] = {"segmenter": self.manifest.segmenter, "detector": self.manifest.detector}
        return stages | {f"classifier-{stage.head}": stage for stage in self.manifest.classifier}

    @property
    def weights(self) -> dict[str, str]:
        """Stage -> the recorded SHA-256 of its weights file. Fakes have none."""
        return {stem: stage.sha256 for stem, stage in self.stages.items() if stage.sha256 is not None}

    def weights_file(self, stem: str) -> Path:
        """Where the weights of a stage are."""
        return self.directory / f"{stem}.safetensors"

    @property
    def detector_classes(self) -> tuple[str, ...]:
        return self.manifest.detector.classes

    @property
    def prob_columns(self) -> tuple[str, ...]:
        """Columns of `images` that this pack's classifiers fill, all heads."""
        columns: list[str] = []
        for stage in self.manifest.classifier:
            columns += prob_columns(stage.head, stage.classes, columns).values()
        return tuple(columns)

    @property
    def threshold(self) -> float:
        """Score from which on a box is counted, unless the run sets another."""
        return self.manifest.detector.threshold

    def numbers(self) -> dict[str, Any]:
        """Everything of the pack that changes numbers, as plain JSON values: weights, architectures, preprocessing,
        classes, NMS, tiling. Not in it: names, thresholds, texts."""
        return {stem: stage.numbers() for stem, stage in sorted(self.stages.items())}

    def verify(self) -> None:
        """Hash every weights file. Raises PackError naming the first that is missing or not what was recorded."""
        for stem, recorded in self.weights.items():
            path = self.weights_file(stem)
            try:
                found = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as e:
                raise PackError(f"{path}: weights of pack `{self.name}` cannot be read: {e.strerror}") from None
            if found != recorded:
                raise PackError(
                    f"{path}: SHA-256 is {found[:12]}…, {FILENAME} records {recorded[:12]}…; "
                    "the file was changed or cut off: take the pack from its source again"
                )

    def build(self, device: str, settings: ModelSettings) -> Models:
        """Load the models. device: `cpu`, `cuda`, `cuda:1`. Frameworks are imported here, each if a stage needs it.

        Raises PackError naming the file for a changed byte or a layer that does not fit, UsageError for fp16 on a CPU.
        """
        if settings.precision == "fp16" and not device.startswith("cuda"):
            raise UsageError(f"precision fp16 needs a GPU, this worker has {device}; set precision = 'fp32' in [model]")
        self.verify()
        return Models(
            segmenter=self._segmenter(device, settings),
            detector=self._detector(device, settings),
            classifiers=tuple(self._classifier(stage, device, settings) for stage in self.manifest.classifier),
        )

    def text(self, filename: str) -> str | None:
        """CARD.md or LICENSE.md, if the pack has it."""
        path = self.directory / filename
        return path.read_text(encoding="utf-8") if path.exists() else None

    def describe(self) -> dict[str, Any]:
        """The manifest as plain JSON values, with what follows from it."""
        return {
            "directory": str(self.directory),
            **self.manifest.model_dump(mode="json", exclude_none=True),
            "prob_columns": list(self.prob_columns),
            "bytes": {stem: path.stat().st_size for stem in self.weights if (path := self.weights_file(stem)).exists()},
            "card": self.text("CARD.md"),
        }

    def describe_text(self) -> str:
        """The same for a terminal: one block a stage, then the licence and the card."""
        m = self.manifest
        lines = [f"{m.name} {m.version}: {m.description}", f"licence: {m.licence}", f"directory: {self.directory}"]
        for stem, stage in self.stages.items():
            values = stage.model_dump(mode="json", exclude_none=True)
            lines += ["", stem, *(f"  {key}: {_plain(value)}" for key, value in values.items())]
        card = self.text("CARD.md")
        return "\n".join([*lines, "", card or "no card"])

    def _segmenter(self, device: str, settings: ModelSettings) -> Segmenter:
        stage = self.manifest.segmenter
        if stage.arch in FAKES:
            from skinbatch.models.fake import FakeSegmenter

            return FakeSegmenter(stage.classes, stage.size, mortal=stage.arch == "fake-mortal-segmenter")
        from skinbatch.models.preprocess import Normalisation
        from skinbatch.models.segmenter import BiSeNetSegmenter

        return BiSeNetSegmenter(
            stage.arch,
            stage.classes,
            self._tensors("segmenter"),
            where=str(self.weights_file("segmenter")),
            size=stage.size,
            normalisation=Normalisation(stage.mean, stage.std),
            device=device,
            precision=settings.precision,
        )

    def _detector(self, device: str, settings: ModelSettings) -> Detector:
        stage = self.manifest.detector
        if stage.arch in FAKES:
            from skinbatch.models.fake import FakeDetector

            return FakeDetector(stage.classes, stage.input, settings.max_boxes)
        from skinbatch.models.mmdet_architectures import Anchors, DetectorSpec
        from skinbatch.models.mmdet_detector import MMDetDetector

        spec = DetectorSpec(
            arch=stage.arch,
            classes=stage.classes,
            input=stage.input,
            size=stage.size,
            max_upscale=stage.max_upscale,
            strides=stage.strides,
            width=stage.width,
            head_channels=stage.head_channels,
            anchors=Anchors(stage.anchors.scales, stage.anchors.ratios) if stage.anchors else Anchors(),
            score_floor=settings.score_floor,
            nms_iou=settings.nms_iou or stage.nms_iou,
            max_boxes=settings.max_boxes,
            mean=stage.mean,
            std=stage.std,
            bgr=stage.bgr,
        )
        try:
            return MMDetDetector(spec, self._tensors("detector"), device=device, precision=settings.precision)
        except PackError as e:
            raise PackError(f"{self.weights_file('detector')}: {e}") from None

    def _classifier(self, stage: ClassifierStage, device: str, settings: ModelSettings) -> Classifier:
        if stage.arch in FAKES:
            from skinbatch.models.fake import FakeClassifier

            return FakeClassifier(stage.head, stage.classes, stage.input, stage.threshold)
        from skinbatch.models.classifier import ClassifierSpec, TimmClassifier
        from skinbatch.models.preprocess import Normalisation

        spec = ClassifierSpec(
            backbone=stage.backbone or "",
            classes=stage.classes,
            head=stage.head,
            input=stage.input,
            size=stage.size,
            fit=stage.fit,
            normalisation=Normalisation(stage.mean, stage.std),
            threshold=stage.threshold,
        )
        stem = f"classifier-{stage.head}"
        where = str(self.weights_file(stem))
        return TimmClassifier(spec, self._tensors(stem), where=where, device=device, precision=settings.precision)

    def _tensors(self, stem: str) -> Mapping[str, Any]:
        from skinbatch.models.weights import read_weights

        return read_weights(self.weights_file(stem))


def load_pack(name_or_path: str | Path) -> Pack:
    """A pack by the name of one that is shipped, or by its directory (which needs a `/` if it has a shipped name).

    Reads the manifest only; raises PackError for one that is not there or malformed, UsageError for an `s3://` address.
    """
    text = str(name_or_path)
    if text.startswith("s3://"):
        raise UsageError(f"{text}: a pack is read from a local directory; copy it from the bucket first")
    shipped = SHIPPED / text
    if "/" not in text and text not in ("", ".", "..") and (shipped / FILENAME).exists():
        return Pack(shipped, read_manifest(shipped))
    directory = Path(text).expanduser()
    if not directory.is_dir():
        names = ", ".join(pack.name for pack in shipped_packs()) or "none"
        raise PackError(f"{text}: no such pack; shipped: {names}; or give the directory that holds a {FILENAME}")
    return Pack(directory.resolve(), read_manifest(directory))


def shipped_packs() -> list[Pack]:
    """The packs inside the package, by name."""
    return [Pack(path.parent, read_manifest(path.parent)) for path in sorted(SHIPPED.glob(f"*/{FILENAME}"))]


def _plain(value: Any) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)
