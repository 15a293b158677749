"""Rename the layers of torchvision's classifiers to timm's names.

ResNet-50 and DenseNet121 have the same names in both. torchvision has no Xception and no
Inception-ResNet-v2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

_WIDE = {"0": "expand", "1": "depthwise", "2": "squeeze", "3": "project"}
# Parts of an EfficientNet block by torchvision's numbers. The first stage does not expand.
_FIRST = {"0": "depthwise", "1": "squeeze", "2": "project"}


def to_timm(arch: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's state under timm's names; layers without a counterpart keep theirs.

    state: of one of torchvision's or timm's networks.

    Inception-v3's auxiliary classifier, which only training uses, is left out. VGG19's two wide
    layers become convolutions, as in timm. The two networks agree at 224 px only, because
    torchvision averages features of other sizes to 7 x 7.
    """
    return _LAYOUTS.get(arch, dict)(state)


def is_torchvision(arch: str, state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has names that only torchvision uses."""
    mark = {"vgg19": "classifier.0.weight", "efficientnet_b3": "features.0.0.weight"}.get(arch)
    return mark is not None and mark in state


def _inception(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("AuxLogits.")}


def _vgg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not is_torchvision("vgg19", state):
        return dict(state)
    renamed = {}
    for name, value in state.items():
        for theirs, ours, side in (
            ("0", "pre_logits.fc1", 7),
            ("3", "pre_logits.fc2", 1),
            ("6", "head.fc", 0),
        ):
            if name.startswith(f"classifier.{theirs}."):
                name = name.replace(f"classifier.{theirs}", ours)
                if (
                    side
                    and name.endswith("weight")
                    and value.ndim == 2
                    and value.shape[1] % side**2 == 0
                ):
                    value = value.reshape(value.shape[0], -1, side, side)
        renamed[name] = value
    return renamed


def _efficientnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not is_torchvision("efficientnet_b3", state):
        return dict(state)
    return {_efficientnet_name(name): value for name, value in state.items()}


def _efficientnet_name(name: str) -> str:
    for theirs, ours in (
        ("features.0.0.", "conv_stem."), ("features.0.1.", "bn1."), ("features.8.0.", "conv_head."),
        ("features.8.1.", "bn2."), ("classifier.1.", "classifier."),
    ):  # fmt: skip
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    block = re.fullmatch(r"features\.(\d)\.(\d+)\.block\.(\d)\.(\w+)\.(\w+)", name)
    if block is None:
        return name
    stage, index, part, layer, value = block.groups()
    first = stage == "1"
    kind = (_FIRST if first else _WIDE).get(part)
    layers = {
        ("expand", "0"): "conv_pw", ("expand", "1"): "bn1",
        ("depthwise", "0"): "conv_dw", ("depthwise", "1"): "bn1" if first else "bn2",
        ("squeeze", "fc1"): "se.conv_reduce", ("squeeze", "fc2"): "se.conv_expand",
        ("project", "0"): "conv_pw" if first else "conv_pwl", ("project", "1"): "bn2" if first else "bn3",
    }  # fmt: skip
    ours_layer = layers.get((kind or "", layer))
    return f"blocks.{int(stage) - 1}.{index}.{ours_layer}.{value}" if ours_layer else name


_LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "inception_v3": _inception,
    "vgg19": _vgg,
    "efficientnet_b3": _efficientnet,
}
