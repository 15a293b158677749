"""Photos to what a network reads, on the device where it is: a byte a channel travels, not four."""

from __future__ import annotations

import torch
from torch import Tensor

from skinbatch.models.stages import PositiveTriple, Triple


def normalised(photos: Tensor, mean: Triple, std: PositiveTriple) -> Tensor:
    """photos: (N, S, S, 3) uint8 RGB. Returns (N, 3, S, S) float32 on the same device, channels last in memory.

    mean, std: per channel, of pixels in [0, 1]; the same numbers as models.preprocess.Normalisation gives.
    """
    x = photos.permute(0, 3, 1, 2).float().div_(255)
    middle, width = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (mean, std))
    return x.sub_(middle).div_(width)
