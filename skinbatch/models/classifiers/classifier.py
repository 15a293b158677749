"""Classes of a face, each with a probability: a network of timm's under one of three tops, or the plain CNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import PackError
from skinbatch.models.base import InputKind
from skinbatch.models.classifiers.classifier_heads import FlattenHead, PooledHead
from skinbatch.models.classifiers.cnn_multilabel import MultiLabelCNN
from skinbatch.models.folding import example, fold_batch_norms
from skinbatch.models.preprocess import Normalisation, centre_square, pad_to_square
from skinbatch.models.stages import CalibrationTable
from skinbatch.models.weights import load_weights

PLAIN_CNN = "cnn-multilabel"


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """What a classifier is built from. backbone: any name of timm's, or PLAIN_CNN. size: side of the network's square
    input in pixels. fit: `crop` takes the photo's centre square, `pad` the whole photo; neither distorts it. top: what
    is above the backbone, see ClassifierStage. outputs: `logistic` makes a probability of each number for itself,
    `softmax` of all together. calibration: see ClassifierStage."""

    backbone: str
    classes: tuple[str, ...]
    head: str = "disease"
    input: InputKind = "crop"
    size: int = 224
    fit: Literal["crop", "pad"] = "crop"
    normalisation: Normalisation = field(default_factory=Normalisation)
    threshold: float = 0.5
    top: Literal["pooled", "flatten", "native"] = "pooled"
    outputs: Literal["logistic", "softmax"] = "logistic"
    calibration: CalibrationTable | None = None

    def square(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """photo: (H, W, 3) uint8 RGB. Returns (size, size, 3)."""
        if self.fit == "crop":
            return centre_square(photo, self.size)
        return pad_to_square(photo, self.size, self.normalisation.fill)[0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """logits: (N, classes) of any float type. Returns the same shape, float32; of infinite ones NaN, not certainty."""
        return probabilities(logits, self.outputs, self.calibration)


def probabilities(logits: Tensor, outputs: str, calibration: CalibrationTable | None = None) -> Tensor:
    """Return the (N, classes) float32 probabilities of logits; NaN where a logit is not finite, which a sigmoid would make
    certain.

    outputs: `logistic` or `softmax`. calibration: None: the logits as they are.
    """
    finite = torch.where(torch.isfinite(logits), logits.float(), torch.nan)
    if calibration is not None:
        finite = finite * calibration.scale + torch.tensor(calibration.shift, device=finite.device)
    return torch.sigmoid(finite) if outputs == "logistic" else torch.softmax(finite, 1)


class ClassifierNetwork(nn.Module):
    """A backbone of timm's under a head of the papers (`top` pooled or flatten). x: (N, 3, S, S) float32. Returns
    (N, classes) logits."""

    def __init__(self, spec: ClassifierSpec) -> None:
        """Raises PackError for a backbone that timm does not have, and for one without a feature map to put a head on."""
        super().__init__()
        try:
            self.backbone: Any = _timm(spec.backbone, num_classes=0, global_pool="")
        except AssertionError:  # CrossViT, CoaT, distilled DeiT, InceptionNeXt and others insist on their own pooling
            raise _no_feature_map(spec) from None
        if hasattr(self.backbone, "pre_logits"):
            self.backbone.pre_logits = nn.Identity()  # VGG's two layers of 4096, which the head replaces
        channels, height, width = _feature_map(self.backbone, spec)
        outputs = len(spec.classes)
        self.head: nn.Module
        if spec.top == "flatten":
            self.head = FlattenHead(channels, height, width, outputs)
        else:
            self.head = PooledHead(channels, outputs)
        self._frozen = False

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone.forward_features(x))

    def freeze_backbone(self) -> None:
        """From now on training changes the head alone: the backbone's weights have no gradient, and its batch norms
        keep their statistics."""
        self._frozen = True
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ClassifierNetwork:
        """As of any module; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def build_network(spec: ClassifierSpec) -> nn.Module:
    """The network of a classifier, randomly initialised. With `top` native its layers have timm's own names.

    Raises PackError for a backbone that timm does not have, or that does not read `size` or bear the `top`.
    """
    if spec.backbone == PLAIN_CNN:
        return MultiLabelCNN(len(spec.classes), spec.size)
    if spec.top != "native":
        return ClassifierNetwork(spec)
    outputs = len(spec.classes)
    network = _timm(spec.backbone, num_classes=outputs)
    if _try(network, spec, "forward") != (1, outputs):
        raise PackError(f"timm's `{spec.backbone}` has no classifier of its own; take top = 'pooled'")
    return network


def _timm(backbone: str, **options: Any) -> nn.Module:
    if not timm.is_model(backbone):
        raise PackError(f"timm {timm.__version__} has no backbone `{backbone}`")
    return timm.create_model(backbone, pretrained=False, **options)


def _feature_map(backbone: nn.Module, spec: ClassifierSpec) -> tuple[int, int, int]:
    """Channels, height and width of what a backbone makes of an input."""
    shape = _try(backbone, spec, "forward_features")
    if len(shape) != 4 or getattr(backbone, "output_fmt", "NCHW") != "NCHW":
        raise _no_feature_map(spec)
    return shape[1], shape[2], shape[3]


def _no_feature_map(spec: ClassifierSpec) -> PackError:
    return PackError(
        f"timm's `{spec.backbone}` gives no feature map that top = '{spec.top}' could be put on; take 'native'"
    )


def _try(network: nn.Module, spec: ClassifierSpec, method: str) -> tuple[int, ...]:
    """The shape of what a network makes of one input, without computing it; () where that is not one tensor."""
    dry = deepcopy(network).to("meta").eval()
    try:
        made = getattr(dry, method)(torch.empty(1, 3, spec.size, spec.size, device="meta"))
        return tuple(made.shape) if isinstance(made, Tensor) else ()
    except (RuntimeError, AssertionError) as e:
        raise PackError(f"timm's `{spec.backbone}` does not read inputs of {spec.size} px: {e}") from None


class TorchClassifier:
    """The `Classifier` protocol over a network of torch's. Nothing in it changes between calls, so threads may share it."""

    def __init__(
        self,
        spec: ClassifierSpec,
        weights: Mapping[str, Tensor],
        *,
        where: str = "weights",
        device: str = "cpu",
        precision: Literal["fp32", "fp16"] = "fp32",
    ) -> None:
        """where: what errors call the weights. Raises PackError naming the first layer that does not fit, or what
        cannot be built."""
        self.spec = spec
        self.head = spec.head
        self.classes = spec.classes
        self.input: InputKind = spec.input
        self.threshold = spec.threshold
        self._device = torch.device(device)
        self._dtype = torch.float16 if precision == "fp16" else torch.float32
        self.network = build_network(spec)
        load_weights(self.network, weights, where)
        network = self.network.eval()
        fold_batch_norms(network, lambda: network(example(spec.size, spec.size)))
        network.to(self._device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """See Classifier."""
        if not photos:
            return np.zeros((0, len(self.classes)), np.float32)
        x = self.spec.normalisation.tensor([self.spec.square(photo) for photo in photos])
        logits = self.network(x.to(self._device, self._dtype))
        return np.asarray(self.spec.probabilities(logits).cpu().numpy(), np.float32)
