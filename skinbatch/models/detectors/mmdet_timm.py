"""timm's networks as backbones of mmdet. Importing this registers them: after `mmcv_ops.install()`, with mmdet only.

Layers are named `backbone.net.` and then as in timm. No public weights of a detector have these names, only timm's of the
backbone have what comes after; a detector over them is one that was trained here.
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
# As TensorFlow, whose ImageNet weights they can begin with. Its padding there is uneven; timm's symmetric one makes of the
# same weights the same features, which a cell sees a pixel further left and up at each stride: boxes want them centred.
_LITE = {"bn_eps": 1e-3}
_OPTIONS: Mapping[str, Mapping[str, float]] = {"efficientnet_lite0": _LITE, "efficientnet_lite2": _LITE}


@MODELS.register_module()
class TimmFeatures(BaseModule):
    """The feature maps of a timm network, no weights loaded.

    name: one of NAMES. out_indices: of the maps, 0 at stride 2, each at twice the stride of the one before.
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
        """images: (N, 3, H, W). Returns (N, C, H / stride, W / stride) for every index."""
        return tuple(self.net(images))


def centre_inception(net: nn.Module) -> None:
    """Pads Inception-v3's unpadded layers, so that cell (i, j) of a map lies at (i, j) times its stride.

    As it comes a map ends before the photo does and is shifted, by 37 pixels at stride 32: fine for one label a
    photo, not for boxes. The weights are the same.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "Mixed" not in name:
            kernel = module.kernel_size
            module.padding = tuple(side // 2 for side in (kernel if isinstance(kernel, tuple) else (kernel, kernel)))
    # Their max-pooling is a function, not a layer; what they get is never negative, so that zeros do not change it.
    for name in ("Mixed_6a", "Mixed_7a"):
        net.get_submodule(name).register_forward_pre_hook(_pad_by_one)


def _pad_by_one(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (F.pad(inputs[0], (1, 1, 1, 1)),)
