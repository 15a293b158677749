"""Test checkpoints of zllrunning/face-parsing.PyTorch: their layers, their forward pass, their order of classes."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from skinbatch.config import ModelSettings
from skinbatch.errors import PackError
from skinbatch.grading.face import find_face
from skinbatch.models.architectures import ARCHITECTURES
from skinbatch.models.build import build_segmenter
from skinbatch.models.families import defaults_of
from skinbatch.models.protocols import Segmenter
from skinbatch.models.segmenters.bisenet import AUXILIARY, BiSeNet
from skinbatch.models.segmenters.face_parsing import (
    CELEBAMASK_HQ,
    CLASS_ORDERS,
    FACE_PARSING,
    outputs,
    recognise,
)
from skinbatch.models.stages import SegmenterStage

# Every convolution of `79999_iter.pth` and the shape of its weight. None has a bias.
CONVOLUTIONS = {
    "cp.resnet.conv1": (64, 3, 7, 7),
    "cp.resnet.layer1.0.conv1": (64, 64, 3, 3),
    "cp.resnet.layer1.0.conv2": (64, 64, 3, 3),
    "cp.resnet.layer1.1.conv1": (64, 64, 3, 3),
    "cp.resnet.layer1.1.conv2": (64, 64, 3, 3),
    "cp.resnet.layer2.0.conv1": (128, 64, 3, 3),
    "cp.resnet.layer2.0.conv2": (128, 128, 3, 3),
    "cp.resnet.layer2.0.downsample.0": (128, 64, 1, 1),
    "cp.resnet.layer2.1.conv1": (128, 128, 3, 3),
    "cp.resnet.layer2.1.conv2": (128, 128, 3, 3),
    "cp.resnet.layer3.0.conv1": (256, 128, 3, 3),
    "cp.resnet.layer3.0.conv2": (256, 256, 3, 3),
    "cp.resnet.layer3.0.downsample.0": (256, 128, 1, 1),
    "cp.resnet.layer3.1.conv1": (256, 256, 3, 3),
    "cp.resnet.layer3.1.conv2": (256, 256, 3, 3),
    "cp.resnet.layer4.0.conv1": (512, 256, 3, 3),
    "cp.resnet.layer4.0.conv2": (512, 512, 3, 3),
    "cp.resnet.layer4.0.downsample.0": (512, 256, 1, 1),
    "cp.resnet.layer4.1.conv1": (512, 512, 3, 3),
    "cp.resnet.layer4.1.conv2": (512, 512, 3, 3),
    "cp.arm16.conv.conv": (128, 256, 3, 3),
    "cp.arm16.conv_atten": (128, 128, 1, 1),
    "cp.arm32.conv.conv": (128, 512, 3, 3),
    "cp.arm32.conv_atten": (128, 128, 1, 1),
    "cp.conv_head32.conv": (128, 128, 3, 3),
    "cp.conv_head16.conv": (128, 128, 3, 3),
    "cp.conv_avg.conv": (128, 512, 1, 1),
    "ffm.convblk.conv": (256, 256, 1, 1),
    "ffm.conv1": (64, 256, 1, 1),
    "ffm.conv2": (256, 64, 1, 1),
    "conv_out.conv.conv": (256, 256, 3, 3),
    "conv_out.conv_out": (19, 256, 1, 1),
    "conv_out16.conv.conv": (64, 128, 3, 3),
    "conv_out16.conv_out": (19, 64, 1, 1),
    "conv_out32.conv.conv": (64, 128, 3, 3),
    "conv_out32.conv_out": (19, 64, 1, 1),
}

# Every batch norm and its channels: weight, bias, running_mean, running_var and a counter.
NORMS = {
    "cp.resnet.bn1": 64,
    "cp.resnet.layer1.0.bn1": 64,
    "cp.resnet.layer1.0.bn2": 64,
    "cp.resnet.layer1.1.bn1": 64,
    "cp.resnet.layer1.1.bn2": 64,
    "cp.resnet.layer2.0.bn1": 128,
    "cp.resnet.layer2.0.bn2": 128,
    "cp.resnet.layer2.0.downsample.1": 128,
    "cp.resnet.layer2.1.bn1": 128,
    "cp.resnet.layer2.1.bn2": 128,
    "cp.resnet.layer3.0.bn1": 256,
    "cp.resnet.layer3.0.bn2": 256,
    "cp.resnet.layer3.0.downsample.1": 256,
    "cp.resnet.layer3.1.bn1": 256,
    "cp.resnet.layer3.1.bn2": 256,
    "cp.resnet.layer4.0.bn1": 512,
    "cp.resnet.layer4.0.bn2": 512,
    "cp.resnet.layer4.0.downsample.1": 512,
    "cp.resnet.layer4.1.bn1": 512,
    "cp.resnet.layer4.1.bn2": 512,
    "cp.arm16.conv.bn": 128,
    "cp.arm16.bn_atten": 128,
    "cp.arm32.conv.bn": 128,
    "cp.arm32.bn_atten": 128,
    "cp.conv_head32.bn": 128,
    "cp.conv_head16.bn": 128,
    "cp.conv_avg.bn": 128,
    "ffm.convblk.bn": 256,
    "conv_out.conv.bn": 256,
    "conv_out16.conv.bn": 64,
    "conv_out32.conv.bn": 64,
}


def checkpoint(classes: int = 19) -> dict[str, Tensor]:
    """Return a state dict of the public layout: every layer of the tables, random with a seed."""
    torch.manual_seed(11)
    state: dict[str, Tensor] = {}
    for name, (out, *rest) in CONVOLUTIONS.items():
        shape = (classes if name.endswith("conv_out") else out, *rest)
        state[f"{name}.weight"] = torch.randn(shape) * (2 / math.prod(rest)) ** 0.5
    for name, channels in NORMS.items():
        state[f"{name}.weight"] = 0.5 + torch.rand(channels)
        state[f"{name}.bias"] = 0.2 * torch.randn(channels)
        state[f"{name}.running_mean"] = 0.2 * torch.randn(channels)
        state[f"{name}.running_var"] = 0.5 + torch.rand(channels)
        state[f"{name}.num_batches_tracked"] = torch.tensor(80000)
    return state


class Published:
    """Run the forward pass as the repository writes it, with torch's functions over a state dict."""

    def __init__(self, state: dict[str, Tensor], blocks: tuple[int, ...] = (2, 2, 2, 2)) -> None:
        self.state = state
        self.blocks = blocks

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return full-size logits of the output and of both auxiliary heads."""
        feat8, feat16, feat32 = self.resnet(x)
        average = F.adaptive_avg_pool2d(feat32, 1)
        average = self.conv_bn_relu("cp.conv_avg", average, padding=0)
        average_up = F.interpolate(average, feat32.shape[2:], mode="nearest")
        sum32 = self.refine("cp.arm32", feat32) + average_up
        up32 = self.conv_bn_relu(
            "cp.conv_head32", F.interpolate(sum32, feat16.shape[2:], mode="nearest")
        )
        sum16 = self.refine("cp.arm16", feat16) + up32
        up16 = self.conv_bn_relu(
            "cp.conv_head16", F.interpolate(sum16, feat8.shape[2:], mode="nearest")
        )
        fused = self.fuse(feat8, up16)
        heads = [("conv_out", fused), ("conv_out16", up16), ("conv_out32", up32)]
        small = [
            self.conv(f"{name}.conv_out", self.conv_bn_relu(f"{name}.conv", feature))
            for name, feature in heads
        ]
        return [
            F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=True)
            for logits in small
        ]

    def resnet(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self.bn("cp.resnet.bn1", self.conv("cp.resnet.conv1", x, stride=2, padding=3)))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        features = []
        for layer, count in enumerate(self.blocks, start=1):
            for block in range(count):
                name = f"cp.resnet.layer{layer}.{block}"
                stride = 2 if layer > 1 and block == 0 else 1
                inner = F.relu(
                    self.bn(f"{name}.bn1", self.conv(f"{name}.conv1", x, stride=stride, padding=1))
                )
                inner = self.bn(f"{name}.bn2", self.conv(f"{name}.conv2", inner, padding=1))
                if stride == 2:
                    x = self.bn(
                        f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride=2)
                    )
                x = F.relu(x + inner)
            features.append(x)
        return features[1:]

    def refine(self, name: str, x: Tensor) -> Tensor:
        feature = self.conv_bn_relu(f"{name}.conv", x)
        attention = self.conv(f"{name}.conv_atten", F.adaptive_avg_pool2d(feature, 1))
        return torch.mul(feature, torch.sigmoid(self.bn(f"{name}.bn_atten", attention)))

    def fuse(self, fine: Tensor, context: Tensor) -> Tensor:
        feature = self.conv_bn_relu("ffm.convblk", torch.cat([fine, context], dim=1), padding=0)
        attention = F.relu(self.conv("ffm.conv1", F.adaptive_avg_pool2d(feature, 1)))
        attention = torch.sigmoid(self.conv("ffm.conv2", attention))
        return torch.mul(feature, attention) + feature

    def conv_bn_relu(self, name: str, x: Tensor, padding: int = 1) -> Tensor:
        return F.relu(self.bn(f"{name}.bn", self.conv(f"{name}.conv", x, padding=padding)))

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], stride=stride, padding=padding)

    def bn(self, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)


def imported(
    state: dict[str, Tensor], directory: Path, arch: str = "bisenet-r18", **fields: object
) -> Segmenter:
    """Do what an import does: recognise the layout, write the weights, build the stage."""
    path = directory / "segmenter.safetensors"
    save_file(state, path)
    known = (
        {"arch": arch, "sha256": "0" * 64}
        | defaults_of(ARCHITECTURES["segmenter"][arch])
        | recognise(state)
        | fields
    )
    return build_segmenter(SegmenterStage.model_validate(known), path, "cpu", ModelSettings())


def photo(height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    blurred = cv2.resize(
        rng.integers(0, 256, (9, 9, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray(blurred, np.uint8)


def test_the_published_layers_and_no_others_are_those_of_the_network() -> None:
    ours = {
        name: tuple(t.shape)
        for name, t in BiSeNet("bisenet-r18", 19, spatial="context").state_dict().items()
    }
    assert {name: tuple(t.shape) for name, t in checkpoint().items()} == ours


@torch.inference_mode()
def test_logits_are_those_of_the_published_forward_pass() -> None:
    state = checkpoint()
    network = BiSeNet("bisenet-r18", 19, spatial="context", align_corners=True)
    network.load_state_dict(state)
    x = torch.randn(2, 3, 96, 64)
    expected = Published(state)(x)
    torch.testing.assert_close(network.eval()(x), expected[0], rtol=1e-4, atol=1e-4)
    assert expected[0].std() > 0.1


@torch.inference_mode()
def test_resnet34_takes_the_same_layout_with_more_blocks() -> None:
    torch.manual_seed(3)
    network = BiSeNet("bisenet-r34", 19, spatial="context", align_corners=True).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = Published(dict(network.state_dict()), blocks=(3, 4, 6, 3))(x)
    torch.testing.assert_close(network(x), expected[0], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_an_imported_checkpoint_masks_as_the_published_code_does(tmp_path: Path) -> None:
    state = checkpoint()
    segmenter = imported(state, tmp_path)
    assert segmenter.classes == FACE_PARSING
    picture = photo(512, 512)
    (labels,) = segmenter([picture])
    normal = (
        torch.from_numpy(picture).float() / 255 - torch.tensor([0.485, 0.456, 0.406])
    ) / torch.tensor([0.229, 0.224, 0.225])
    expected = Published(state)(normal.permute(2, 0, 1)[None])[0][0].argmax(0).numpy()
    assert labels.shape == (512, 512)
    assert np.mean(labels == expected) > 0.9999
    assert len(np.unique(labels)) > 3


def test_the_auxiliary_heads_of_a_checkpoint_make_no_difference(tmp_path: Path) -> None:
    state = checkpoint()
    without = {name: value for name, value in state.items() if not name.startswith(AUXILIARY)}
    assert len(without) < len(state)
    (tmp_path / "without").mkdir()
    one, other = (
        imported(state, tmp_path, size=64),
        imported(without, tmp_path / "without", size=64),
    )
    np.testing.assert_array_equal(one([photo(50, 64)])[0], other([photo(50, 64)])[0])


def test_nineteen_classes_without_a_spatial_path_are_in_the_order_of_that_checkpoint() -> None:
    assert recognise(checkpoint()) == {
        "spatial": "context",
        "align_corners": True,
        "size": 512,
        "classes": FACE_PARSING,
    }


def test_names_are_not_guessed_for_other_numbers_of_classes() -> None:
    state = checkpoint(classes=3)
    assert "classes" not in recognise(state)
    assert outputs(state) == 3


def test_three_named_classes_are_imported_too(tmp_path: Path) -> None:
    segmenter = imported(
        checkpoint(classes=3), tmp_path, classes=("background", "skin", "nose"), size=64
    )
    assert segmenter([photo(64, 40)])[0].max() < 3


@pytest.mark.parametrize("arch", ["bisenet-r18", "bisenet-r34", "bisenet-light"])
def test_a_network_with_a_spatial_path_is_known_by_it(arch: str) -> None:
    assert recognise(BiSeNet(arch, 19).state_dict()) == {"spatial": "path"}


def test_a_light_network_without_a_spatial_path_is_not_taken_for_the_public_checkpoint() -> None:
    assert recognise(BiSeNet("bisenet-light", 19, spatial="context").state_dict()) == {
        "spatial": "context"
    }


def test_another_number_of_classes_than_named_is_refused_with_the_layer(tmp_path: Path) -> None:
    with pytest.raises(
        PackError,
        match=r"layer `conv_out\.conv_out\.weight` is \(19, 256, 1, 1\).* \(3, 256, 1, 1\)",
    ):
        imported(checkpoint(), tmp_path, classes=("background", "skin", "nose"))


def test_weights_of_the_deeper_network_are_refused_with_the_layer(tmp_path: Path) -> None:
    state = dict(BiSeNet("bisenet-r34", 19, spatial="context").state_dict())
    with pytest.raises(PackError, match=r"unexpected layer `cp\.resnet\.layer1\.2\."):
        imported(state, tmp_path)


def test_both_orders_name_the_same_classes_and_the_nose_is_elsewhere() -> None:
    assert set(CELEBAMASK_HQ) == set(FACE_PARSING) and len(set(CELEBAMASK_HQ)) == 19
    assert (CELEBAMASK_HQ.index("nose"), FACE_PARSING.index("nose")) == (2, 10)
    assert CLASS_ORDERS == {"celebamask-hq": CELEBAMASK_HQ, "face-parsing": FACE_PARSING}


@pytest.mark.parametrize("order", sorted(CLASS_ORDERS))
def test_skin_and_nose_are_the_affectable_skin_in_either_order(order: str) -> None:
    classes = CLASS_ORDERS[order]
    labels = np.full((40, 40), classes.index("hair"), np.uint8)
    labels[5:35, 5:35] = classes.index("skin")
    labels[10:13, 10:30] = classes.index("left_eye")
    labels[18:24, 17:23] = classes.index("nose")
    face = find_face(labels, classes, 80, 80)
    assert face.skin_fraction == pytest.approx((30 * 30 - 3 * 20) / 1600)
    assert face.nose == pytest.approx((40, 42))
