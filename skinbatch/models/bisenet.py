"""BiSeNet v1 (Yu et al. 2018): a spatial path for detail, a context path for meaning, and a fusion of both.

Layers are named as the public PyTorch implementations name them (`cp` context path, `sp` spatial path, `ffm` fusion).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import resnet18

ARCHITECTURES = ("bisenet-r18", "bisenet-light")


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded so that stride 1 keeps the size."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class AttentionRefinement(nn.Module):
    """Weighs the channels of a context feature by its own global average."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(channels_in, channels_out)
        self.conv_atten = nn.Conv2d(channels_out, channels_out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        feature = self.conv(x)
        weight = torch.sigmoid(self.bn_atten(self.conv_atten(feature.mean((2, 3), keepdim=True))))
        return feature * weight


class FeatureFusion(nn.Module):
    """Joins the two paths, then re-weighs the channels of the joint feature."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(channels_in, channels, kernel=1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        feature = self.convblk(torch.cat((spatial, context), 1))
        weight = torch.sigmoid(self.conv2(F.relu(self.conv1(feature.mean((2, 3), keepdim=True)))))
        return feature * weight + feature


class Output(nn.Module):
    """Feature to logits."""

    def __init__(self, channels_in: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(channels_in, channels)
        self.conv_out = nn.Conv2d(channels, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class SpatialPath(nn.Module):
    """Three strided convolutions: a feature at 1/8 of the size."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(3, width, kernel=7, stride=2)
        self.conv2 = ConvBNReLU(width, width, stride=2)
        self.conv3 = ConvBNReLU(width, width, stride=2)
        self.conv_out = ConvBNReLU(width, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv3(self.conv2(self.conv1(x))))


class ResNet18(nn.Module):
    """torchvision's ResNet-18 without its classifier: features at 1/16 and 1/32."""

    channels = (256, 512)

    def __init__(self) -> None:
        super().__init__()
        net = resnet18(weights=None)
        self.conv1, self.bn1 = net.conv1, net.bn1
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        sixteenth = self.layer3(self.layer2(self.layer1(x)))
        return sixteenth, self.layer4(sixteenth)


class LightBackbone(nn.Module):
    """Inverted residual blocks (MobileNetV2): features at 1/16 and 1/32 for two CPU cores."""

    channels = (72, 144)

    def __init__(self) -> None:
        super().__init__()
        c16, c32 = self.channels
        self.stem = ConvBNReLU(3, 16, stride=2)
        self.early = nn.Sequential(
            InvertedResidual(16, 24, 2, 2), InvertedResidual(24, 24, 1, 3),
            InvertedResidual(24, 40, 2, 3), InvertedResidual(40, 40, 1, 3),
        )  # fmt: skip
        self.sixteenth = nn.Sequential(
            InvertedResidual(40, c16, 2, 4), InvertedResidual(c16, c16, 1, 4), InvertedResidual(c16, c16, 1, 4)
        )
        self.thirtysecond = nn.Sequential(
            InvertedResidual(c16, c32, 2, 4), InvertedResidual(c32, c32, 1, 4), InvertedResidual(c32, c32, 1, 4)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sixteenth = self.sixteenth(self.early(self.stem(x)))
        return sixteenth, self.thirtysecond(sixteenth)


class ContextPath(nn.Module):
    """Backbone, attention refinement at 1/16 and 1/32, and the global average, brought to 1/8 and 1/16."""

    def __init__(self, resnet: ResNet18 | LightBackbone, channels: int) -> None:
        super().__init__()
        c16, c32 = resnet.channels
        self.resnet = resnet
        self.arm16 = AttentionRefinement(c16, channels)
        self.arm32 = AttentionRefinement(c32, channels)
        self.conv_head32 = ConvBNReLU(channels, channels)
        self.conv_head16 = ConvBNReLU(channels, channels)
        self.conv_avg = ConvBNReLU(c32, channels, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sixteenth, thirtysecond = self.resnet(x)
        average = self.conv_avg(thirtysecond.mean((2, 3), keepdim=True))
        at16 = self.conv_head32(F.interpolate(self.arm32(thirtysecond) + average, sixteenth.shape[2:]))
        at8 = self.conv_head16(F.interpolate(self.arm16(sixteenth) + at16, scale_factor=2))
        return at8, at16


class BiSeNet(nn.Module):
    """x: (N, 3, H, W) float32, H and W multiples of 32. Returns (N, classes, H, W) logits; in training a tuple of
    three, the last two from the auxiliary heads on the context features."""

    def __init__(self, arch: str, classes: int) -> None:
        super().__init__()
        light = arch == "bisenet-light"
        channels, detail, fused = (64, 24, 128) if light else (128, 64, 256)
        self.cp = ContextPath(LightBackbone() if light else ResNet18(), channels)
        self.sp = SpatialPath(detail, channels)
        self.ffm = FeatureFusion(2 * channels, fused)
        self.conv_out = Output(fused, fused // 2 if light else fused, classes)
        self.conv_out16 = Output(channels, channels // 2, classes)
        self.conv_out32 = Output(channels, channels // 2, classes)

    def forward(self, x: Tensor) -> Any:
        at8, at16 = self.cp(x)
        logits = self._full(self.conv_out(self.ffm(self.sp(x), at8)), x)
        if not self.training:
            return logits
        return logits, self._full(self.conv_out16(at8), x), self._full(self.conv_out32(at16), x)

    @staticmethod
    def _full(logits: Tensor, x: Tensor) -> Tensor:
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)
