"""Test that heatmaps lie where the evidence is, whatever the network's layout, and that networks
without gradients are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from skinbatch.errors import UsageError
from skinbatch.models.classifiers.class_map import (
    STRONGEST,
    check_guided,
    grad_cam,
    guided_backprop,
)
from skinbatch.models.classifiers.classifier import ClassifierSpec, TorchClassifier, build_network
from skinbatch.models.fake import FakeClassifier
from skinbatch.models.preprocess import Normalisation
from tests.unit.models.support import green_cue_weights, seeded

CUE = ClassifierSpec(
    "cnn-multilabel",
    ("green", "nothing"),
    size=416,
    top="native",
    normalisation=Normalisation((0,) * 3, (1,) * 3),
)


def random_classifier(
    backbone: str, top: str = "pooled", size: int = 96, **more: object
) -> TorchClassifier:
    spec = ClassifierSpec(backbone, ("a", "b"), size=size, top=top, **more)  # type: ignore[arg-type]
    return TorchClassifier(spec, seeded(build_network, spec).state_dict())


def cue_classifier(**changes: object) -> TorchClassifier:
    """Return a classifier that sees only pure green."""
    spec = dataclasses.replace(CUE, **changes)  # type: ignore[arg-type]
    return TorchClassifier(spec, green_cue_weights(spec))


def with_disc(x: int, y: int, width: int = 500, height: int = 400) -> NDArray[np.uint8]:
    """Return noisy skin colour with a green disc of radius 20."""
    photo = np.random.default_rng(0).integers(0, 12, (height, width, 3)).astype(
        np.uint8
    ) + np.uint8(140)
    rows, columns = np.mgrid[:height, :width]
    photo[(rows - y) ** 2 + (columns - x) ** 2 < 20**2] = (0, 255, 0)
    return np.asarray(photo, np.uint8)


def peak(values: NDArray[np.float32]) -> tuple[int, int]:
    """Return x, y of the middle of the strongest places."""
    rows, columns = np.nonzero(np.nan_to_num(values) > 0.9)
    return int(np.median(columns)), int(np.median(rows))


@pytest.mark.parametrize("place", [(180, 120), (330, 250), (250, 200)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_both_maps_peak_where_the_cue_was_planted(place: tuple[int, int], fit: str) -> None:
    classifier = cue_classifier(fit=fit)
    photo = with_disc(*place)
    assert classifier([photo])[0, 0] > 0.9
    for make in (grad_cam, guided_backprop):
        values = make(classifier, photo, 0)
        assert values.shape == (400, 500)
        assert np.hypot(*np.subtract(peak(values), place)) < 25, make.__name__
        assert np.nanmin(values) >= 0 and np.nanmax(values) <= 1


def test_without_the_cue_nothing_speaks_for_the_class() -> None:
    photo = with_disc(-100, -100)
    assert np.nanmax(grad_cam(cue_classifier(), photo, 0)) == 0


def test_a_map_is_nan_where_the_network_does_not_look() -> None:
    photo = with_disc(250, 200)
    values = grad_cam(cue_classifier(), photo, 0)
    assert np.isnan(values[:, :50]).all() and np.isnan(values[:, 450:]).all()
    assert not np.isnan(values[:, 50:450]).any()
    assert not np.isnan(grad_cam(cue_classifier(fit="pad"), photo, 0)).any()


@pytest.mark.parametrize("backbone", ["resnet18", "regnety_002", "mobilenetv3_small_050"])
def test_grad_cam_is_the_papers_formula_on_the_last_feature_map(backbone: str) -> None:
    classifier = random_classifier(backbone, size=128, fit="pad")
    photo = np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8)
    network: Any = classifier.network
    with torch.enable_grad():
        x = classifier.spec.normalisation.tensor([photo])
        feature = network.backbone.forward_features(x).detach().requires_grad_(True)
        logits = network.head(feature)[0]
        gradients = [torch.autograd.grad(logit, feature, retain_graph=True)[0] for logit in logits]
    sums = [(g.mean((2, 3), keepdim=True) * feature).sum(1)[0].detach() for g in gradients]
    index = int(np.argmax([float(s.clip(0).mean()) for s in sums]))
    expected = torch.relu(sums[index]).numpy()
    assert expected.max() > 0
    values = grad_cam(classifier, photo, index)
    cell = 128 // expected.shape[0]
    centres = values[cell // 2 :: cell, cell // 2 :: cell]
    assert centres.shape == expected.shape
    assert np.corrcoef(centres.ravel(), expected.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("vit_tiny_patch16_224", 224),
        pytest.param("swin_tiny_patch4_window7_224", 224, marks=pytest.mark.slow),
        ("convnext_atto", 96),
        ("resnet18", 96),
    ],
)
def test_networks_under_their_own_top_and_transformers_have_a_map(backbone: str, size: int) -> None:
    photo = with_disc(60, 60, 120, 120)
    values = np.stack(
        [grad_cam(random_classifier(backbone, "native", size), photo, c) for c in (0, 1)]
    )
    assert values.shape == (2, 120, 120)
    assert values.max() > 0.9


def test_explaining_leaves_the_classifier_as_it_was() -> None:
    classifier = random_classifier("resnet18")
    photo = with_disc(60, 60, 120, 120)
    before = classifier([photo])
    grad_cam(classifier, photo, 0)
    guided_backprop(classifier, photo, 0)
    np.testing.assert_array_equal(classifier([photo]), before)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks
        for module in classifier.network.modules()
    )
    assert all(weight.grad is None for weight in classifier.network.parameters())


def test_frozen_weights_can_be_explained() -> None:
    classifier = cue_classifier()
    classifier.network.requires_grad_(False)
    photo = with_disc(250, 200)
    assert np.nanmax(grad_cam(classifier, photo, 0)) == 1
    assert np.nanmax(guided_backprop(classifier, photo, 0)) == 1


def test_guided_back_propagation_lets_no_negative_gradient_through_a_relu() -> None:
    """Use a cue that only lowers the class: its plain gradient is large, its guided one 0."""
    weights = green_cue_weights(CUE)
    weights["out.weight"][0, 0] = -1
    classifier = TorchClassifier(CUE, weights)
    photo = with_disc(250, 200)
    x = CUE.normalisation.tensor([CUE.square(photo)]).requires_grad_(True)
    (plain,) = torch.autograd.grad(classifier.network(x)[0, 0], x)
    assert plain.abs().max() > 0
    assert np.nanmax(guided_backprop(classifier, photo, 0)) == 0


@pytest.mark.parametrize(
    ("backbone", "activation"),
    [
        ("efficientnet_b0", "SiLU"),
        ("convnext_atto", "GELU"),
        ("mobilenetv3_small_050", "Hardswish"),
    ],
)
def test_guided_back_propagation_of_other_activations_is_refused_by_name(
    backbone: str, activation: str
) -> None:
    classifier = random_classifier(backbone, "native")
    with pytest.raises(UsageError, match=rf"networks of ReLU.*{activation}.*--method gradcam"):
        guided_backprop(classifier, with_disc(60, 60, 120, 120), 0)


def test_gates_beside_relu_do_not_stand_in_its_way() -> None:
    check_guided(random_classifier("regnety_002"))


class Guided(torch.autograd.Function):
    """Compute ReLU6 with the gradient of its definition, without negative parts (Springenberg et al. 2015)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 6)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradient.clamp(0) * ((x > 0) & (x < 6))


class GuidedReLU6(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Guided.apply(x)


def test_relu6_is_guided_as_its_definition_says_and_left_as_it_was() -> None:
    classifier, photo = (
        random_classifier("tf_efficientnet_lite0", "native"),
        with_disc(48, 48, 96, 96),
    )
    kinds = [type(module) for module in classifier.network.modules()]
    found = guided_backprop(classifier, photo, 0)
    assert [type(module) for module in classifier.network.modules()] == kinds
    capped = [
        (parent, name)
        for parent in classifier.network.modules()
        for name, child in parent.named_children()
        if isinstance(child, torch.nn.ReLU6)
    ]
    for parent, name in capped:
        setattr(parent, name, GuidedReLU6())
    x = classifier.spec.normalisation.tensor([classifier.spec.square(photo)]).requires_grad_(True)
    (gradient,) = torch.autograd.grad(classifier.network(x)[0, 0], x)
    expected = gradient[0].abs().amax(0).numpy()
    assert len(capped) > 30 and expected.max() > 0
    strongest = np.quantile(expected, STRONGEST)
    np.testing.assert_allclose(found, (expected / strongest).clip(0, 1), rtol=1e-3, atol=1e-5)


def test_a_network_without_a_feature_map_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"MlpMixer.*no layer with height and width"):
        grad_cam(random_classifier("mixer_s32_224", "native", 224), with_disc(60, 60, 120, 120), 0)


def test_a_classifier_without_gradients_says_why() -> None:
    fake = FakeClassifier("disease", ("a", "b"), "crop", 0.5)
    for make in (grad_cam, guided_backprop):
        with pytest.raises(UsageError, match=r"no gradients.*ONNX.*import the original weights"):
            make(fake, with_disc(60, 60, 120, 120), 0)


def test_an_onnx_export_says_why(tmp_path: Path) -> None:
    from skinbatch.models.classifiers.onnx_classifier import OnnxClassifier
    from skinbatch.models.stages import ClassifierStage

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))
    path = tmp_path / "classifier-disease.onnx"
    torch.onnx.export(
        network, (torch.zeros(1, 3, 32, 32),), str(path), input_names=["x"], dynamo=False
    )
    stage = ClassifierStage(arch="onnx", classes=("a", "b"), size=32, sha256="0" * 64)
    with pytest.raises(UsageError, match=r"disease.*OnnxClassifier.*no gradients"):
        grad_cam(OnnxClassifier(path, stage), with_disc(60, 60, 120, 120), 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "top", "size"),
    [
        *[
            (b, "pooled", 300)
            for b in ("resnet50", "inception_v3", "densenet121", "xception", "inception_resnet_v2")
        ],
        *[(b, "flatten", 300) for b in ("vgg19", "resnet50", "efficientnet_b3")],
        ("vgg19", "native", 224),
    ],
)
def test_every_network_of_the_papers_can_be_explained(backbone: str, top: str, size: int) -> None:
    classifier = random_classifier(backbone, top, size)
    photo = with_disc(60, 60, 120, 120)
    maps = [grad_cam(classifier, photo, c) for c in (0, 1)]
    assert all(values.shape == (120, 120) for values in maps)
    assert np.isfinite(maps).all()
    if backbone != "efficientnet_b3":
        assert guided_backprop(classifier, photo, 0).max() > 0.9
