"""Turn photos into a network's input on its device.

Only one byte a channel travels to the device, not four.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skinbatch.models.stages import PositiveTriple, Triple


def normalised(photos: Tensor, mean: Triple, std: PositiveTriple) -> Tensor:
    """Return (N, 3, S, S) float32 on the same device, channels last in memory.

    photos: (N, S, S, 3) uint8 RGB. mean, std: for each channel, of pixels in [0, 1]; the result has
    the same numbers as models.preprocess.Normalisation gives.
    """
    x = photos.permute(0, 3, 1, 2).float().div_(255)
    middle, width = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (mean, std))
    return x.sub_(middle).div_(width)
