"""A small pack with real architectures and seeded random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from skinbatch.models.bisenet import BiSeNet
from skinbatch.models.classifier import ClassifierNetwork, ClassifierSpec
from skinbatch.models.manifest import Manifest, write_manifest
from skinbatch.models.mmdet_architectures import DetectorSpec
from skinbatch.models.mmdet_detector import build_model
from skinbatch.models.stages import ClassifierStage, DetectorStage, SegmenterStage
from skinbatch.models.weights import save_weights

SEGMENTER_CLASSES = ("background", "skin", "nose")
CLASSIFIER = ClassifierSpec("mobilenetv3_small_050", ("rosacea", "lupus_erythematosus"), size=64)
DETECTOR = DetectorSpec("yolox-tiny", ("acne",), size=128, strides=(8, 16), head_channels=32)


def seeded(build: type[nn.Module] | object, *args: object) -> nn.Module:
    """A network whose weights are the same in every test."""
    torch.manual_seed(7)
    network = build(*args)  # type: ignore[operator]
    assert isinstance(network, nn.Module)
    return network.eval()


def write_random_pack(directory: Path) -> Path:
    """A pack of real architectures that has learned nothing."""
    directory.mkdir(parents=True)
    networks = {
        "segmenter": seeded(BiSeNet, "bisenet-light", 3),
        "detector": seeded(build_model, DETECTOR),
        "classifier-disease": seeded(ClassifierNetwork, CLASSIFIER),
    }
    hashes = {}
    for stem, network in networks.items():
        path = directory / f"{stem}.safetensors"
        save_weights(network, path)
        hashes[stem] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = Manifest(
        name="random",
        version="1",
        licence="Apache-2.0",
        segmenter=SegmenterStage(arch="bisenet-light", classes=SEGMENTER_CLASSES, size=64, sha256=hashes["segmenter"]),
        detector=DetectorStage(
            arch="yolox-tiny",
            classes=("acne",),
            size=128,
            strides=(8, 16),
            head_channels=32,
            threshold=0.4,
            sha256=hashes["detector"],
        ),
        classifier=(
            ClassifierStage(
                arch="timm",
                backbone=CLASSIFIER.backbone,
                classes=CLASSIFIER.classes,
                size=CLASSIFIER.size,
                threshold=0.5,
                sha256=hashes["classifier-disease"],
            ),
        ),
    )
    write_manifest(manifest, directory)
    return directory
