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

from skinbatch.models.folding import foldable, folded_weights


def round_to_bf16(network: nn.Module, run: Callable[[], Any]) -> int:
    """Round the weights of all convolutions and linear layers to bf16, in place.

    A batch norm that will be folded is folded first; it stays in the network, but only adds the
    bias. The layers keep their names and shapes.

    Args:
        network: in evaluation mode, float32, on the CPU, not folded (`folding.as_built`).
        run: run the network on an example, see fold_batch_norms.

    Returns:
        The number of layers whose weights were rounded.
    """
    with torch.no_grad():
        pairs = foldable(network, run)
        for conv, norm in pairs:
            _fold_into(conv, norm)
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for layer in layers:
            layer.weight.copy_(layer.weight.bfloat16())
    return len(layers)


def _fold_into(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move the factors of a norm into a convolution, so that the norm only adds its bias."""
    weight, bias = folded_weights(conv, norm)
    assert bias is not None and norm.running_mean is not None and norm.running_var is not None
    conv.weight.copy_(weight)
    if conv.bias is not None:
        conv.bias.zero_()

    norm.weight.fill_(1)
    norm.bias.copy_(bias)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
