"""Define BiSeNet v1 (Yu et al. 2018).

A spatial path gives detail, a context path gives meaning, and a fusion joins the two. Layers are
named as in the public PyTorch implementations (`cp` context path, `sp` spatial path, `ffm` fusion).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import resnet18, resnet34

# The layers of the two heads that only training uses.
AUXILIARY = ("conv_out16.", "conv_out32.")


class ConvBNReLU(nn.Module):
    """Apply a convolution without bias, batch norm and ReLU. With stride 1 the size stays."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class AttentionRefinement(nn.Module):
    """Weigh the channels of a context feature by its own global average."""

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
    """Join the two paths, then re-weigh the channels of the joint feature."""

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
    """Turn a feature into logits."""

    def __init__(self, channels_in: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(channels_in, channels)
        self.conv_out = nn.Conv2d(channels, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class SpatialPath(nn.Module):
    """Apply three strided convolutions, for a feature at 1/8 of the size."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(3, width, kernel=7, stride=2)
        self.conv2 = ConvBNReLU(width, width, stride=2)
        self.conv3 = ConvBNReLU(width, width, stride=2)
        self.conv_out = ConvBNReLU(width, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv3(self.conv2(self.conv1(x))))


class ResNet(nn.Module):
    """Run torchvision's ResNet-18 or -34 without its classifier: features at 1/8, 1/16 and 1/32."""

    channels = (128, 256, 512)

    def __init__(self, depth: Literal[18, 34]) -> None:
        super().__init__()
        net = (resnet18 if depth == 18 else resnet34)(weights=None)
        self.conv1, self.bn1 = net.conv1, net.bn1
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            net.layer1,
            net.layer2,
            net.layer3,
            net.layer4,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class LightBackbone(nn.Module):
    """Run inverted residual blocks (MobileNetV2), light enough for two CPU cores.

    The features are at 1/8, 1/16 and 1/32.
    """

    channels = (40, 72, 144)

    def __init__(self) -> None:
        super().__init__()
        c8, c16, c32 = self.channels
        self.stem = ConvBNReLU(3, 16, stride=2)
        self.early = nn.Sequential(
            InvertedResidual(16, 24, 2, 2), InvertedResidual(24, 24, 1, 3),
            InvertedResidual(24, c8, 2, 3), InvertedResidual(c8, c8, 1, 3),
        )  # fmt: skip
        self.sixteenth = nn.Sequential(
            InvertedResidual(c8, c16, 2, 4),
            InvertedResidual(c16, c16, 1, 4),
            InvertedResidual(c16, c16, 1, 4),
        )
        self.thirtysecond = nn.Sequential(
            InvertedResidual(c16, c32, 2, 4),
            InvertedResidual(c32, c32, 1, 4),
            InvertedResidual(c32, c32, 1, 4),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth = self.early(self.stem(x))
        sixteenth = self.sixteenth(eighth)
        return eighth, sixteenth, self.thirtysecond(sixteenth)


class EfficientNetLite(nn.Module):
    """Run timm's EfficientNet-Lite0: features at 1/8, 1/16 and 1/32.

    It can begin with ImageNet's weights, which TensorFlow padded unevenly. The same weights make
    the same features here, one pixel further left and up at each stride.
    """

    channels = (40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model(
            "efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2, 3, 4)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth, thirtysecond = self.net(x)
        return eighth, sixteenth, thirtysecond


class ContextPath(nn.Module):
    """Run the backbone, attention refinement at 1/16 and 1/32, and the global average.

    Returns the backbone's own feature at 1/8, and the refined ones resized to 1/8 and 1/16.
    """

    def __init__(self, resnet: ResNet | LightBackbone | EfficientNetLite, channels: int) -> None:
        super().__init__()
        _, c16, c32 = resnet.channels
        self.resnet = resnet
        self.arm16 = AttentionRefinement(c16, channels)
        self.arm32 = AttentionRefinement(c32, channels)
        self.conv_head32 = ConvBNReLU(channels, channels)
        self.conv_head16 = ConvBNReLU(channels, channels)
        self.conv_avg = ConvBNReLU(c32, channels, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth, thirtysecond = self.resnet(x)
        average = self.conv_avg(thirtysecond.mean((2, 3), keepdim=True))
        at16 = self.conv_head32(
            F.interpolate(self.arm32(thirtysecond) + average, sixteenth.shape[2:])
        )
        at8 = self.conv_head16(F.interpolate(self.arm16(sixteenth) + at16, scale_factor=2))
        return eighth, at8, at16


# The backbones of the networks of half the width.
LIGHT: Mapping[str, Callable[[], LightBackbone | EfficientNetLite]] = {
    "bisenet-light": LightBackbone,
    "bisenet-efficientnet-lite0": EfficientNetLite,
}


class BiSeNet(nn.Module):
    """Run the whole network.

    Args:
        x: (N, 3, H, W) float32, H and W multiples of 32.

    Returns:
        (N, classes, H, W) logits. In training, a tuple of three: the last two come from the
        auxiliary heads on the context features.

    arch: `bisenet-r18`, `bisenet-r34`, `bisenet-light` or `bisenet-efficientnet-lite0`. spatial:
    `path` for the paper's three strided convolutions, or `context` for the backbone's own feature
    at 1/8 instead. align_corners: for the bilinear interpolation of the logits. auxiliary: False
    leaves out the heads that only training uses.
    """

    def __init__(
        self,
        arch: str,
        classes: int,
        *,
        spatial: Literal["path", "context"] = "path",
        align_corners: bool = False,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        light = arch in LIGHT
        channels, detail, fused = (64, 24, 128) if light else (128, 64, 256)
        backbone = LIGHT[arch]() if light else ResNet(34 if arch == "bisenet-r34" else 18)
        self.align_corners = align_corners
        self.cp = ContextPath(backbone, channels)
        self.sp = SpatialPath(detail, channels) if spatial == "path" else None
        fine = channels if spatial == "path" else backbone.channels[0]
        self.ffm = FeatureFusion(fine + channels, fused)
        self.conv_out = Output(fused, fused // 2 if light else fused, classes)
        if auxiliary:
            self.conv_out16 = Output(channels, channels // 2, classes)
            self.conv_out32 = Output(channels, channels // 2, classes)

    def forward(self, x: Tensor) -> Any:
        if not self.training:
            return self.enlarge(self.coarse(x), x)
        eighth, at8, at16 = self.cp(x)
        heads = self._fused(x, eighth, at8), self.conv_out16(at8), self.conv_out32(at16)
        return tuple(self.enlarge(logits, x) for logits in heads)

    def freeze_backbone(self) -> None:
        """Train only what is above the backbone from now on."""
        self.cp.resnet.requires_grad_(False)

    def coarse(self, x: Tensor) -> Tensor:
        """Return (N, classes, H / 8, W / 8) logits. x: see BiSeNet."""
        eighth, at8, _ = self.cp(x)
        return self._fused(x, eighth, at8)

    def enlarge(self, logits: Tensor, x: Tensor) -> Tensor:
        """Interpolate logits to the height and width of x."""
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=self.align_corners)

    def _fused(self, x: Tensor, eighth: Tensor, at8: Tensor) -> Tensor:
        fine = eighth if self.sp is None else self.sp(x)
        return self.conv_out(self.ffm(fine, at8))
