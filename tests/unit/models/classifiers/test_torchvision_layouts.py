"""Test that the weights of torchvision's classifiers give the same numbers here as in torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from skinbatch.errors import PackError
from skinbatch.models.classifiers.classifier import ClassifierSpec, TorchClassifier
from skinbatch.models.classifiers.classifier_layouts import (
    network_name,
    outputs,
    recognise,
)
from skinbatch.models.classifiers.torchvision_layouts import is_torchvision, to_timm
from skinbatch.models.folding import as_built
from tests.unit.models.support import TIMM_NETWORKS

CLASSES = ("mild", "moderate", "severe")


def theirs(arch: str, size: int) -> nn.Module:
    """Return a network of torchvision's with scales and statistics as if it had been trained.

    No two layers can be mistaken for each other, and the output depends on the input.
    """
    torch.manual_seed(4)
    extra = {"init_weights": True} if arch == "inception_v3" else {}
    network: nn.Module = getattr(models, arch)(
        weights=None, num_classes=len(CLASSES), **extra
    ).eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.6, 1.2)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
        norm.train()
    if norms:
        with torch.no_grad():
            network(torch.randn(4, 3, size, size))
    return network.eval()


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("resnet50", 96),
        ("densenet121", 96),
        ("inception_v3", 107),
        ("efficientnet_b3", 96),
        pytest.param("vgg19", 224, marks=pytest.mark.slow),  # 140 million parameters, twice
    ],
)
def test_the_probabilities_are_those_of_torchvision(arch: str, size: int) -> None:
    network = theirs(arch, size)
    state = network.state_dict()
    assert recognise(arch, state)["top"] == "native"
    assert outputs(arch, state) == len(CLASSES)
    spec = ClassifierSpec(
        network_name(arch, None), CLASSES, size=size, top="native", outputs="softmax"
    )
    with as_built():  # channels that hardly vary amplify rounding
        ours = TorchClassifier(spec, to_timm(arch, state))
    photos = [
        np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8) for seed in range(2)
    ]
    x = spec.normalisation.tensor(photos)
    with torch.inference_mode():
        expected = network(x)
        found = ours.network(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    np.testing.assert_allclose(ours(photos), expected.softmax(1).numpy(), atol=2e-3)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("arch", TIMM_NETWORKS)
def test_weights_that_have_timms_names_are_left_as_they_are(arch: str) -> None:
    state = {
        "features.0.weight": torch.zeros(1),
        "blocks.1.0.conv_pw.weight": torch.ones(1),
        "fc.bias": torch.ones(2),
    }
    assert to_timm(arch, state) == state
    assert not is_torchvision(arch, state)


def test_vgg19s_wide_layers_become_convolutions_of_the_same_numbers() -> None:
    rows = torch.arange(2.0 * 3 * 49).reshape(2, 3 * 49)
    state = {"features.0.weight": torch.zeros(1), "classifier.0.weight": rows, "classifier.0.bias": torch.zeros(2),
             "classifier.3.weight": torch.ones(5, 2), "classifier.6.weight": torch.ones(4, 5)}  # fmt: skip
    assert recognise("vgg19", state) == {"top": "native", "outputs": "softmax", "size": 224}
    found = to_timm("vgg19", state)
    assert set(found) == {"features.0.weight", "pre_logits.fc1.weight", "pre_logits.fc1.bias", "pre_logits.fc2.weight",
                          "head.fc.weight"}  # fmt: skip
    assert torch.equal(found["pre_logits.fc1.weight"].flatten(1), rows)
    assert found["pre_logits.fc1.weight"].shape == (2, 3, 7, 7)
    assert found["pre_logits.fc2.weight"].shape == (5, 2, 1, 1)


def test_layers_without_a_counterpart_keep_their_names_and_are_refused_by_them() -> None:
    state = to_timm(
        "efficientnet_b3",
        theirs("efficientnet_b3", 64).state_dict() | {"features.9.0.weight": torch.zeros(1)},
    )
    spec = ClassifierSpec("efficientnet_b3", CLASSES, size=96, top="native")
    with pytest.raises(PackError, match=r"unexpected layer `features\.9\.0\.weight`"):
        TorchClassifier(spec, state)
