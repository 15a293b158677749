"""How a detector begins to learn: what of it is frozen, and what an untrained one expects to see."""

from __future__ import annotations

import math

import torch
from torch import nn

from skinbatch.models.detectors.mmdet_architectures import DetectorSpec

BACKBONE = "backbone"


def freeze(model: nn.Module) -> str:
    """The backbone no longer learns. Returns its name in the model."""
    model.get_submodule(BACKBONE).requires_grad_(False)
    return BACKBONE


@torch.no_grad()
def expect_boxes_of(model: nn.Module, side: float, spec: DetectorSpec) -> None:
    """Make a YOLOX whose head is untrained predict squares of `side` pixels everywhere; others are left alone.

    It matches predictions with lesions by overlap. As it comes its boxes are one stride wide, hardly overlap any lesion,
    and each lesion teaches one cell; boxes of the usual size teach several from the first step.
    """
    if not spec.arch.startswith("yolox"):
        return
    convs = model.get_submodule("bbox_head.multi_level_conv_reg")
    for conv, stride in zip(convs.children(), spec.strides or (8, 16, 32), strict=True):
        bias = conv.bias
        assert isinstance(bias, nn.Parameter)
        bias[2:] = math.log(side / stride)
