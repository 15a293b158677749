"""Batch norms folded into the convolutions before them: the same numbers but for rounding, in less time."""

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

TOLERANCE = 1e-3
"""Of the largest number that a network gives: what folding may change. Rounding changes some millionths."""
_folds: ContextVar[bool] = ContextVar("folds", default=True)
log = logging.getLogger(__name__)


@contextlib.contextmanager
def as_built() -> Generator[None, None, None]:
    """Networks that are made meanwhile are left as their library builds them."""
    token = _folds.set(False)
    try:
        yield
    finally:
        _folds.reset(token)


def example(height: int, width: int) -> Tensor:
    """(1, 3, height, width) float32 in [-1, 1], the same every time and nowhere constant."""
    return torch.arange(3 * height * width, dtype=torch.float32).mul_(0.7).sin_().reshape(1, 3, height, width)


def fold_batch_norms(network: nn.Module, run: Callable[[], Any]) -> int:
    """Fold every batch norm that follows one convolution alone, in place. network: in evaluation, float32, on the CPU. run: what
    it makes of an example, any nest of tensors.

    Which norm follows which convolution is seen while it runs. What it makes of the example is compared afterwards, and where
    that has changed everything is as it was. Returns the number of norms folded.
    """
    if not _folds.get():
        return 0
    with torch.no_grad():  # not inference_mode, whose tensors explanations could not use
        try:
            pairs, before = _watched(network, run)
        except Exception as e:  # a user's network may not bear the example; what it makes of photos is another matter
            log.info("%s: its batch norms stay, because it cannot run the example: %s", type(network).__name__, e)
            return 0
        if not pairs:
            return 0
        parents = {id(child): (parent, name) for parent in network.modules() for name, child in parent.named_children()}
        folded = [_Folded(conv, norm, *parents[id(norm)]) for conv, norm in pairs]
        for each in folded:
            each.fold()
        try:
            if _same(before, _tensors(run())):
                return len(folded)
            why = "folding them changes its numbers"
        except Exception as e:  # code that looks at its norms finds them gone
            why = f"it cannot run without them: {e}"
        for each in folded:
            each.undo()
    log.info("%s: its batch norms stay, because %s", type(network).__name__, why)
    return 0


class _Folded:
    """A convolution and the norm after it."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, parent: nn.Module, name: str) -> None:
        self.conv, self.norm, self.parent, self.name = conv, norm, parent, name
        self.weight, self.bias = conv.weight, conv.bias

    def fold(self) -> None:
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        setattr(self.parent, self.name, _after(norm))

    def undo(self) -> None:
        self.conv.weight, self.conv.bias = self.weight, self.bias
        setattr(self.parent, self.name, self.norm)


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a norm: timm's have an activation in them."""
    if not isinstance(norm, BatchNormAct2d):
        return nn.Identity()
    left = [part for part in (norm.drop, norm.act) if not isinstance(part, nn.Identity)]
    return left[0] if len(left) == 1 else nn.Sequential(*left)


def _watched(network: nn.Module, run: Callable[[], Any]) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], list[Tensor]]:
    """Convolutions with the norm that takes all of their outputs and nothing else, and what `run` gives."""
    # An identity may come again when its tensor is gone, so that the tensor itself is asked for; and what is changed in place
    # on the way to the norm is another version of it.
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
    norms = [module for module in network.modules() if type(module) in (nn.BatchNorm2d, BatchNormAct2d)]
    hooks = [conv.register_forward_hook(gives) for conv in convs]
    hooks += [norm.register_forward_pre_hook(takes) for norm in norms]
    try:
        before = _tensors(run())
    finally:
        for hook in hooks:
            hook.remove()
    found = []
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
            found.append((conv, norm))
    return found, before


def _same(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= TOLERANCE * a.abs().max())  # not where either has NaN
        for a, b in zip(before, after, strict=True)
        if a.numel()
    )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]
