"""Save and load network weights in safetensors: fp16 on disk, fp32 in use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from skinbatch.errors import PackError

# The last part of the names of counters, on which no result depends.
BOOKKEEPING = "num_batches_tracked"


def save_weights(network: nn.Module, path: Path) -> None:
    """Save parameters and running statistics as fp16, without the counters.

    No result depends on the counters.
    """
    save_state(network.state_dict(), path)


def save_state(state: Mapping[str, Tensor], path: Path, exact_vectors: bool = False) -> None:
    """Save tensors by layer, as save_weights does.

    exact_vectors: save tensors of one dimension, such as those of norms, in single precision.

    Raises ValueError for numbers that do not fit into half precision.
    """

    def stored(value: Tensor) -> Tensor:
        exact = not value.is_floating_point() or (exact_vectors and value.ndim == 1)
        return (value if exact else value.half()).detach().cpu().contiguous()

    tensors = {
        name: stored(value) for name, value in state.items() if not name.endswith(BOOKKEEPING)
    }
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{path}: layer `{name}` does not fit into half precision")
    # save_file writes files that only their owner can read, and packs are shared.
    path.write_bytes(save(tensors))


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Save a checkpoint unchanged, each tensor with memory of its own, as safetensors requires."""
    path.write_bytes(
        save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()})
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a safetensors file, floats as fp32.

    Raises PackError naming the file.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as e:
        raise PackError(f"{path}: not readable as safetensors: {e}") from None
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load the weights into the network.

    Raises PackError naming `where` and the layers that are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    needed = {name for name in own if not name.endswith(BOOKKEEPING)}
    given = {name for name in weights if not name.endswith(BOOKKEEPING)}
    faults = [
        f"{fault} layer {_first(names)}"
        for fault, names in (("missing", needed - given), ("unexpected", given - needed))
        if names
    ]
    if faults:
        raise PackError(f"{where}: {'; '.join(faults)}; the weights are not of this architecture")
    for name in sorted(needed):
        if weights[name].shape != own[name].shape:
            shapes = f"{tuple(weights[name].shape)}, the architecture has {tuple(own[name].shape)}"
            raise PackError(f"{where}: layer `{name}` is {shapes}")
    network.load_state_dict({name: weights[name] for name in needed}, strict=False)


def _first(names: set[str]) -> str:
    """Return three names of many, so that a reader can compare the file with the architecture."""
    first = ", ".join(f"`{name}`" for name in sorted(names)[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
