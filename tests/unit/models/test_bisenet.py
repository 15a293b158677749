"""BiSeNet and the segmenter on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skinbatch.errors import ModelOutputError
from skinbatch.models.bisenet import BiSeNet
from skinbatch.models.preprocess import pad_to_square
from skinbatch.models.segmenter import BiSeNetSegmenter

from .support import SEGMENTER_CLASSES, seeded


@pytest.mark.parametrize("arch", ["bisenet-light", "bisenet-r18"])
@pytest.mark.parametrize("classes", [3, 19])
def test_every_pixel_gets_one_logit_a_class(arch: str, classes: int) -> None:
    network = seeded(BiSeNet, arch, classes)
    assert network(torch.zeros(2, 3, 64, 96)).shape == (2, classes, 64, 96)


def test_training_gives_the_two_auxiliary_outputs_as_well_and_every_layer_a_gradient() -> None:
    network = seeded(BiSeNet, "bisenet-light", 3).train()
    outputs = network(torch.rand(2, 3, 64, 64))
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 64, 64)] * 3
    torch.stack([o.square().mean() for o in outputs]).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_light_network_has_about_a_million_parameters() -> None:
    assert 0.7e6 < sum(p.numel() for p in BiSeNet("bisenet-light", 3).parameters()) < 1.2e6


def segmenter(weights: dict[str, torch.Tensor] | None = None, size: int = 64) -> BiSeNetSegmenter:
    weights = weights or seeded(BiSeNet, "bisenet-light", 3).state_dict()
    return BiSeNetSegmenter("bisenet-light", SEGMENTER_CLASSES, weights, size=size)


@pytest.mark.parametrize(
    ("photo", "labels"), [((200, 100), (64, 32)), ((30, 60), (32, 64)), ((64, 64), (64, 64)), ((1000, 3), (64, 1))]
)
def test_the_label_map_has_the_proportions_of_the_photo_and_no_padding(
    photo: tuple[int, int], labels: tuple[int, int]
) -> None:
    (found,) = segmenter()([np.zeros((*photo, 3), np.uint8)])
    assert found.shape == labels
    assert found.dtype == np.uint8


def test_the_same_labels_at_twice_the_size_of_a_photo() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (64, 48, 3), np.uint8)
    large = small.repeat(2, 0).repeat(2, 1)
    one, two = segmenter()([small, large])
    np.testing.assert_array_equal(one, two)


def test_nan_logits_are_an_error_not_a_mask() -> None:
    weights = dict(seeded(BiSeNet, "bisenet-light", 3).state_dict())
    weights["conv_out.conv_out.weight"] = torch.full_like(weights["conv_out.conv_out.weight"], float("nan"))
    with pytest.raises(ModelOutputError, match="segmenter `bisenet-light` gave NaN"):
        segmenter(weights)([np.zeros((10, 10, 3), np.uint8)])


def test_padding_is_right_and_below_and_of_one_colour() -> None:
    square, extent = pad_to_square(np.full((10, 20, 3), 200, np.uint8), 40, (1, 2, 3))
    assert extent == (20, 40)
    assert (square[:20] == 200).all()
    assert (square[20:] == (1, 2, 3)).all()
