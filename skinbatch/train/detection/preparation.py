"""Prepare a detector for training: freeze its backbone, or start an untrained head."""

from __future__ import annotations

import math

import torch
from torch import nn

from skinbatch.models.architectures import ARCHITECTURES
from skinbatch.models.detectors.mmdet.spec import DetectorSpec

BACKBONE = "backbone"


def freeze(model: nn.Module) -> str:
    """Freeze the backbone and return its name in the model."""
    model.get_submodule(BACKBONE).requires_grad_(False)
    return BACKBONE


@torch.no_grad()
def expect_boxes_of(model: nn.Module, side: float, spec: DetectorSpec) -> None:
    """Make a YOLOX whose head is untrained predict squares of `side` pixels everywhere.

    Other models are left alone. YOLOX matches predictions with lesions by overlap. Its first boxes
    are one stride wide and hardly overlap any lesion, so each lesion teaches one cell. Boxes of the
    usual size teach several from the first step.
    """
    if ARCHITECTURES["detector"][spec.arch].starts_from != "cells":
        return
    convs = model.get_submodule("bbox_head.multi_level_conv_reg")
    for conv, stride in zip(convs.children(), spec.strides or (8, 16, 32), strict=True):
        bias = conv.bias
        assert isinstance(bias, nn.Parameter)
        bias[2:] = math.log(side / stride)
