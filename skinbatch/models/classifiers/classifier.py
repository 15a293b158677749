"""Classify faces: a network of timm's under one of three tops, or the plain CNN.

Each class gets a probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import PackError
from skinbatch.models.classifiers.classifier_heads import FlattenHead, PooledHead
from skinbatch.models.classifiers.cnn_multilabel import MultiLabelCNN
from skinbatch.models.folding import example, fold_batch_norms
from skinbatch.models.preprocess import Normalisation, centre_square, pad_to_square
from skinbatch.models.protocols import InputKind
from skinbatch.models.runtime.network import Network, prepare
from skinbatch.models.runtime.runtime import Precision, Runtime
from skinbatch.models.stages import CalibrationTable
from skinbatch.models.weights import load_weights

PLAIN_CNN = "cnn-multilabel"


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """Describe a classifier.

    - backbone: any name of timm's, or PLAIN_CNN.
    - size: side of the network's square input in pixels.
    - fit: `crop` takes the photo's centre square, `pad` the whole photo; neither distorts it.
    - top: the layers above the backbone, see ClassifierStage.
    - outputs: `logistic` computes each probability by itself, `softmax` all together.
    - calibration: see ClassifierStage.
    """

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
        """Return (size, size, 3). photo: (H, W, 3) uint8 RGB."""
        if self.fit == "crop":
            return centre_square(photo, self.size)
        return pad_to_square(photo, self.size, self.normalisation.fill)[0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return float32 probabilities of the same shape; NaN for infinite logits, not certainty.

        logits: (N, classes) of any float type.
        """
        return probabilities(logits, self.outputs, self.calibration)


def probabilities(
    logits: Tensor, outputs: str, calibration: CalibrationTable | None = None
) -> Tensor:
    """Return the (N, classes) float32 probabilities of logits.

    They are NaN if a logit is not finite; a sigmoid would make it certain.

    outputs: `logistic` or `softmax`. calibration: None leaves the logits as they are.
    """
    finite = torch.where(torch.isfinite(logits), logits.float(), torch.nan)
    if calibration is not None:
        finite = finite * calibration.scale + torch.tensor(calibration.shift, device=finite.device)
    return torch.sigmoid(finite) if outputs == "logistic" else torch.softmax(finite, 1)


class ClassifierNetwork(nn.Module):
    """Run one of timm's backbones under a head of the papers (`top` pooled or flatten).

    x: (N, 3, S, S) float32. Returns (N, classes) logits.
    """

    def __init__(self, spec: ClassifierSpec) -> None:
        """Build the network.

        Raises PackError if timm lacks the backbone, or the backbone has no feature map for a head.
        """
        super().__init__()
        try:
            self.backbone: Any = _timm(spec.backbone, num_classes=0, global_pool="")
        except (
            AssertionError
        ):  # CrossViT, CoaT, distilled DeiT, InceptionNeXt and others insist on their own pooling
            raise _no_feature_map(spec) from None
        if hasattr(self.backbone, "pre_logits"):
            # VGG's two layers of 4096, which the head replaces.
            self.backbone.pre_logits = nn.Identity()
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
        """Train the head alone from now on.

        The backbone's weights get no gradient, and its batch norms keep their statistics.
        """
        self._frozen = True
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ClassifierNetwork:
        """Set the mode as for any module; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def build_network(spec: ClassifierSpec) -> nn.Module:
    """Return the network of a classifier, randomly initialised.

    With `top` native, its layers have timm's own names.

    Raises PackError if timm lacks the backbone, or the backbone cannot read `size` or take the
    `top`.
    """
    if spec.backbone == PLAIN_CNN:
        return MultiLabelCNN(len(spec.classes), spec.size)
    if spec.top != "native":
        return ClassifierNetwork(spec)
    outputs = len(spec.classes)
    network = _timm(spec.backbone, num_classes=outputs)
    if _try(network, spec, "forward") != (1, outputs):
        raise PackError(
            f"timm's `{spec.backbone}` has no classifier of its own; use top = 'pooled'"
        )
    return network


def _timm(backbone: str, **options: Any) -> nn.Module:
    if not timm.is_model(backbone):
        raise PackError(f"timm {timm.__version__} has no backbone `{backbone}`")
    return timm.create_model(backbone, pretrained=False, **options)


def _feature_map(backbone: nn.Module, spec: ClassifierSpec) -> tuple[int, int, int]:
    """Return the channels, height and width of a backbone's feature map."""
    shape = _try(backbone, spec, "forward_features")
    if len(shape) != 4 or getattr(backbone, "output_fmt", "NCHW") != "NCHW":
        raise _no_feature_map(spec)
    return shape[1], shape[2], shape[3]


def _no_feature_map(spec: ClassifierSpec) -> PackError:
    return PackError(
        f"timm's `{spec.backbone}` has no feature map for top = '{spec.top}'; use 'native'"
    )


def _try(network: nn.Module, spec: ClassifierSpec, method: str) -> tuple[int, ...]:
    """Return the shape of a network's output for one black photo; () if it is not one tensor.

    The output is computed. Without memory (torch's `meta` device) it would not be, but that imports
    `torch._dynamo`, which takes longer.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            made = getattr(network, method)(torch.zeros(1, 3, spec.size, spec.size))
        return tuple(made.shape) if isinstance(made, Tensor) else ()
    except (RuntimeError, AssertionError) as e:
        raise PackError(
            f"timm's `{spec.backbone}` does not read inputs of {spec.size} px: {e}"
        ) from None
    finally:
        network.train(training)


class TorchClassifier:
    """Implement the `Classifier` protocol with a torch network.

    Nothing in it changes between calls, so threads may share it.
    """

    def __init__(
        self,
        spec: ClassifierSpec,
        weights: Mapping[str, Tensor],
        *,
        where: str = "weights",
        device: str = "cpu",
        precision: Precision = "fp32",
        runtime: Runtime | None = None,
    ) -> None:
        """Build the network and load its weights.

        Args:
            spec: description of the classifier.
            weights: tensors by layer.
            where: name of the weights in errors.
            device: `cpu`, `cuda`, `cuda:1`.
            precision: the lowest that may be used; `fp16` needs a GPU.
            runtime: how the network is run; None for torch.

        Raises:
            PackError: names the first layer that does not fit, or the part that cannot be built.
        """
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
        fold_batch_norms(network, self.run_example)
        seen = Network(
            f"classifier `{spec.head}` ({spec.backbone})", network, network, (spec.size, spec.size)
        )
        self._logits = prepare(seen, runtime or Runtime(), device, precision)
        network.to(self._device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run_example(self) -> Tensor:
        """Return the network's output for an example, as folding and rounding need it."""
        output: Tensor = self.network(example(self.spec.size, self.spec.size))
        return output

    @torch.inference_mode()
    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return class probabilities, see Classifier."""
        if not photos:
            return np.zeros((0, len(self.classes)), np.float32)
        x = self.spec.normalisation.tensor([self.spec.square(photo) for photo in photos])
        logits = self._logits(x.to(self._device, self._dtype))
        return np.asarray(self.spec.probabilities(logits).cpu().numpy(), np.float32)
