"""Read public face-parsing checkpoints.

They come from zllrunning/face-parsing.PyTorch (`79999_iter.pth`) or were trained with its code.
That network is BiSeNet without the spatial path: the ResNet's feature at 1/8 replaces it. It reads
512 x 512 pixels, normalised as for ImageNet, and aligns the corners when it enlarges its logits.
Its layers have the same names as BiSeNet's here.

yakhyo/face-parsing trains the same network, on the same classes in the same order, under names of
its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# The order of the masks in CelebAMask-HQ.
CELEBAMASK_HQ = (
    "background", "skin", "nose", "eyeglasses", "left_eye", "right_eye", "left_brow", "right_brow", "left_ear",
    "right_ear", "mouth", "upper_lip", "lower_lip", "hair", "hat", "earring", "necklace", "neck", "cloth",
)  # fmt: skip

# The order of the same classes in zllrunning/face-parsing.PyTorch: the nose is 10, not 2.
FACE_PARSING = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "eyeglasses", "left_ear", "right_ear",
    "earring", "nose", "mouth", "upper_lip", "lower_lip", "neck", "necklace", "cloth", "hair", "hat",
)  # fmt: skip

# The words that `--classes` accepts instead of the names.
CLASS_ORDERS = {"celebamask-hq": CELEBAMASK_HQ, "face-parsing": FACE_PARSING}

# Parts of yakhyo/face-parsing's names, and the names of the same layers here.
_RENAMED = (
    (r"fpn\.backbone\.", "cp.resnet."),
    (r"fpn\.", "cp."),
    (r"(cp\.arm\d+)\.conv_block\.", r"\1.conv."),
    (r"(cp\.arm\d+)\.attention\.0\.", r"\1.conv_atten."),
    (r"(cp\.arm\d+)\.attention\.1\.", r"\1.bn_atten."),
    (r"ffm\.conv_block\.", "ffm.convblk."),
    (r"(conv_out\d*)\.conv\.(?=weight)", r"\1.conv_out."),
    (r"(conv_out\d*)\.conv_block\.", r"\1.conv."),
    (r"(.*\.)norm\.", r"\1bn."),
)
# ImageNet's classifier, which its ResNet keeps and never runs.
_UNUSED = "fpn.backbone.fc."
_OUTPUT = "conv_out.conv_out.weight"
_NO_RESNET = ("cp.resnet.stem.", "cp.resnet.net.")


def from_face_parsing(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a checkpoint of yakhyo/face-parsing under BiSeNet's names, and any other unchanged."""
    if not any(name.startswith("fpn.") for name in state):
        return state
    return {
        _renamed(name): tensor for name, tensor in state.items() if not name.startswith(_UNUSED)
    }


def _renamed(name: str) -> str:
    for theirs, ours in _RENAMED:
        name = re.sub(f"^{theirs}", ours, name)
    return name


def recognise(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of a SegmenterStage that follow from a checkpoint's layers.

    A ResNet without a spatial path is the public layout. It gives `spatial`, `align_corners`,
    `size`, and with 19 outputs `classes` in the order FACE_PARSING. Other numbers of classes give
    no names; see `outputs`.
    """
    fields: dict[str, Any] = {
        "spatial": "path" if any(name.startswith("sp.") for name in state) else "context"
    }
    if fields["spatial"] == "path" or any(name.startswith(_NO_RESNET) for name in state):
        return fields
    fields |= {"align_corners": True, "size": 512}
    if outputs(state) == len(FACE_PARSING):
        fields["classes"] = FACE_PARSING
    return fields


def outputs(state: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of a BiSeNet checkpoint; None if it lacks that layer."""
    return int(state[_OUTPUT].shape[0]) if _OUTPUT in state else None
