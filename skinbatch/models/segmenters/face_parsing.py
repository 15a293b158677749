"""Public face-parsing checkpoints: zllrunning/face-parsing.PyTorch (`79999_iter.pth`) and what is trained with its code.

That network is BiSeNet without the spatial path: the ResNet's feature at 1/8 stands in for it. It reads 512 x 512 pixels,
normalised as for ImageNet, and aligns the corners when it enlarges its logits. Its layers have the names of BiSeNet here.

yakhyo/face-parsing trains the same network, on the same classes in the same order, under names of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from skinbatch.models.segmenters.bisenet import LIGHT

# The order of the masks that CelebAMask-HQ is handed out with.
CELEBAMASK_HQ = (
    "background", "skin", "nose", "eyeglasses", "left_eye", "right_eye", "left_brow", "right_brow", "left_ear",
    "right_ear", "mouth", "upper_lip", "lower_lip", "hair", "hat", "earring", "necklace", "neck", "cloth",
)  # fmt: skip

# The order that zllrunning/face-parsing.PyTorch gives the same classes: the nose is 10, not 2.
FACE_PARSING = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "eyeglasses", "left_ear", "right_ear",
    "earring", "nose", "mouth", "upper_lip", "lower_lip", "neck", "necklace", "cloth", "hair", "hat",
)  # fmt: skip

# What `--classes` may say instead of the names.
CLASS_ORDERS = {"celebamask-hq": CELEBAMASK_HQ, "face-parsing": FACE_PARSING}

# Parts of yakhyo/face-parsing's names, and what the same layers are called here.
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


def segmenter_defaults(arch: str) -> dict[str, Any]:
    """Fields of a SegmenterStage that go with an architecture unless something else is known of the weights."""
    return {"size": 256 if arch in LIGHT else 512, "spatial": "path", "align_corners": False}


def from_face_parsing(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a checkpoint of yakhyo/face-parsing under the names that BiSeNet's layers have here, any other as it is."""
    if not any(name.startswith("fpn.") for name in state):
        return state
    return {_renamed(name): tensor for name, tensor in state.items() if not name.startswith(_UNUSED)}


def _renamed(name: str) -> str:
    for theirs, ours in _RENAMED:
        name = re.sub(f"^{theirs}", ours, name)
    return name


def recognise(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of a SegmenterStage that follow from the names and shapes of a checkpoint's layers.

    A ResNet without spatial path is the public layout: `spatial`, `align_corners`, `size`, and with 19 outputs `classes`
    in the order FACE_PARSING. The names of other numbers of classes cannot be told; see `outputs`.
    """
    found: dict[str, Any] = {"spatial": "path" if any(name.startswith("sp.") for name in state) else "context"}
    if found["spatial"] == "path" or any(name.startswith(_NO_RESNET) for name in state):
        return found
    found |= {"align_corners": True, "size": 512}
    if outputs(state) == len(FACE_PARSING):
        found["classes"] = FACE_PARSING
    return found


def outputs(state: Mapping[str, Tensor]) -> int | None:
    """How many classes a BiSeNet checkpoint tells apart; None where it has no such layer."""
    return int(state[_OUTPUT].shape[0]) if _OUTPUT in state else None
