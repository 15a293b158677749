"""The classifier: the head of the paper on any backbone, logistic outputs, photos never distorted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from skinbatch.models.classifier import ClassifierNetwork, ClassifierSpec, TorchClassifier
from skinbatch.models.classifier_heads import PooledHead
from skinbatch.models.preprocess import centre_square

from .support import CLASSIFIER, seeded


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
