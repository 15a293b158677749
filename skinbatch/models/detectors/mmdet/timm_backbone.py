"""Register timm's networks as backbones of mmdet.

Import this after `operators.install()`, and only with mmdet. Layers are named `backbone.net.` and
then as in timm. No public weights of a detector have these names; only timm's weights of the
backbone have the part that follows. So a detector over such a backbone was trained here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import timm
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from skinbatch.errors import PackError

NAMES = ("inception_v3", "mobilenetv1_100", "efficientnet_lite0", "efficientnet_lite2")
# As in TensorFlow, whose ImageNet weights these networks can begin with. TensorFlow's padding there
# is uneven. With timm's symmetric padding the same weights make the same features, which a cell
# sees one pixel further left and up at each stride. Boxes need centred features.
_LITE = {"bn_eps": 1e-3}
_OPTIONS: Mapping[str, Mapping[str, float]] = {
    "efficientnet_lite0": _LITE,
    "efficientnet_lite2": _LITE,
}


@MODELS.register_module()
class TimmFeatures(BaseModule):
    """Return the feature maps of a timm network, without loading weights.

    name: one of NAMES. out_indices: of the maps; 0 is at stride 2, and each has twice the stride of
    the one before.
    """

    def __init__(self, name: str, out_indices: Sequence[int]) -> None:
        super().__init__()
        if name not in NAMES:
            raise PackError(f"TimmFeatures: `{name}` is not among {', '.join(NAMES)}")
        options = {"out_indices": tuple(out_indices), **_OPTIONS.get(name, {})}
        self.net = timm.create_model(name, pretrained=False, features_only=True, **options)
        if name == "inception_v3":
            centre_inception(self.net)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return (N, C, H / stride, W / stride) for every index. images: (N, 3, H, W)."""
        return tuple(self.net(images))


def centre_inception(net: nn.Module) -> None:
    """Pad Inception-v3's unpadded layers, so that cell (i, j) lies at (i, j) times the stride.

    Without this, a map ends before the photo does and is shifted, by 37 pixels at stride 32. That
    is fine for one label per photo, but not for boxes. The weights are the same.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "Mixed" not in name:
            kernel = module.kernel_size
            module.padding = tuple(
                side // 2 for side in (kernel if isinstance(kernel, tuple) else (kernel, kernel))
            )
    # Their max-pooling is a function, not a layer. Its input is never negative, so zeros do not
    # change it.
    for name in ("Mixed_6a", "Mixed_7a"):
        net.get_submodule(name).register_forward_pre_hook(_pad_by_one)


def _pad_by_one(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (F.pad(inputs[0], (1, 1, 1, 1)),)
