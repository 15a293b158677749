"""Write a small pack with real architectures and random weights with a seed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from skinbatch.models.architectures import ARCHITECTURES
from skinbatch.models.classifiers.classifier import (
    PLAIN_CNN,
    ClassifierNetwork,
    ClassifierSpec,
    build_network,
)
from skinbatch.models.classifiers.classifier_layouts import network_name
from skinbatch.models.detectors.mmdet.detector import build_model, metainfo
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.families import defaults_of
from skinbatch.models.manifest import Manifest, write_manifest
from skinbatch.models.segmenters.bisenet import BiSeNet
from skinbatch.models.stages import ClassifierStage, DetectorStage, SegmenterStage
from skinbatch.models.weights import save_weights

SEGMENTER_CLASSES = ("background", "skin", "nose")
CLASSIFIER = ClassifierSpec("mobilenetv3_small_050", ("rosacea", "lupus_erythematosus"), size=64)
DETECTOR = DetectorSpec("yolox-tiny", ("acne",), size=128, strides=(8, 16), head_channels=32)


def seeded(build: type[nn.Module] | object, *args: object) -> nn.Module:
    """Return a network whose weights are the same in every test."""
    torch.manual_seed(7)
    network = build(*args)  # type: ignore[operator]
    assert isinstance(network, nn.Module)
    return network.eval()


# The classifiers of the papers that are networks of timm.
TIMM_NETWORKS = sorted(n for n, entry in ARCHITECTURES["classifier"].items() if entry.timm_name)
# Input sizes at which every architecture is quick and still has something to classify.
CLASSIFIER_SIZES = dict.fromkeys(TIMM_NETWORKS, 64) | dict.fromkeys(
    ("inception_v3", "inception_resnet_v2", PLAIN_CNN), 96
)


def classifier_defaults(arch: str, backbone: str | None = None) -> dict[str, Any]:
    """Return the fields of a classifier's stage that go with its architecture."""
    return defaults_of(ARCHITECTURES["classifier"][arch], backbone)


def segmenter_weights(
    arch: str, classes: int = 3, *, spatial: Literal["path", "context"] = "path"
) -> dict[str, Tensor]:
    """Return random weights of `bisenet-r18`, `-r34` or `-light`, as in a user's checkpoint.

    They fit any size that is a multiple of 32.
    """
    torch.manual_seed(7)
    return dict(BiSeNet(arch, classes, spatial=spatial).state_dict())


def classifier_weights(
    arch: str,
    outputs: int = 2,
    *,
    backbone: str | None = None,
    top: str | None = None,
    size: int | None = None,
) -> dict[str, Tensor]:
    """Return random weights of any classifier but `onnx`, under their names in a pack.

    top: the architecture's own unless given. size: from CLASSIFIER_SIZES unless given; it decides
    the shapes of a flattened top and of the plain CNN.
    """
    torch.manual_seed(7)
    known = classifier_defaults(arch, backbone)
    spec = ClassifierSpec(
        network_name(arch, backbone),
        tuple(f"class_{i}" for i in range(outputs)),
        size=size or CLASSIFIER_SIZES.get(arch, 64),
        top=top or known["top"],  # type: ignore[arg-type]
    )
    return dict(build_network(spec).state_dict())


def random_detector_state(
    arch: str, classes: tuple[str, ...] = ("acne",), **fields: Any
) -> dict[str, Tensor]:
    """Return weights of any mmdet detector that give many boxes, different ones for different
    photos.

    fields: of DetectorSpec. Without this, deep networks give nearly the same output for every
    photo, or only background. So the batch norms have seen noise, and every layer of a head gives
    numbers of variance 1.
    """
    torch.manual_seed(7)
    model = build_model(DetectorSpec(arch, classes, **fields))
    coarse = [
        torch.randn(1, 3, 192 // n, 192 // n).repeat_interleave(n, 2).repeat_interleave(n, 3)
        for n in (1, 4, 8, 32)
    ]
    noise = torch.cat(coarse) * torch.tensor([1.0, 1.2, 1.5, 1.2]).view(4, 1, 1, 1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    heads = [
        module for module in model.modules() if callable(getattr(module, "predict_by_feat", None))
    ]
    layers = {m for head in heads for m in head.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for layer in layers:
        layer.register_forward_hook(_to_variance_one)
    with torch.no_grad():
        model.train().extract_feat(noise)
        from mmdet.structures import DetDataSample

        model.eval().predict(
            noise, [DetDataSample(metainfo=metainfo((192, 192), (192, 192))) for _ in noise]
        )
    return {name: value.clone() for name, value in model.state_dict().items()}


def _to_variance_one(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
    """Return a hook that scales a layer's weights by the variance of its first output."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if hasattr(layer, "was_called"):
        return outputs
    layer.register_buffer("was_called", None)
    if layer.bias is not None:
        outputs = outputs - (
            layer.bias if isinstance(layer, nn.Linear) else layer.bias[:, None, None]
        )
        layer.bias.zero_()
    scale = outputs.std()
    layer.weight.div_(scale)
    return outputs / scale


def write_random_pack(directory: Path) -> Path:
    """Write a pack of real architectures that have learned nothing."""
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
        segmenter=SegmenterStage(
            arch="bisenet-light", classes=SEGMENTER_CLASSES, size=64, sha256=hashes["segmenter"]
        ),
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


def green_cue_weights(spec: ClassifierSpec) -> dict[str, torch.Tensor]:
    """Return hand-set weights of the plain CNN: its first class is the amount of pure green, the
    others are nothing."""
    network = build_network(spec)
    weights = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for name in weights:
        if name.endswith(("bn.weight", "bn.running_var")):
            weights[name] += 1
    weights["block1.conv.weight"][0, :, 2, 2] = torch.tensor([-1.0, 1.0, -1.0])
    weights["block1.conv.bias"][0] = -0.3  # dark pixels are not green
    for block in (2, 3, 4):
        weights[f"block{block}.conv.weight"][0, 0, 2, 2] = 1
    weights["fc1.weight"][0, ::64] = 1
    weights["fc2.weight"][0, 0] = weights["out.weight"][0, 0] = 1
    return weights
