"""Diseases of a face: a backbone of timm and the head of Studies on Different CNN Algorithms (2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import PackError
from skinbatch.models.base import InputKind
from skinbatch.models.preprocess import Normalisation, centre_square, pad_to_square
from skinbatch.models.weights import load_weights


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """What a classifier is built from. backbone: any name of timm's. size: side of the network's square input in
    pixels. fit: `crop` takes the photo's centre square, `pad` the whole photo; neither distorts it."""

    backbone: str
    classes: tuple[str, ...]
    head: str = "disease"
    input: InputKind = "crop"
    size: int = 224
    fit: Literal["crop", "pad"] = "crop"
    normalisation: Normalisation = field(default_factory=Normalisation)
    threshold: float = 0.5

    def square(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """photo: (H, W, 3) uint8 RGB. Returns (size, size, 3)."""
        if self.fit == "crop":
            return centre_square(photo, self.size)
        return pad_to_square(photo, self.size, self.normalisation.fill)[0]


class PooledHead(nn.Module):
    """1 x 1 convolution, global average pooling, a fully connected layer of 1024, outputs."""

    def __init__(self, channels: int, outputs: int, width: int = 1024, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(width // 2)
        self.fc = nn.Linear(width // 2, width)
        self.dropout = dropout
        self.out = nn.Linear(width, outputs)

    def forward(self, feature: Tensor) -> Tensor:
        pooled = F.relu(self.bn(self.conv(feature))).mean((2, 3))
        return self.out(F.dropout(F.relu(self.fc(pooled)), self.dropout, self.training))


class ClassifierNetwork(nn.Module):
    """x: (N, 3, S, S) float32. Returns (N, classes) logits."""

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        if not timm.is_model(spec.backbone):
            raise PackError(f"timm {timm.__version__} has no backbone `{spec.backbone}`")
        self.backbone = timm.create_model(spec.backbone, pretrained=False, num_classes=0, global_pool="")
        # num_features counts what comes before pooling; some models widen only after it, which the head replaces.
        self.head = PooledHead(self.backbone.num_features, len(spec.classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone.forward_features(x))


class TimmClassifier:
    """The `Classifier` protocol: one probability a class, each by its own logistic function."""

    def __init__(
        self,
        spec: ClassifierSpec,
        weights: Mapping[str, Tensor],
        *,
        where: str = "weights",
        device: str = "cpu",
        precision: Literal["fp32", "fp16"] = "fp32",
    ) -> None:
        """where: what errors call the weights. Raises PackError naming the first layer that does not fit, or a
        backbone that timm does not have."""
        self.spec = spec
        self.head = spec.head
        self.classes = spec.classes
        self.input: InputKind = spec.input
        self.threshold = spec.threshold
        self._device = torch.device(device)
        self._dtype = torch.float16 if precision == "fp16" else torch.float32
        self.network = ClassifierNetwork(spec)
        load_weights(self.network, weights, where)
        self.network.to(self._device, self._dtype).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """See Classifier."""
        if not photos:
            return np.zeros((0, len(self.classes)), np.float32)
        x = self.spec.normalisation.tensor([self.spec.square(photo) for photo in photos])
        logits = self.network(x.to(self._device, self._dtype))
        return np.asarray(torch.sigmoid(logits.float()).cpu().numpy(), np.float32)
