"""Test how training starts: weights as far as they fit, a frozen backbone, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from skinbatch.errors import UsageError
from skinbatch.models.classifiers.classifier import ClassifierSpec, build_network
from skinbatch.models.segmenters.bisenet import BiSeNet
from skinbatch.models.weights import read_weights, save_weights
from skinbatch.train.fitting.start import freeze_backbone, read_start, start_from


def classifier(*classes: str, top: str = "pooled") -> nn.Module:
    spec = ClassifierSpec("regnety_002", classes, size=64, top=top)  # type: ignore[arg-type]
    return build_network(spec)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_all_layers_but_the_last_are_taken_from_a_network_of_other_classes() -> None:
    body, face = classifier("a", "b"), classifier("a", "b", "c")
    said = start_from(face, state_of(body), "the training `body`")
    assert "new: head.out.weight, head.out.bias" in said
    own, given = face.state_dict(), body.state_dict()
    same = {
        name
        for name in own
        if own[name].shape == given[name].shape and torch.equal(own[name], given[name])
    }
    assert {name for name in own if not name.endswith("num_batches_tracked")} - same == {
        "head.out.weight",
        "head.out.bias",
    }


def test_a_backbone_alone_finds_its_place() -> None:
    whole, other = classifier("a"), classifier("a")
    backbone = {
        n.removeprefix("backbone."): v
        for n, v in state_of(other).items()
        if n.startswith("backbone.")
    }
    start_from(whole, backbone, "timm's file")
    assert torch.equal(
        whole.state_dict()["backbone.stem.conv.weight"], backbone["stem.conv.weight"]
    )


def test_imagenet_weights_of_a_resnet_start_a_bisenet() -> None:
    from torchvision.models import resnet18

    given = resnet18(weights=None).state_dict()
    network = BiSeNet("bisenet-r18", 3)
    start_from(network, given, "resnet18.pth")
    assert torch.equal(
        network.state_dict()["cp.resnet.layer4.1.conv2.weight"], given["layer4.1.conv2.weight"]
    )


def test_weights_of_another_architecture_are_refused_by_name() -> None:
    with pytest.raises(
        UsageError,
        match=r"mine.pth: 0 of its .* set `model.weights` to weights of the same architecture",
    ):
        start_from(classifier("a"), state_of(BiSeNet("bisenet-light", 3)), "mine.pth")


def test_a_weights_file_is_read_whatever_precision_it_has(tmp_path: Path) -> None:
    from skinbatch.models.stages import ClassifierStage
    from skinbatch.train.recipe import UNHASHED

    save_weights(classifier("a"), tmp_path / "half.safetensors")
    stage = ClassifierStage(arch="timm", backbone="regnety_002", classes=("a",), sha256=UNHASHED)
    network = classifier("a")
    start_from(network, read_start(tmp_path / "half.safetensors", stage), "half")
    kept = read_weights(tmp_path / "half.safetensors")
    assert torch.equal(network.state_dict()["head.out.weight"], kept["head.out.weight"])


@pytest.mark.parametrize(
    ("network", "trained"),
    [
        (classifier("a"), "head."),
        (classifier("a", top="native"), "head.fc."),
    ],
)
def test_a_frozen_backbone_leaves_only_what_is_above_it(network: nn.Module, trained: str) -> None:
    freeze_backbone(network, "recipe.toml")
    left = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert left
    assert all(name.startswith(trained) for name in left)


def test_a_frozen_segmenter_keeps_its_resnet_alone() -> None:
    network = BiSeNet("bisenet-light", 3)
    freeze_backbone(network, "recipe.toml")
    kept = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert kept == {name for name, _ in network.named_parameters() if name.startswith("cp.resnet.")}


def test_a_network_without_a_backbone_cannot_be_frozen() -> None:
    plain = build_network(ClassifierSpec("cnn-multilabel", ("a",), size=96))
    with pytest.raises(
        UsageError, match=r"recipe.toml: setting `model.freeze`: this architecture has no backbone"
    ):
        freeze_backbone(plain, "recipe.toml")
