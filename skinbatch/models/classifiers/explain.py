"""Where in a photo a classifier sees a class: Grad-CAM (2017) and guided back-propagation (2015), both captum's."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from captum.attr import GuidedBackprop, LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import UsageError
from skinbatch.models.base import Classifier
from skinbatch.models.classifiers.classifier import ClassifierSpec
from skinbatch.models.preprocess import pad_to_square

Map = NDArray[np.float32]

# Share of pixels that guided back-propagation shows below full strength: a few gradients dwarf all
# others.
STRONGEST = 0.995
_ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me")
_RECTIFIERS = (nn.ReLU, nn.ReLU6)
# They weigh channels in squeeze-and-excitation and are no rectifiers; gradients pass as they are.
_GATES = ("Sigmoid", "Hardsigmoid", "HardSigmoid", "HardSigmoidMe", "Softmax")


def grad_cam(classifier: Classifier, photo: NDArray[np.uint8], class_index: int) -> Map:
    """(H, W) float32 over the photo: how much each place speaks for the class, from the backbone's last feature map.

    photo: (H, W, 3) uint8 RGB, what the classifier is given. 1 is the strongest place, 0 none; all 0: nothing speaks for the
    class. NaN where the network does not look (outside the centre square of `fit = "crop"`). The feature map is stretched
    over the input, as is usual; convolutions without padding see a little less than that at the rim.
    Raises UsageError for a classifier without gradients (ONNX) and for a network without a feature map.
    """
    network, spec = _parts(classifier)
    x = _input(network, spec, photo)
    name, grid = _feature_layer(network, spec, x)
    with grid.tapped(network.get_submodule(name)) as tap:
        raw = LayerGradCam(network, tap).attribute(x, target=class_index, relu_attributions=True)
    coarse = raw[0, 0].detach().float().cpu().numpy()
    smooth = cv2.resize(coarse, (spec.size, spec.size), interpolation=cv2.INTER_CUBIC)
    return _scaled(_on_photo(np.clip(smooth, 0, None), spec, photo), 1.0)


def guided_backprop(classifier: Classifier, photo: NDArray[np.uint8], class_index: int) -> Map:
    """(H, W) float32 over the photo: which pixels raise the class, the strongest of the three channels.

    As grad_cam, in [0, 1] and NaN. Raises UsageError also for networks whose activations are not ReLU or ReLU6, for which
    the method is not defined.
    """
    network, spec = _parts(classifier)
    check_guided(classifier)
    x = _input(network, spec, photo)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        with _known_rectifiers(network):
            raw = GuidedBackprop(network).attribute(x, target=class_index)
    strength = raw[0].detach().float().abs().amax(0).cpu().numpy()
    return _scaled(_on_photo(strength, spec, photo), STRONGEST)


def check_guided(classifier: Classifier) -> None:
    """Raises UsageError unless guided back-propagation is defined for the network: its activations are ReLU or ReLU6."""
    network, _ = _parts(classifier)
    others = {
        type(module).__name__
        for module in network.modules()
        if type(module).__module__ in _ACTIVATIONS
        and not isinstance(module, _RECTIFIERS)
        and type(module).__name__ not in _GATES
    }
    if others or not any(isinstance(module, _RECTIFIERS) for module in network.modules()):
        has = f"has {', '.join(sorted(others))}" if others else "has none"
        raise UsageError(
            f"classifier `{classifier.head}`: guided back-propagation is defined for networks of ReLU, and this one "
            f"{has}; use --method gradcam"
        )


class _Capped(nn.ReLU):
    """ReLU6, of the class by which captum knows rectifiers."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)


@contextmanager
def _known_rectifiers(network: nn.Module) -> Iterator[None]:
    """Within it, every ReLU6 of the network is one that captum knows; nothing else is another."""
    found = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ReLU6)
    ]
    for parent, name, _ in found:
        setattr(parent, name, _Capped())
    try:
        yield
    finally:
        for parent, name, child in found:
            setattr(parent, name, child)


def _parts(classifier: Classifier) -> tuple[nn.Module, ClassifierSpec]:
    network, spec = getattr(classifier, "network", None), getattr(classifier, "spec", None)
    if not isinstance(network, nn.Module) or not isinstance(spec, ClassifierSpec):
        raise UsageError(
            f"classifier `{classifier.head}` ({type(classifier).__name__}) gives probabilities, but no gradients to explain "
            "them by: an ONNX file runs forward only; import the original weights with their architecture"
        )
    return network, spec


def _input(network: nn.Module, spec: ClassifierSpec, photo: NDArray[np.uint8]) -> Tensor:
    """(1, 3, S, S), with a gradient even where all weights are frozen."""
    weight = next(network.parameters())
    x = spec.normalisation.tensor([spec.square(photo)]).to(weight.device, weight.dtype)
    return x.requires_grad_(True)


class _Grid:
    """How a layer's output is laid out, and back. rows, columns: of the feature map; prefix: tokens before it."""

    def __init__(self, layout: str, rows: int = 0, columns: int = 0, prefix: int = 0) -> None:
        self.layout, self.rows, self.columns, self.prefix = layout, rows, columns, prefix

    @contextmanager
    def tapped(self, layer: nn.Module) -> Iterator[nn.Module]:
        """A module whose output is the layer's as (N, C, H, W), as captum takes it, while the context lasts."""
        tap = nn.Identity()

        def through(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            # A copy goes on: an activation in place behind the layer must not change what captum holds.
            return self._back(tap(self._as_maps(output)).clone(), output)

        handle = layer.register_forward_hook(through)
        try:
            yield tap
        finally:
            handle.remove()

    def _as_maps(self, output: Tensor) -> Tensor:
        if self.layout == "NCHW":
            return output
        if self.layout == "NHWC":
            return output.permute(0, 3, 1, 2)
        tokens = output[:, self.prefix :].transpose(1, 2)
        return tokens.reshape(len(output), -1, self.rows, self.columns)

    def _back(self, maps: Tensor, output: Tensor) -> Tensor:
        if self.layout == "NCHW":
            return maps
        if self.layout == "NHWC":
            return maps.permute(0, 2, 3, 1)
        return torch.cat((output[:, : self.prefix], maps.flatten(2).transpose(1, 2)), 1)


def _feature_layer(network: nn.Module, spec: ClassifierSpec, x: Tensor) -> tuple[str, _Grid]:
    """Name and layout of the layer that gives the last feature map: the backbone's `forward_features`, else the last
    layer of the network whose output still has height and width."""
    backbone = getattr(network, "backbone", network)
    forward: Callable[[Tensor], Any] = getattr(backbone, "forward_features", backbone)
    outputs: list[tuple[str, Tensor]] = []
    calls: Counter[str] = Counter()

    def remember(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            calls[name] += 1
            if isinstance(output, Tensor):
                outputs.append((name, output))

        return hook

    handles = [module.register_forward_hook(remember(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            feature = forward(x)
    finally:
        for handle in handles:
            handle.remove()
    # A layer that runs twice cannot be told which time is meant. What finishes last encloses the others.
    once = [(name, output) for name, output in reversed(outputs) if calls[name] == 1]
    if feature.ndim == 3:
        if (tokens := _tokens(feature, backbone, network)) is not None:
            return tokens
    else:
        exact = [(name, output) for name, output in once if output is feature]
        alike = [(name, output) for name, output in once if feature.ndim != 4 or output.shape == feature.shape]
        for name, output in [*exact, *alike]:
            if output.ndim == 4 and (layout := _layout(output, backbone)):
                return name, _Grid(layout)
    raise UsageError(
        f"classifier `{spec.head}`: `{type(backbone).__name__}` has no layer with height and width, of which Grad-CAM "
        "could make a map"
    )


def _layout(output: Tensor, backbone: nn.Module) -> str | None:
    """None for what has been pooled already."""
    channels = getattr(backbone, "num_features", None)
    last = channels is not None and output.shape[-1] == channels and output.shape[1] != channels
    rows, columns = output.shape[1:3] if last else output.shape[2:4]
    return None if rows * columns == 1 else "NHWC" if last else "NCHW"


def _tokens(output: Tensor, backbone: nn.Module, network: nn.Module) -> tuple[str, _Grid] | None:
    """A transformer's patches. Its last layer is often read at the class token only, so that patches behind the last
    attention have no say: the map is taken before it."""
    patches = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    blocks = getattr(backbone, "blocks", None)
    prefix = int(getattr(backbone, "num_prefix_tokens", 0))
    if patches is None or blocks is None or output.shape[1] != prefix + patches[0] * patches[1]:
        return None
    layer = getattr(blocks[-1], "norm1", None)
    names = [name for name, module in network.named_modules() if module is layer]
    return (names[0], _Grid("NLC", patches[0], patches[1], prefix)) if layer is not None and names else None


def _scaled(values: Map, quantile: float) -> Map:
    """To [0, 1], NaN left out; what is nothing stays nothing."""
    top = float(np.nanquantile(values, quantile)) or float(np.nanmax(values))
    return np.clip(values / top, 0, 1).astype(np.float32) if top > 0 else values


def _on_photo(square: Map, spec: ClassifierSpec, photo: NDArray[np.uint8]) -> Map:
    """The inverse of `spec.square` for a (size, size) map."""
    height, width = photo.shape[:2]
    if spec.fit == "pad":
        _, (h, w) = pad_to_square(photo, spec.size, spec.normalisation.fill)
        return np.asarray(cv2.resize(square[:h, :w], (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    found = np.full((height, width), np.nan, np.float32)
    found[top : top + side, left : left + side] = cv2.resize(square, (side, side), interpolation=cv2.INTER_LINEAR)
    return found
