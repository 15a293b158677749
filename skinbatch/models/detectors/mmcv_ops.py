"""A stand-in for mmcv's compiled `mmcv._ext`: nms and roi_align by torchvision's operators, on CPU and CUDA.

Building `_ext` takes many minutes and often fails, and one that pip has cached may belong to another torch, so this
one always wins. Call `install()` before anything imports mmcv.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms
from torchvision.ops import roi_align as torchvision_roi_align

from skinbatch.errors import UnsupportedOpError

NAME = "mmcv._ext"


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices (K,) int64 of the kept boxes, by descending score.

    boxes: (N, 4) x1 y1 x2 y2. offset: added to widths and heights, 1 where x2 and y2 belong to the box.
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
    """Fills `output` (K, C, aligned_height, aligned_width) for rois (K, 5): image index, x1 y1 x2 y2.

    pool_mode: 1 is average, the only one torchvision has; 0 (maximum) raises UnsupportedOpError. argmax_y and argmax_x
    belong to the maximum and are left alone.
    """
    if pool_mode != 1:
        raise UnsupportedOpError("mmcv._ext.roi_align_forward: pool_mode 'max' is not there; use pool_mode='avg'")
    size = (aligned_height, aligned_width)
    # torchvision takes -1 for "as many samples as fit", mmcv 0.
    output.copy_(torchvision_roi_align(features, rois, size, spatial_scale, sampling_ratio or -1, aligned))


def install() -> None:
    """Put the stand-in in the place of `mmcv._ext`. Safe to call again. mmcv must not be loaded with another one."""
    present = sys.modules.get(NAME)
    if isinstance(present, _Ops):
        return
    if present is not None or "mmcv.ops" in sys.modules:
        raise UnsupportedOpError(f"{NAME} is already loaded; import skinbatch.models before mmcv")
    sys.modules[NAME] = _Ops(NAME)


class _Ops(ModuleType):
    """mmcv asks for all of its ops by name when it is imported; only a call of one that is missing may fail."""

    nms = staticmethod(nms)
    roi_align_forward = staticmethod(roi_align_forward)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise UnsupportedOpError(
                f"mmcv op `{name}` is not built here: only nms and roi_align are; use an architecture without it"
                + (", and use_torchvision=True in roi_layer to train" if name.startswith("roi_align") else "")
            )

        return missing
