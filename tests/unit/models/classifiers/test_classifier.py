"""Test the classifier: the paper's head on any backbone, logistic outputs, and photos that are never distorted."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest
import timm
import torch

from skinbatch.errors import PackError
from skinbatch.models.classifiers.classifier import (
    ClassifierNetwork,
    ClassifierSpec,
    TorchClassifier,
    build_network,
)
from skinbatch.models.classifiers.classifier_heads import PooledHead
from skinbatch.models.preprocess import centre_square
from skinbatch.models.stages import CalibrationTable
from tests.unit.models.support import CLASSIFIER, seeded


def classifier(spec: ClassifierSpec = CLASSIFIER) -> TorchClassifier:
    return TorchClassifier(spec, seeded(ClassifierNetwork, spec).state_dict())


def test_the_head_is_a_1x1_convolution_pooling_1024_and_the_outputs() -> None:
    head = PooledHead(96, 6)
    assert head.conv.kernel_size == (1, 1)
    assert head.fc.out_features == head.out.in_features == 1024
    assert head.out.out_features == 6
    assert head.eval()(torch.zeros(2, 96, 5, 7)).shape == (2, 6)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "regnety_002", "resnet18"])
def test_any_backbone_of_timm_fits_the_head(backbone: str) -> None:
    network = seeded(ClassifierNetwork, dataclasses.replace(CLASSIFIER, backbone=backbone))
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


def test_outputs_are_logistic_each_class_for_itself() -> None:
    spec = CLASSIFIER
    weights = seeded(ClassifierNetwork, spec).state_dict()
    weights["head.out.weight"] = torch.zeros_like(weights["head.out.weight"])
    weights["head.out.bias"] = torch.tensor([0.0, np.log(9.0)])
    probs = TorchClassifier(spec, weights)([np.zeros((50, 50, 3), np.uint8)])
    np.testing.assert_allclose(probs, [[0.5, 0.9]], atol=1e-6)


def test_a_calibration_moves_the_logits_before_they_become_probabilities() -> None:
    weights = seeded(ClassifierNetwork, CLASSIFIER).state_dict()
    weights["head.out.weight"] = torch.zeros_like(weights["head.out.weight"])
    weights["head.out.bias"] = torch.tensor([0.0, 4.0])
    table = CalibrationTable(scale=0.25, shift=(float(np.log(9.0)), -1.0))
    spec = dataclasses.replace(CLASSIFIER, calibration=table)
    found = TorchClassifier(spec, weights)([np.zeros((50, 50, 3), np.uint8)])
    np.testing.assert_allclose(found, [[0.9, 0.5]], atol=1e-6)


def test_softmax_makes_the_classes_share_one() -> None:
    weights = seeded(ClassifierNetwork, CLASSIFIER).state_dict()
    weights["head.out.weight"] = torch.zeros_like(weights["head.out.weight"])
    weights["head.out.bias"] = torch.tensor([0.0, np.log(3.0)])
    spec = dataclasses.replace(CLASSIFIER, outputs="softmax")
    np.testing.assert_allclose(
        TorchClassifier(spec, weights)([np.zeros((50, 50, 3), np.uint8)]), [[0.25, 0.75]], atol=1e-6
    )


def test_a_flattened_head_reads_every_place_of_the_feature_map() -> None:
    spec = dataclasses.replace(CLASSIFIER, top="flatten", size=96)
    network = ClassifierNetwork(spec).eval()
    feature = network.backbone.forward_features(torch.zeros(1, 3, 96, 96))
    assert feature.shape[2:] == (3, 3)
    assert set(network.head.state_dict()) == {"out.weight", "out.bias"}
    assert network.head.state_dict()["out.weight"].shape == (2, feature[0].numel())
    assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 2)


def test_weights_of_a_flattened_head_for_another_size_are_refused_with_the_layer() -> None:
    spec = dataclasses.replace(CLASSIFIER, top="flatten", size=96)
    weights = seeded(ClassifierNetwork, spec).state_dict()
    with pytest.raises(PackError, match=r"layer `head\.out\.weight` is"):
        TorchClassifier(dataclasses.replace(spec, size=64), weights)


def test_a_native_top_is_the_network_as_timm_makes_it() -> None:
    spec = dataclasses.replace(CLASSIFIER, backbone="resnet18", top="native")
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=2).eval()
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with torch.inference_mode():
        expected = theirs(spec.normalisation.tensor([photo])).sigmoid().numpy()
    np.testing.assert_allclose(
        TorchClassifier(spec, theirs.state_dict())([photo]), expected, atol=1e-5
    )


def test_another_number_of_classes_is_refused_with_the_layer() -> None:
    spec = dataclasses.replace(CLASSIFIER, backbone="resnet18", top="native")
    weights = timm.create_model("resnet18", num_classes=4).state_dict()
    with pytest.raises(PackError, match=r"layer `fc\.bias` is \(4,\), the architecture has \(2,\)"):
        TorchClassifier(spec, weights)


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("resnet1", 64, "has no backbone `resnet1`"),
        ("inception_v3", 32, "`inception_v3` does not read inputs of 32 px"),
        ("vit_tiny_patch16_224", 224, "has no feature map for top = 'pooled'; use 'native'"),
        ("swin_tiny_patch4_window7_224", 224, "has no feature map"),
        ("vit_tiny_patch16_224", 96, "does not read inputs of 96 px: Input height"),
    ],
)
def test_what_cannot_be_built_is_said(backbone: str, size: int, message: str) -> None:
    with pytest.raises(PackError, match=message):
        build_network(dataclasses.replace(CLASSIFIER, backbone=backbone, size=size))


@pytest.mark.parametrize("top", ["pooled", "flatten"])
@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("crossvit_9_240", 240),
        ("coat_tiny", 224),
        ("deit_tiny_distilled_patch16_224", 224),
        ("inception_next_atto", 224),
        ("efficientvit_b0", 224),
        ("efficientvim_m1", 224),
    ],
)
def test_a_network_that_insists_on_its_own_pooling_is_refused_by_name(
    backbone: str, size: int, top: Literal["pooled", "flatten"]
) -> None:
    spec = dataclasses.replace(CLASSIFIER, backbone=backbone, size=size, top=top)
    with pytest.raises(
        PackError, match=f"`{backbone}` has no feature map for top = '{top}'; use 'native'"
    ):
        build_network(spec)
    build_network(dataclasses.replace(spec, top="native"))


def test_a_transformer_works_with_its_own_classifier() -> None:
    spec = dataclasses.replace(CLASSIFIER, backbone="vit_tiny_patch16_224", size=224, top="native")
    assert build_network(spec).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 2)


def test_a_frozen_backbone_learns_nothing_and_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    network = ClassifierNetwork(CLASSIFIER)
    network.freeze_backbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()
    network(torch.rand(4, 3, 64, 64)).square().mean().backward()
    optimiser.step()
    changed = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert {name for name in changed if name.startswith("backbone.")} == set()
    assert {"head.conv.weight", "head.bn.running_mean", "head.out.weight"} <= changed


def test_threads_may_share_a_classifier() -> None:
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (40 + 7 * i, 90 - 5 * i, 3), np.uint8) for i in range(12)]
    shared = classifier()
    alone = np.concatenate([shared([photo]) for photo in photos] * 3)
    with ThreadPoolExecutor(4) as pool:
        together = np.concatenate(list(pool.map(lambda photo: shared([photo]), photos * 3)))
    np.testing.assert_allclose(together, alone, atol=1e-7)
    assert len(np.unique(alone[:, 0])) == len(photos)


def test_a_nan_of_the_network_stays_a_nan() -> None:
    weights = seeded(ClassifierNetwork, CLASSIFIER).state_dict()
    weights["head.out.bias"] = torch.tensor([float("nan"), 0.0])
    (probs,) = TorchClassifier(CLASSIFIER, weights)([np.zeros((50, 50, 3), np.uint8)])
    assert np.isnan(probs[0]) and not np.isnan(probs[1])


def test_the_centre_square_is_cut_before_resizing() -> None:
    photo = np.zeros((30, 90, 3), np.uint8)
    photo[:, 30:60] = 255
    assert (centre_square(photo, 10) == 255).all()


def test_fit_pad_sees_the_whole_photo_and_fit_crop_its_middle() -> None:
    photo = np.zeros((64, 128, 3), np.uint8)
    marked = photo.copy()
    marked[:, :16] = 255
    crop, pad = classifier(), classifier(dataclasses.replace(CLASSIFIER, fit="pad"))
    np.testing.assert_array_equal(crop([photo]), crop([marked]))
    assert np.abs(pad([photo]) - pad([marked])).max() > 0
