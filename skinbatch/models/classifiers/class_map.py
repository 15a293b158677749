"""Map where in a photo a classifier sees a class.

The methods are Grad-CAM (2017) and guided back-propagation (2015), both from captum.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import UsageError, needs_extra
from skinbatch.models.classifiers.classifier import ClassifierSpec
from skinbatch.models.preprocess import pad_to_square
from skinbatch.models.protocols import Classifier

with needs_extra("explain"):
    from captum.attr import GuidedBackprop, LayerGradCam

Map = NDArray[np.float32]

# The share of pixels that guided back-propagation shows below full strength. A few gradients are
# far larger than all others.
STRONGEST = 0.995
_ACTIVATIONS = (
    "torch.nn.modules.activation",
    "timm.layers.activations",
    "timm.layers.activations_me",
)
_RECTIFIERS = (nn.ReLU, nn.ReLU6)
# Activations that weigh channels in squeeze-and-excitation. They are not rectifiers, so gradients
# pass unchanged.
_GATES = ("Sigmoid", "Hardsigmoid", "HardSigmoid", "HardSigmoidMe", "Softmax")


def grad_cam(classifier: Classifier, photo: NDArray[np.uint8], class_index: int) -> Map:
    """Return how much each place of a photo speaks for a class, by the last feature map.

    The feature map is stretched over the input, as is usual; convolutions without padding see
    slightly less than that at the rim.

    Args:
        classifier: the classifier to explain.
        photo: (H, W, 3) uint8 RGB, the classifier's input.
        class_index: number of the class.

    Returns:
        (H, W) float32. 1 is the strongest place and 0 none; all 0 means that nothing speaks for the
        class. NaN lies outside the network's view (the centre square of `fit = "crop"`).

    Raises:
        UsageError: the classifier has no gradients (ONNX), or the network has no feature map.
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
    """Return which pixels of a photo raise a class, by the strongest of the three channels.

    Args and Returns are those of grad_cam.

    Raises:
        UsageError: as for grad_cam, and for networks whose activations are not ReLU or ReLU6, for
            which the method is not defined.
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
    """Raise UsageError if guided back-propagation is not defined for the network.

    It is defined if all activations are ReLU or ReLU6.
    """
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
    """Apply ReLU6, as a subclass of the ReLU that captum recognises as a rectifier."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)


@contextmanager
def _known_rectifiers(network: nn.Module) -> Iterator[None]:
    """Make captum recognise every ReLU6 of the network inside this context, and nothing else."""
    children = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ReLU6)
    ]
    for parent, name, _ in children:
        setattr(parent, name, _Capped())
    try:
        yield
    finally:
        for parent, name, child in children:
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
    """Return (1, 3, S, S), with a gradient even if all weights are frozen."""
    weight = next(network.parameters())
    x = spec.normalisation.tensor([spec.square(photo)]).to(weight.device, weight.dtype)
    return x.requires_grad_(True)


class _Grid:
    """Convert a layer's output to maps and back.

    rows, columns: of the feature map. prefix: number of tokens before it.
    """

    def __init__(self, layout: str, rows: int = 0, columns: int = 0, prefix: int = 0) -> None:
        self.layout, self.rows, self.columns, self.prefix = layout, rows, columns, prefix

    @contextmanager
    def tapped(self, layer: nn.Module) -> Iterator[nn.Module]:
        """Yield a module whose output is the layer's as (N, C, H, W), the form that captum takes.

        It works while the context lasts.
        """
        tap = nn.Identity()

        def through(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            # Pass on a copy: an in-place activation behind the layer must not change captum's
            # tensor.
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
    """Return the name and layout of the layer that gives the last feature map.

    It is the backbone's `forward_features`, or else the last layer of the network whose output
    still has height and width.
    """
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

    handles = [
        module.register_forward_hook(remember(name))
        for name, module in network.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            feature = forward(x)
    finally:
        for handle in handles:
            handle.remove()
    # Skip layers that run twice, because it is unclear which run counts. A layer that finishes last
    # encloses the others.
    once = [(name, output) for name, output in reversed(outputs) if calls[name] == 1]
    if feature.ndim == 3:
        if (tokens := _tokens(feature, backbone, network)) is not None:
            return tokens
    else:
        exact = [(name, output) for name, output in once if output is feature]
        alike = [
            (name, output)
            for name, output in once
            if feature.ndim != 4 or output.shape == feature.shape
        ]
        for name, output in [*exact, *alike]:
            if output.ndim == 4 and (layout := _layout(output, backbone)):
                return name, _Grid(layout)
    raise UsageError(
        f"classifier `{spec.head}`: `{type(backbone).__name__}` has no layer with height and width, "
        "so Grad-CAM has nothing to map"
    )


def _layout(output: Tensor, backbone: nn.Module) -> str | None:
    """Return the layout of a feature map; None if it has been pooled already."""
    channels = getattr(backbone, "num_features", None)
    last = channels is not None and output.shape[-1] == channels and output.shape[1] != channels
    rows, columns = output.shape[1:3] if last else output.shape[2:4]
    return None if rows * columns == 1 else "NHWC" if last else "NCHW"


def _tokens(output: Tensor, backbone: nn.Module, network: nn.Module) -> tuple[str, _Grid] | None:
    """Return the layer and layout of a transformer's patches.

    The map is taken before the last attention: the last layer is often read at the class token
    only, so later patches have no effect.
    """
    patches = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    blocks = getattr(backbone, "blocks", None)
    prefix = int(getattr(backbone, "num_prefix_tokens", 0))
    if patches is None or blocks is None or output.shape[1] != prefix + patches[0] * patches[1]:
        return None
    layer = getattr(blocks[-1], "norm1", None)
    names = [name for name, module in network.named_modules() if module is layer]
    return (
        (names[0], _Grid("NLC", patches[0], patches[1], prefix))
        if layer is not None and names
        else None
    )


def _scaled(values: Map, quantile: float) -> Map:
    """Scale to [0, 1] without NaN; an empty map stays empty."""
    top = float(np.nanquantile(values, quantile)) or float(np.nanmax(values))
    return np.clip(values / top, 0, 1).astype(np.float32) if top > 0 else values


def _on_photo(square: Map, spec: ClassifierSpec, photo: NDArray[np.uint8]) -> Map:
    """Place a (size, size) map on the photo: the inverse of `spec.square`."""
    height, width = photo.shape[:2]
    if spec.fit == "pad":
        _, (h, w) = pad_to_square(photo, spec.size, spec.normalisation.fill)
        return np.asarray(
            cv2.resize(square[:h, :w], (width, height), interpolation=cv2.INTER_LINEAR), np.float32
        )
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    whole = np.full((height, width), np.nan, np.float32)
    whole[top : top + side, left : left + side] = cv2.resize(
        square, (side, side), interpolation=cv2.INTER_LINEAR
    )
    return whole
