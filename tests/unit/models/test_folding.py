"""Test that batch norms are folded where nothing but rounding changes, and only there."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from skinbatch.models.detectors.mmdet.detector import MMDetDetector
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.folding import as_built, example, fold_batch_norms
from skinbatch.models.segmenters.bisenet import BiSeNet
from skinbatch.models.segmenters.segmenter import BiSeNetSegmenter
from tests.unit.models.support import random_detector_state, segmenter_weights


def lived(network: nn.Module) -> nn.Module:
    """Return a network with statistics and scales that differ from those of a new one."""
    torch.manual_seed(11)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.2)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "regnety_002", "resnet18", "tf_efficientnet_b0", "xception"]
)
def test_networks_of_timm_give_the_same_numbers_without_their_norms(name: str) -> None:
    network = lived(timm.create_model(name, pretrained=False, num_classes=3))
    plain = copy.deepcopy(network)
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(5))
    folded = fold_batch_norms(network, lambda: network(example(64, 64)))
    assert folded == norms(plain)
    assert norms(network) == 0
    with torch.inference_mode():
        wrong = (network(x) - plain(x)).abs().max()
        assert wrong <= 1e-5 * plain(x).abs().max()
        assert (plain(x) - plain(x.flip(3))).abs().max() > 10 * wrong, (
            "it would say the same of everything"
        )


def test_bisenet_gives_the_same_numbers_without_its_norms() -> None:
    network = lived(BiSeNet("bisenet-light", 3, auxiliary=False))
    plain = copy.deepcopy(network)
    assert isinstance(plain, BiSeNet)
    fold_batch_norms(network, lambda: network(example(64, 64)))
    assert norms(network) == 0
    x = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), plain(x), rtol=1e-3, atol=1e-4)


class Odd(nn.Module):
    """Use a convolution whose output goes two ways, one that runs twice with two norms, and a norm
    with none before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.second, self.one, self.other = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.alone = nn.BatchNorm2d(4)
        self.last, self.last_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twoway = False

    def forward(self, x: Tensor) -> Tensor:
        made = self.first(x)
        normed = self.first_norm(made)
        if self.twoway:
            normed = normed + made
        both = self.one(self.second(normed)) + self.other(self.second(normed.relu()))
        out: Tensor = self.last_norm(self.last(self.alone(both)))
        return out


def test_a_norm_is_kept_where_the_convolution_is_not_its_alone() -> None:
    network = lived(Odd())
    kept: Any = network
    assert fold_batch_norms(network, lambda: network(example(8, 8))) == 2
    assert isinstance(kept.first_norm, nn.Identity) and isinstance(kept.last_norm, nn.Identity)
    assert all(isinstance(norm, nn.BatchNorm2d) for norm in (kept.one, kept.other, kept.alone))


def test_a_network_whose_numbers_would_change_stays_as_it_is() -> None:
    network = lived(Odd())
    network.twoway = True  # type: ignore[assignment]
    before = copy.deepcopy(network)
    assert fold_batch_norms(network, lambda: network(example(8, 8))) == 0
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(network(x), before(x), rtol=0, atol=0)


class InPlace(nn.Module):
    """Use layers between a convolution and its norm that change the tensor in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x).relu_())
        return out


class Looking(nn.Module):
    """Ask the norm for an attribute that only a norm has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)) + self.norm.bias.sum()
        return out


def test_what_is_changed_in_place_before_its_norm_is_not_folded() -> None:
    network = InPlace()
    with torch.no_grad():
        assert isinstance(network.conv.bias, nn.Parameter)
        network.conv.bias.fill_(3.0)  # so high that the example meets no negative number
    lived(network)
    assert fold_batch_norms(network, lambda: network(example(8, 8))) == 0
    assert norms(network) == 1


def test_a_network_that_does_not_run_without_its_norms_has_them_back() -> None:
    network = lived(Looking())
    before = copy.deepcopy(network)
    assert fold_batch_norms(network, lambda: network(example(8, 8))) == 0
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(network(x), before(x), rtol=0, atol=0)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_say_nothing_fold_nothing(number: float) -> None:
    network = lived(Odd())
    assert (
        fold_batch_norms(network, lambda: [network(example(8, 8)), torch.tensor([1.0, number])])
        == 0
    )


def test_a_network_that_cannot_run_the_example_stays_as_it_is() -> None:
    network = lived(Odd())
    assert fold_batch_norms(network, lambda: network(torch.zeros(1, 5, 8, 8))) == 0
    assert norms(network) == 5


def test_models_are_folded_unless_they_are_wanted_as_they_are_built() -> None:
    weights = segmenter_weights("bisenet-light")
    assert (
        norms(
            BiSeNetSegmenter(
                "bisenet-light", ("background", "skin", "nose"), weights, size=64
            ).network
        )
        == 0
    )
    spec = DetectorSpec("yolox-tiny", ("acne",), size=128)
    state = random_detector_state("yolox-tiny", ("acne",), size=128)
    assert norms(MMDetDetector(spec, state).model) == 0
    with as_built():
        assert norms(MMDetDetector(spec, state).model) > 50
    assert norms(MMDetDetector(spec, state).model) == 0
