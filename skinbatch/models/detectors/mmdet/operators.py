"""Replace mmcv's compiled `mmcv._ext`: nms and roi_align by torchvision, on CPU and CUDA.

Building `_ext` takes many minutes and often fails, and a copy cached by pip may belong to another
torch, so this one is always used. Call `install()` before anything imports mmcv.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms
from torchvision.ops import roi_align as torchvision_roi_align

from skinbatch.errors import UnsupportedOpError

NAME = "mmcv._ext"


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Return the indices (K,) int64 of the kept boxes, by descending score.

    boxes: (N, 4) x1 y1 x2 y2. offset: added to widths and heights; 1 if x2 and y2 belong to the
    box.
    """
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    kept: Tensor = torchvision_nms(boxes, scores, iou_threshold)
    return kept


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill `output` (K, C, aligned_height, aligned_width) for the regions of `rois`.

    rois: (K, 5) with photo index and x1 y1 x2 y2. pool_mode: 1 is average, the only one in
    torchvision; 0 (maximum) raises UnsupportedOpError. argmax_y and argmax_x belong to the maximum
    and stay unchanged.
    """
    if pool_mode != 1:
        raise UnsupportedOpError(
            "mmcv._ext.roi_align_forward: pool_mode 'max' is not supported; use pool_mode='avg'"
        )
    size = (aligned_height, aligned_width)
    # For "as many samples as fit", torchvision takes -1 and mmcv 0.
    output.copy_(
        torchvision_roi_align(features, rois, size, spatial_scale, sampling_ratio or -1, aligned)
    )


def install() -> None:
    """Replace `mmcv._ext` by the stand-in. It is safe to call this again.

    mmcv must not already be loaded with another `_ext`.
    """
    present = sys.modules.get(NAME)
    if isinstance(present, _Ops):
        return
    if present is not None or "mmcv.ops" in sys.modules:
        raise UnsupportedOpError(f"{NAME} is already loaded; import skinbatch.models before mmcv")
    stand_in = _Ops(NAME)
    stand_in.__spec__ = ModuleSpec(NAME, None)  # mmengine asks for it, as in mmdet's inferencer
    sys.modules[NAME] = stand_in


class _Ops(ModuleType):
    """Give mmcv every op that it imports by name. Only calling a missing op fails."""

    nms = staticmethod(nms)
    roi_align_forward = staticmethod(roi_align_forward)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise UnsupportedOpError(
                f"mmcv op `{name}` is not available here, only nms and roi_align; use an architecture without it"
                + (
                    ", and use_torchvision=True in roi_layer to train"
                    if name.startswith("roi_align")
                    else ""
                )
            )

        return missing
