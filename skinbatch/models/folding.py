"""Fold batch norms into the convolutions before them.

The network runs faster and gives the same numbers, apart from rounding.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# The change that folding may make, relative to the network's largest number. Rounding changes some
# millionths.
TOLERANCE = 1e-3
_folds: ContextVar[bool] = ContextVar("folds", default=True)
log = logging.getLogger(__name__)


@contextlib.contextmanager
def as_built() -> Generator[None, None, None]:
    """Leave networks that are built inside this context as their library builds them."""
    token = _folds.set(False)
    try:
        yield
    finally:
        _folds.reset(token)


def example(height: int, width: int) -> Tensor:
    """Return (1, 3, height, width) float32 in [-1, 1], always the same and nowhere constant."""
    return (
        torch.arange(3 * height * width, dtype=torch.float32)
        .mul_(0.7)
        .sin_()
        .reshape(1, 3, height, width)
    )


def fold_batch_norms(network: nn.Module, run: Callable[[], Any]) -> int:
    """Fold every batch norm that follows a single convolution, in place, and return their number.

    The network is run once to see which norm follows which convolution. It is run again afterwards,
    and if the result has changed, everything is restored.

    Args:
        network: in evaluation mode, float32, on the CPU.
        run: run the network on an example and return its result, tensors nested in any way.
    """
    if not _folds.get():
        return 0
    with torch.no_grad():  # not inference_mode: explanations could not use its tensors
        try:
            pairs, before = _watched(network, run)
        except Exception as e:  # a user's network may fail on the example and still work on photos
            log.info(
                "%s: its batch norms stay, because it cannot run the example: %s",
                type(network).__name__,
                e,
            )
            return 0
        if not pairs:
            return 0
        parents = {
            id(child): (parent, name)
            for parent in network.modules()
            for name, child in parent.named_children()
        }
        folded = [_Folded(conv, norm, *parents[id(norm)]) for conv, norm in pairs]
        for each in folded:
            each.fold()
        try:
            if _same(before, _tensors(run())):
                return len(folded)
            why = "folding them changes its numbers"
        except Exception as e:  # code may look for the norms, which are gone
            why = f"it cannot run without them: {e}"
        for each in folded:
            each.undo()
    log.info("%s: its batch norms stay, because %s", type(network).__name__, why)
    return 0


def foldable(network: nn.Module, run: Callable[[], Any]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution with the batch norm that can be folded into it.

    Args:
        network, run: see fold_batch_norms.
    """
    with torch.no_grad():
        return _watched(network, run)[0]


class _Folded:
    """Hold a convolution and the norm after it."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, parent: nn.Module, name: str) -> None:
        self.conv, self.norm, self.parent, self.name = conv, norm, parent, name
        self.weight, self.bias = conv.weight, conv.bias

    def fold(self) -> None:
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        setattr(self.parent, self.name, _after(norm))

    def undo(self) -> None:
        self.conv.weight, self.conv.bias = self.weight, self.bias
        setattr(self.parent, self.name, self.norm)


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what remains of a norm: timm's norms contain an activation."""
    if not isinstance(norm, BatchNormAct2d):
        return nn.Identity()
    left = [part for part in (norm.drop, norm.act) if not isinstance(part, nn.Identity)]
    return left[0] if len(left) == 1 else nn.Sequential(*left)


def _watched(
    network: nn.Module, run: Callable[[], Any]
) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], list[Tensor]]:
    """Return each convolution with the norm that takes all of its outputs and nothing else.

    Also return the tensors that `run` gave.
    """
    # A tensor's id may be used again after the tensor is gone, so a reference to the tensor is
    # compared as well. A tensor that is changed in place before the norm has another version.
    made: dict[int, tuple[nn.Module, weakref.ref[Tensor], int]] = {}
    calls: Counter[int] = Counter()
    takers: defaultdict[int, list[nn.Module]] = defaultdict(list)
    sources: defaultdict[int, list[nn.Module | None]] = defaultdict(list)

    def gives(module: nn.Module, _: object, output: Tensor) -> None:
        calls[id(module)] += 1
        made[id(output)] = (module, weakref.ref(output), output._version)

    def takes(module: nn.Module, inputs: Sequence[Tensor]) -> None:
        taken = inputs[0]
        source, output, version = made.get(id(taken), (None, None, 0))
        if output is None or output() is not taken or taken._version != version:
            source = None
        sources[id(module)].append(source)
        if source is not None:
            takers[id(source)].append(module)

    convs = [module for module in network.modules() if type(module) in (nn.Conv2d, Conv2dSame)]
    norms = [
        module for module in network.modules() if type(module) in (nn.BatchNorm2d, BatchNormAct2d)
    ]
    hooks = [conv.register_forward_hook(gives) for conv in convs]
    hooks += [norm.register_forward_pre_hook(takes) for norm in norms]
    try:
        before = _tensors(run())
    finally:
        for hook in hooks:
            hook.remove()
    pairs = []
    for norm in norms:
        before_it = set(map(id, sources[id(norm)]))
        conv = next((source for source in sources[id(norm)]), None)
        if (
            isinstance(norm, nn.BatchNorm2d)
            and isinstance(conv, nn.Conv2d)
            and len(before_it) == 1
            and len(takers[id(conv)]) == calls[id(conv)]
            and all(taker is norm for taker in takers[id(conv)])
            and norm.running_mean is not None
        ):
            pairs.append((conv, norm))
    return pairs, before


def _same(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    return all(
        a.shape == b.shape
        and bool((a - b).abs().max() <= TOLERANCE * a.abs().max())  # False if either has NaN
        for a, b in zip(before, after, strict=True)
        if a.numel()
    )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = (
        value.values()
        if isinstance(value, Mapping)
        else value
        if isinstance(value, list | tuple)
        else ()
    )
    return [tensor for item in items for tensor in _tensors(item)]
