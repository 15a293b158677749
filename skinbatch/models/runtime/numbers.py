"""Take nested outputs of networks apart, and compare those of two runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from skinbatch.models.folding import TOLERANCE
from skinbatch.models.runtime.runtime import Precision

# The difference that a runtime may make, relative to the largest number of an output. In fp32 it is
# that of folding: rounding changes some millionths, and more in networks that amplify it. A number
# in bf16 has 8 binary digits.
TOLERANCES: dict[Precision, float] = {"fp32": TOLERANCE, "bf16": 0.1}
_TENSOR = object()


class OutputTree:
    """Remember where the tensors of a nested output are, to rebuild it around other tensors."""

    def __init__(self, output: Any) -> None:
        """Take the output apart. Raises TypeError if it holds anything but tensors and None."""
        leaves, self._spec = pytree.tree_flatten(output)

        others = {
            type(leaf).__name__
            for leaf in leaves
            if leaf is not None and not isinstance(leaf, Tensor)
        }
        if others:
            raise TypeError(f"its output holds {', '.join(sorted(others))}, not only tensors")
        self._leaves = [_TENSOR if isinstance(leaf, Tensor) else None for leaf in leaves]

    def rebuilt(self, tensors: Sequence[Tensor]) -> Any:
        """Return the output with these tensors in place of its own."""
        rest = iter(tensors)
        leaves = [next(rest) if leaf is _TENSOR else None for leaf in self._leaves]
        return pytree.tree_unflatten(leaves, self._spec)


def tensors_of(output: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a nested output, in a fixed order."""
    return tuple(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))


def difference(
    right: Sequence[Tensor], other: Sequence[Tensor], precision: Precision
) -> str | None:
    """Return what differs by more than `precision` explains, or None.

    Args:
        right: the outputs of torch in fp32.
        other: the same outputs of another runtime.
        precision: `fp32` or `bf16`, as the other runtime computes.
    """
    if len(right) != len(other):
        return f"it gives {len(other)} outputs, not {len(right)}"

    for number, (a, b) in enumerate(zip(right, other, strict=True)):
        if a.shape != b.shape:
            return f"output {number} is {tuple(b.shape)}, not {tuple(a.shape)}"
        if not a.numel():
            continue

        largest, wrong = float(a.abs().max()), float((a - b).abs().max())
        if not wrong <= TOLERANCES[precision] * largest:  # NaN is not less than anything
            return (
                f"output {number} differs by {wrong:.2g}, and its largest number is {largest:.2g}"
            )

    return None
