"""Trained stages to a pack: weights, manifest, licence and a card that says what was learned from what, and how well."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from skinbatch.errors import UsageError
from skinbatch.models.manifest import Manifest, write_manifest
from skinbatch.models.pack import load_pack
from skinbatch.models.stages import AnchorSection, ClassifierStage, DetectorStage, SegmenterStage
from skinbatch.train.card import card, licence

FILES = {"segmenter": "segmenter", "detector": "detector", "classifier": "classifier-disease"}
LIMIT = 30_000_000
_SOURCE = "trained from nothing by jobs/train_starter.py on {}"

Record = dict[str, Any]


def assemble(work: Path, pack_dir: Path) -> None:
    """Write the pack from `work/segmenter`, `work/detector`, `work/classifier`, and, for its card, `work/faster_rcnn`.

    Raises UsageError naming a stage that has not been trained, or when the weights are larger than the limit.
    """
    records = {stage: _record(work / stage / f"{stage}.json") for stage in FILES}
    rival = work / "faster_rcnn" / "detector.json"
    pack_dir.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for stage, stem in FILES.items():
        weights = pack_dir / f"{stem}.safetensors"
        shutil.copyfile(work / stage / f"{stage}.safetensors", weights)
        hashes[stage] = hashlib.sha256(weights.read_bytes()).hexdigest()
    size = sum((pack_dir / f"{stem}.safetensors").stat().st_size for stem in FILES.values())
    if size > LIMIT:
        raise UsageError(f"{pack_dir}: weights of {size / 1e6:.1f} MB; a shipped pack has {LIMIT / 1e6:.0f} MB at most")
    write_manifest(_manifest(pack_dir.name, records, hashes), pack_dir)
    text = card(records, _record(rival) if rival.exists() else None, size)
    (pack_dir / "CARD.md").write_text(text, encoding="utf-8")
    (pack_dir / "LICENSE.md").write_text(licence(), encoding="utf-8")
    load_pack(pack_dir.resolve()).verify()


def _manifest(name: str, records: dict[str, Record], hashes: dict[str, str]) -> Manifest:
    segmenter, detector, classifier = (records[stage] for stage in FILES)
    anchors = detector["anchors"]
    return Manifest(
        name=name,
        version="1",
        description="Small networks trained from nothing in minutes: a research demonstration, not for clinical use",
        licence="research demonstration, non-commercial, not for clinical use; see LICENSE.md",
        segmenter=SegmenterStage(
            arch=segmenter["arch"],
            classes=tuple(segmenter["classes"]),
            size=segmenter["size"],
            sha256=hashes["segmenter"],
            parameters=segmenter["parameters"],
            source=_SOURCE.format("CelebAMask-HQ"),
        ),
        detector=DetectorStage(
            arch=detector["arch"],
            classes=tuple(detector["classes"]),
            input=detector["input"],
            size=detector["size"],
            max_upscale=detector["max_upscale"],
            strides=tuple(detector["strides"]) if detector["strides"] else None,
            width=detector["width"],
            head_channels=detector["head_channels"],
            # YOLOX has no anchors; what its record holds are the defaults of a spec.
            anchors=None
            if detector["arch"].startswith("yolox")
            else AnchorSection(scales=tuple(anchors["scales"]), ratios=tuple(anchors["ratios"])),
            mean=_triple(detector["mean"]),
            std=_triple(detector["std"]),
            bgr=detector["bgr"],
            nms_iou=detector["nms_iou"],
            threshold=detector["threshold"],
            sha256=hashes["detector"],
            parameters=detector["parameters"],
            source=_SOURCE.format("ACNE04, and faces of CelebAMask-HQ as negatives"),
        ),
        classifier=(
            ClassifierStage(
                arch=classifier["arch"],
                backbone=classifier["backbone"],
                classes=tuple(classifier["classes"]),
                size=classifier["size"],
                fit=classifier["fit"],
                threshold=classifier["threshold"],
                sha256=hashes["classifier"],
                parameters=classifier["parameters"],
                source=_SOURCE.format("DermNet NZ and web photos; faces of CelebAMask-HQ and ACNE04 as negatives"),
            ),
        ),
    )


def _record(path: Path) -> Record:
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{path}: not there; train this stage first: jobs/train_starter.py {path.parent.name}"
        ) from None
    return record


def _triple(values: list[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
