"""Define and register the parts of YOLOv4 that mmdet lacks.

Import this after `operators.install()`, and only with mmdet.

It is layer for layer as yolov4.cfg of github.com/AlexeyAB/darknet (Bochkovskiy, Wang, Liao 2020).
Each layer is a convolution without bias, batch norm and activation: Mish in the backbone, leaky
ReLU in the neck. The names of the layers are this file's own, and no public weights have them,
neither Darknet's yolov4.weights nor any PyTorch port's. They fit weights that were trained on this
network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.task_modules.coders import YOLOBBoxCoder
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.model import BaseModule
from mmengine.registry import MODELS as LAYERS
from torch import Tensor, nn

if "Mish" not in LAYERS:
    LAYERS.register_module(name="Mish", module=nn.Mish)

MISH: Mapping[str, Any] = {"type": "Mish"}
LEAKY: Mapping[str, Any] = {"type": "LeakyReLU", "negative_slope": 0.1}


def _conv(inputs: int, outputs: int, kernel: int, act: Mapping[str, Any], stride: int = 1) -> Any:
    norm = {"type": "BN", "requires_grad": True}
    return ConvModule(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        norm_cfg=norm,
        act_cfg=dict(act),
        bias=False,
    )


class _Residual(BaseModule):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, inner, 1, MISH)
        self.conv2 = _conv(inner, channels, 3, MISH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(self.conv1(x))
        return out


class _CSPStage(BaseModule):
    """Halve the map, then send some channels through residual blocks and the others past them."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, first: bool) -> None:
        super().__init__()
        half = outputs if first else outputs // 2
        self.down = _conv(inputs, outputs, 3, MISH, stride=2)
        self.past = _conv(outputs, half, 1, MISH)
        self.into = _conv(outputs, half, 1, MISH)
        self.blocks = nn.Sequential(
            *(_Residual(half, half // 2 if first else half) for _ in range(blocks))
        )
        self.out = _conv(half, half, 1, MISH)
        self.merge = _conv(2 * half, outputs, 1, MISH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        merged: Tensor = self.merge(
            torch.cat((self.out(self.blocks(self.into(x))), self.past(x)), 1)
        )
        return merged


@MODELS.register_module()
class CSPDarknet53(BaseModule):
    """Run YOLOv4's backbone. width: factor of all channels.

    Returns the maps at strides 8, 16, 32, with 256, 512, 1024 channels times width.
    """

    BLOCKS = (1, 2, 8, 8, 4)

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = [int(c * width) for c in (32, 64, 128, 256, 512, 1024)]
        self.stem = _conv(3, channels[0], 3, MISH)
        self.stages = nn.ModuleList(
            _CSPStage(inputs, outputs, blocks, first=i == 0)
            for i, (inputs, outputs, blocks) in enumerate(
                zip(channels, channels[1:], self.BLOCKS, strict=False)
            )
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps. images: (N, 3, H, W), H and W multiples of 32."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[2:])


class _Five(BaseModule):
    """Apply five convolutions, 1 x 1 and 3 x 3 in turn."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _conv(inputs, outputs, 1, LEAKY),
            _conv(outputs, 2 * outputs, 3, LEAKY),
            _conv(2 * outputs, outputs, 1, LEAKY),
            _conv(outputs, 2 * outputs, 3, LEAKY),
            _conv(2 * outputs, outputs, 1, LEAKY),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convs(x)
        return out


class _PyramidPooling(BaseModule):
    """Join the map with its maxima over windows of 5, 9 and 13.

    There are three convolutions before and three after.
    """

    WINDOWS = (13, 9, 5)

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.before = nn.Sequential(
            _conv(inputs, channels, 1, LEAKY),
            _conv(channels, 2 * channels, 3, LEAKY),
            _conv(2 * channels, channels, 1, LEAKY),
        )
        self.after = nn.Sequential(
            _conv(4 * channels, channels, 1, LEAKY),
            _conv(channels, 2 * channels, 3, LEAKY),
            _conv(2 * channels, channels, 1, LEAKY),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        pooled = [F.max_pool2d(x, window, stride=1, padding=window // 2) for window in self.WINDOWS]
        out: Tensor = self.after(torch.cat((*pooled, x), 1))
        return out


@MODELS.register_module()
class YOLOv4Neck(BaseModule):
    """Apply spatial pyramid pooling, then path aggregation from coarse to fine and back.

    channels: of the outputs at strides 8, 16, 32; the inputs have twice as many. Returns coarse
    first, as mmdet's YOLOV3Head takes them.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.pooling = _PyramidPooling(2 * coarse, coarse)
        self.coarse_up = _conv(coarse, middle, 1, LEAKY)
        self.middle_in = _conv(2 * middle, middle, 1, LEAKY)
        self.middle_top_down = _Five(2 * middle, middle)
        self.middle_up = _conv(middle, fine, 1, LEAKY)
        self.fine_in = _conv(2 * fine, fine, 1, LEAKY)
        self.fine_top_down = _Five(2 * fine, fine)
        self.fine_down = _conv(fine, middle, 3, LEAKY, stride=2)
        self.middle_bottom_up = _Five(2 * middle, middle)
        self.middle_down = _conv(middle, coarse, 3, LEAKY, stride=2)
        self.coarse_bottom_up = _Five(2 * coarse, coarse)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs, coarse first. maps: at strides 8, 16, 32."""
        fine, middle, coarse = maps
        coarse = self.pooling(coarse)
        middle = torch.cat(
            (self.middle_in(middle), F.interpolate(self.coarse_up(coarse), scale_factor=2)), 1
        )
        middle = self.middle_top_down(middle)
        fine = torch.cat(
            (self.fine_in(fine), F.interpolate(self.middle_up(middle), scale_factor=2)), 1
        )
        fine = self.fine_top_down(fine)
        middle = self.middle_bottom_up(torch.cat((self.fine_down(fine), middle), 1))
        coarse = self.coarse_bottom_up(torch.cat((self.middle_down(middle), coarse), 1))
        return coarse, middle, fine


@TASK_UTILS.register_module()
class YOLOv4BoxCoder(YOLOBBoxCoder):
    """Code boxes as YOLOv3 does, but let the centre reach a little over its cell.

    A centre on the border then needs no infinite logit. scales: (stride, `scale_x_y`) of every
    level.
    """

    def __init__(self, scales: Sequence[tuple[int, float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scales = [(float(stride), float(scale)) for stride, scale in scales]

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor, stride: Tensor) -> Tensor:
        """Return (N, 4): sigmoid of x and y, log of w and h.

        bboxes, gt_bboxes: (N, 4). stride: (N,) of the anchors.
        """
        deltas: Tensor = super().encode(bboxes, gt_bboxes, stride)
        # The clamp of the base class is kept: a centre belongs to its own cell.
        xy = (deltas[..., :2] - 0.5) / self._scale(stride)[..., None] + 0.5
        return torch.cat((xy, deltas[..., 2:]), -1)

    def decode(self, bboxes: Tensor, pred_bboxes: Tensor, stride: Tensor) -> Tensor:
        """Return (N, A, 4) boxes.

        bboxes: (A, 4). pred_bboxes: (N, A, 4) with sigmoid of x and y. stride: (A, 1).
        """
        xy = (pred_bboxes[..., :2] - 0.5) * self._scale(stride) + 0.5
        decoded: Tensor = super().decode(bboxes, torch.cat((xy, pred_bboxes[..., 2:]), -1), stride)
        return decoded

    def _scale(self, stride: Tensor) -> Tensor:
        scale = torch.ones_like(stride, dtype=torch.float32)
        for of, value in self.scales:
            scale[stride == of] = value
        return scale
