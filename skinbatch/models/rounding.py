"""Round weights so that networks give nearly the same numbers in bf16 as in fp32.

Most of the error of bf16 comes from rounding the weights, which happens after batch norms are
folded into them. Weights that are rounded beforehand are the same in both precisions, and only
intermediate results still differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from skinbatch.models.folding import foldable

# Most that a channel of weights is scaled by, as a power of two.
_MOST_POWER = 8


def round_to_bf16(network: nn.Module, run: Callable[[], Any]) -> int:
    """Round the weights of all convolutions and linear layers to bf16, in place.

    Weights before a batch norm are rounded so that they are exact in bf16 after the norm is folded
    into them. The layers keep their names, their shapes and about the size of their weights, and
    the network can be trained on as before.

    Args:
        network: in evaluation mode, float32, on the CPU, not folded (`folding.as_built`).
        run: run the network on an example, see fold_batch_norms.

    Returns:
        The number of layers whose weights were rounded.
    """
    with torch.no_grad():
        pairs = foldable(network, run)
        for conv, norm in pairs:
            _move_factors(conv, norm)
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for layer in layers:
            layer.weight.copy_(layer.weight.bfloat16())
    return len(layers)


def _move_factors(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move the factors of a norm into a convolution, except for powers of two.

    A norm divides by the deviation of its input and multiplies by its weight. Afterwards both
    together are a power of two for each channel, which does not change the digits of the weights
    that it is folded into. With statistics of a batch, as in training, the norm gives the same
    numbers as before, except for channels that hardly vary.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    weight = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    factor = weight / (norm.running_var + norm.eps).sqrt()
    power = torch.where(factor == 0, torch.ones_like(factor), factor.abs()).log2().round()
    two = 2.0 ** power.clamp(-_MOST_POWER, _MOST_POWER)

    # What the convolution's outputs are multiplied by; the norm's factor becomes `two`.
    scale = factor / two
    bias = torch.zeros_like(factor) if conv.bias is None else conv.bias.clone()
    conv.weight.mul_(scale.reshape(-1, 1, 1, 1))
    if conv.bias is not None:
        conv.bias.zero_()
    norm.running_mean.sub_(bias).mul_(scale)

    deviation = (weight / two).square()
    norm.running_var.copy_((deviation - norm.eps).clamp_min(0))
    if norm.weight is not None:
        norm.weight.copy_((norm.running_var + norm.eps).sqrt() * two)
