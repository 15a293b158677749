"""Describe an mmdet detector in plain values, from which its model config is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skinbatch.errors import UsageError
from skinbatch.models.protocols import InputKind

ModelConfig = dict[str, Any]
Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Describe the boxes from which an anchor-based detector starts.

    scales: side of the square anchor as a multiple of the stride, for every level. ratios: height /
    width. sizes: width and height of fitted anchors in pixels of the network's input, small first,
    spread evenly over the levels; they replace scales and ratios.
    """

    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    sizes: tuple[Size, ...] | None = None

    def levels(self, strides: Sequence[int]) -> list[list[Size]]:
        """Return the width and height of every anchor of every level.

        strides: of the levels, fine first.

        Raises UsageError if the fitted sizes cannot be spread evenly.
        """
        if self.sizes is None:
            shapes = [(scale, ratio**0.5) for scale in self.scales for ratio in self.ratios]
            return [
                [(stride * scale / root, stride * scale * root) for scale, root in shapes]
                for stride in strides
            ]
        number, left = divmod(len(self.sizes), len(strides))
        if left:
            raise UsageError(
                f"anchors.sizes: {len(self.sizes)} anchors cannot be spread evenly over {len(strides)} levels (strides "
                f"{', '.join(map(str, strides))}); give a multiple of {len(strides)}"
            )
        return [list(self.sizes[i * number : (i + 1) * number]) for i in range(len(strides))]


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Describe a detector in plain values that a pack holds.

    - arch: the name of an architecture, or `mmdet`, whose model config is `model`.
    - classes: names in label order.
    - size: long side of the network's input in pixels. Larger photos are scaled down to it, smaller
      ones up, by `max_upscale` at most.
    - short_side: an upper limit for the short side as well.
    - padding: grey of the padding to a square of `size`. With None, the input is padded with the
      mean colour to the next multiple of 32.
    - strides: of the levels that predict.
    - width: factor of the backbone's channels.
    - head_channels: of the pyramid and the head.
    - strides, width, head_channels, anchors: None for the architecture's own.
    - score_floor, nms_iou, max_boxes: of the last, class-wise suppression.
    - mean, std: per RGB channel of pixels 0-255.
    - bgr: whether the network takes its channels in the order BGR.
    """

    arch: str
    classes: tuple[str, ...]
    input: InputKind = "crop"
    size: int = 640
    max_upscale: float = 1.0
    strides: tuple[int, ...] | None = None
    head_channels: int | None = None
    anchors: Anchors | None = None
    score_floor: float = 0.05
    nms_iou: float = 0.5
    max_boxes: int = 500
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    bgr: bool = False
    width: float | None = None
    short_side: int | None = None
    padding: float | None = None
    model: ModelConfig | None = None

    def has_no(self, *settings: str) -> None:
        """Raise UsageError if a setting is given that this architecture cannot change."""
        for setting in settings:
            if getattr(self, setting) is not None:
                raise UsageError(
                    f"{self.arch}: `{setting}` cannot be chosen for this architecture; leave it out"
                )

    def one_of(self, *strides: tuple[int, ...]) -> tuple[int, ...]:
        """Return the spec's strides, or the first of the possible ones.

        Raises UsageError for other strides.
        """
        if self.strides is None:
            return strides[0]
        if self.strides not in strides:
            raise UsageError(
                f"{self.arch}: strides {self.strides}; choose from {', '.join(map(str, strides))}"
            )
        return self.strides
