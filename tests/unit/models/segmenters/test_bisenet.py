"""Test BiSeNet and the segmenter on it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest
import torch

from skinbatch.errors import ModelOutputError
from skinbatch.models.preprocess import pad_to_square
from skinbatch.models.segmenters.bisenet import AUXILIARY, BiSeNet
from skinbatch.models.segmenters.segmenter import BiSeNetSegmenter
from tests.unit.models.support import SEGMENTER_CLASSES, seeded


@pytest.mark.parametrize("arch", ["bisenet-light", "bisenet-r18", "bisenet-r34"])
@pytest.mark.parametrize("classes", [3, 19])
@pytest.mark.parametrize("spatial", ["path", "context"])
def test_every_pixel_gets_one_logit_a_class(
    arch: str, classes: int, spatial: Literal["path", "context"]
) -> None:
    network = BiSeNet(arch, classes, spatial=spatial).eval()
    assert network(torch.zeros(2, 3, 64, 96)).shape == (2, classes, 64, 96)


@pytest.mark.parametrize(
    ("arch", "blocks"), [("bisenet-r18", (2, 2, 2, 2)), ("bisenet-r34", (3, 4, 6, 3))]
)
def test_the_context_path_is_as_deep_as_its_name_says(arch: str, blocks: tuple[int, ...]) -> None:
    resnet = BiSeNet(arch, 3).cp.resnet
    assert tuple(len(getattr(resnet, f"layer{i}")) for i in (1, 2, 3, 4)) == blocks


def test_aligned_corners_move_the_logits_and_nothing_else() -> None:
    plain = seeded(BiSeNet, "bisenet-light", 3)
    aligned = BiSeNet("bisenet-light", 3, align_corners=True).eval()
    aligned.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        one, other = plain(x), aligned(x)
    assert not torch.equal(one, other)
    # With aligned corners, the corners are those of the small map. No value lies outside the range
    # of those that are interpolated.
    small = torch.nn.functional.interpolate(other, (8, 8), mode="bilinear", align_corners=True)
    again = torch.nn.functional.interpolate(small, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(one, again, rtol=1e-3, atol=1e-4)


def test_training_gives_the_two_auxiliary_outputs_as_well_and_every_layer_a_gradient() -> None:
    network = seeded(BiSeNet, "bisenet-light", 3).train()
    outputs = network(torch.rand(2, 3, 64, 64))
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 64, 64)] * 3
    torch.stack([o.square().mean() for o in outputs]).sum().backward()
    assert [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def test_the_light_network_has_about_a_million_parameters() -> None:
    assert 0.7e6 < sum(p.numel() for p in BiSeNet("bisenet-light", 3).parameters()) < 1.2e6


def segmenter(weights: dict[str, torch.Tensor] | None = None, size: int = 64) -> BiSeNetSegmenter:
    weights = weights or seeded(BiSeNet, "bisenet-light", 3).state_dict()
    return BiSeNetSegmenter("bisenet-light", SEGMENTER_CLASSES, weights, size=size)


@pytest.mark.parametrize(
    ("photo", "labels"),
    [((200, 100), (64, 32)), ((30, 60), (32, 64)), ((64, 64), (64, 64)), ((1000, 3), (64, 1))],
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
    weights["conv_out.conv_out.weight"] = torch.full_like(
        weights["conv_out.conv_out.weight"], float("nan")
    )
    with pytest.raises(ModelOutputError, match="segmenter `bisenet-light` gave NaN"):
        segmenter(weights)([np.zeros((10, 10, 3), np.uint8)])


def test_the_auxiliary_heads_are_not_built_for_masks() -> None:
    assert not [
        name for name, _ in segmenter().network.named_parameters() if name.startswith(AUXILIARY)
    ]


def test_threads_may_share_a_segmenter() -> None:
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (40 + 7 * i, 90 - 5 * i, 3), np.uint8) for i in range(12)]
    shared = segmenter()
    alone = [shared([photo])[0] for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda photo: shared([photo])[0], photos * 3))
    for one, other in zip(alone * 3, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_padding_is_right_and_below_and_of_one_colour() -> None:
    square, extent = pad_to_square(np.full((10, 20, 3), 200, np.uint8), 40, (1, 2, 3))
    assert extent == (20, 40)
    assert (square[:20] == 200).all()
    assert (square[20:] == (1, 2, 3)).all()
