"""Test the papers' classifiers: how they are built, and what is recognised in a checkpoint."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from skinbatch.errors import PackError
from skinbatch.models.classifiers.classifier import PLAIN_CNN, ClassifierSpec, build_network
from skinbatch.models.classifiers.classifier_heads import PooledHead
from skinbatch.models.classifiers.classifier_layouts import (
    network_name,
    outputs,
    recognise,
)
from skinbatch.models.stages import ClassifierStage
from tests.unit.models.support import (
    CLASSIFIER_SIZES,
    TIMM_NETWORKS,
    classifier_defaults,
    classifier_weights,
)

DISEASES = ("resnet50", "inception_v3", "densenet121", "xception", "inception_resnet_v2")
LESIONS = ("vgg19", "efficientnet_b3")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_every_network_of_the_papers_has_a_name_of_timms() -> None:
    assert set(TIMM_NETWORKS) == {*DISEASES, *LESIONS}


@pytest.mark.parametrize("arch", DISEASES)
def test_the_networks_of_the_disease_paper_have_its_head_at_300_pixels(arch: str) -> None:
    fields = classifier_defaults(arch)
    assert (fields["top"], fields["size"], fields["outputs"]) == ("pooled", 300, "logistic")
    network = build_network(
        ClassifierSpec(network_name(arch, None), ("a", "b"), size=CLASSIFIER_SIZES[arch])
    )
    assert isinstance(network.head, PooledHead)


@pytest.mark.parametrize("arch", LESIONS)
def test_the_frozen_backbones_of_the_lesion_paper_are_flattened(arch: str) -> None:
    assert classifier_defaults(arch)["top"] == "flatten"


@pytest.mark.parametrize(
    ("arch", "normalisation"),
    [("resnet50", IMAGENET), ("densenet121", IMAGENET), ("vgg19", IMAGENET), ("efficientnet_b3", IMAGENET),
     ("inception_v3", HALF), ("xception", HALF), ("inception_resnet_v2", HALF), (PLAIN_CNN, ((0.0,) * 3, (1.0,) * 3))],
)  # fmt: skip
def test_pixels_are_normalised_as_the_network_was_trained(arch: str, normalisation: object) -> None:
    fields = classifier_defaults(arch)
    assert (fields["mean"], fields["std"]) == normalisation


def test_a_network_of_timms_has_the_size_of_its_own_weights() -> None:
    assert classifier_defaults("timm", "vit_small_patch16_384")["size"] == 384
    with pytest.raises(PackError, match="has no backbone `resnet1`"):
        classifier_defaults("timm", "resnet1")


@pytest.mark.parametrize("arch", [*DISEASES, *LESIONS, PLAIN_CNN])
def test_the_defaults_are_a_valid_stage(arch: str) -> None:
    fields = {"arch": arch, "classes": ("a", "b"), "sha256": "0" * 64}
    stage = ClassifierStage.model_validate(fields | classifier_defaults(arch))
    assert stage.arch == arch


def test_the_plain_cnn_has_no_other_top() -> None:
    with pytest.raises(ValidationError, match="its top is `native`"):
        ClassifierStage(arch="cnn-multilabel", classes=("a", "b"), sha256="0" * 64, top="pooled")


@pytest.mark.parametrize("top", ["pooled", "flatten", "native"])
def test_the_top_is_seen_in_the_names_of_the_layers(top: str) -> None:
    state = classifier_weights("densenet121", 4, top=top)
    assert recognise("densenet121", state)["top"] == top
    assert outputs("densenet121", state) == 4


@pytest.mark.parametrize("backbone", ["regnety_002", "vit_tiny_patch16_224"])
def test_a_native_head_is_not_mistaken_for_one_of_ours_and_the_reverse(backbone: str) -> None:
    """Use regnety, whose own classifier is called `head.fc`, like a layer of the pooled head."""
    native = classifier_weights("timm", 3, backbone=backbone, top="native", size=224)
    assert recognise("timm", native, backbone) == {"top": "native", "outputs": "softmax"}
    assert outputs("timm", native, backbone) == 3
    pooled = classifier_weights("timm", 3, backbone="regnety_002", top="pooled")
    assert recognise("timm", pooled, "regnety_002") == {"top": "pooled"}
    assert outputs("timm", pooled, "regnety_002") == 3


def test_softmax_is_taken_for_several_outputs_of_a_networks_own_classifier_but_not_for_one() -> (
    None
):
    states = {
        n: {"features.conv0.weight": torch.zeros(1), "classifier.weight": torch.zeros(n, 1024)}
        for n in (1, 4)
    }
    assert recognise("densenet121", states[4])["outputs"] == "softmax"
    assert recognise("densenet121", states[1])["outputs"] == "logistic"


def test_the_plain_cnn_is_seen_by_its_last_layer() -> None:
    state = classifier_weights(PLAIN_CNN, 4)
    assert recognise(PLAIN_CNN, state) == {"top": "native"}
    assert outputs(PLAIN_CNN, state) == 4


def test_a_flattened_resnet_is_taken_for_one_of_224_pixels() -> None:
    assert recognise("resnet50", classifier_weights("resnet50", 2, top="flatten")) == {
        "top": "flatten",
        "size": 224,
    }
