"""Compare an architecture's layers with a checkpoint's, and find the network that matches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from skinbatch.errors import PackError, UsageError
from skinbatch.models.weights import BOOKKEEPING

Shapes = Mapping[str, tuple[int, ...]]
Rename = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

# Parts that torch's wrappers put into names, in front or in the middle: DataParallel and averaging,
# torch.compile, FSDP, activation checkpointing. They are also removed from the architecture's names
# for the comparison.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class CheckpointNetwork:
    """Hold one network of a checkpoint.

    prefix: the beginning of its names in the file. tensors: by the architecture's names. left_out:
    the other contents of the file by their first name, with the number of tensors.
    """

    prefix: str
    tensors: dict[str, Tensor]
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Candidate:
    prefix: str
    tensors: Mapping[str, Tensor]
    layers: Shapes

    @property
    def known(self) -> int:
        """Return how many of the architecture's layers it has."""
        return sum(name in self.tensors for name in self.layers)

    @property
    def whole(self) -> bool:
        return self.known == len(self.layers)

    @property
    def fits(self) -> bool:
        """Return whether it has every layer in the architecture's shape."""
        return self.whole and all(
            tuple(self.tensors[name].shape) == shape for name, shape in self.layers.items()
        )


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    """Return the shape of every layer of a network, without counters.

    The network is built without memory if possible.
    """
    try:
        with torch.device("meta"):
            network = build()
    except Exception:  # some networks read their own numbers while they are built, and fail in any way without memory
        network = build()
    state = network.state_dict()
    return {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith(BOOKKEEPING)
    }


def find_network(
    path: Path,
    tensors: Mapping[str, Tensor],
    variants: Sequence[Shapes],
    rename: Rename,
    prefix: str | None = None,
) -> CheckpointNetwork:
    """Find the network of an architecture among a checkpoint's tensors, under any prefix.

    Args:
        path: the checkpoint, for messages.
        tensors: every tensor of the file by its full name.
        variants: layers and shapes, one mapping for each form of the architecture.
        rename: translate the names of another library's network into the architecture's names.
        prefix: the beginning of the names, if the user gave it; None to look for it.

    Returns:
        The network. It may lack layers or have others if nothing in the file fits better.

    Raises:
        UsageError: two networks of the file fit and differ, or the file has nothing under `prefix`.
        PackError: no name in the file belongs to the architecture.
    """
    if prefix and not prefix.endswith("."):
        prefix += "."
    own_names = {_without_wrappers(name): name for layers in variants for name in layers}
    plain = {_without_wrappers(name): tensor for name, tensor in tensors.items()}
    written = {name: name for name in tensors}
    if len(plain) == len(tensors):
        written = dict(zip(plain, tensors, strict=True))
        tensors = plain
        prefix = prefix and _without_wrappers(prefix)
        variants = [
            {_without_wrappers(name): shape for name, shape in layers.items()}
            for layers in variants
        ]
    everything = _candidates(tensors, variants, rename)
    candidates = [candidate for candidate in everything if prefix in (None, candidate.prefix)]
    if not candidates:
        raise UsageError(f"{path}: no name begins with `{prefix}`; there are {_named(tensors)}")

    best = max(candidates, key=lambda c: (c.whole, c.known, -len(c.prefix)))
    if best.known == 0:
        raise PackError(
            f"{path}: none of its layers belongs to this architecture: the file has {_named(tensors)}; the architecture has "
            f"{_named(variants[0])}"
        )
    if best.whole:
        best = _only(path, [candidate for candidate in candidates if candidate.whole])

    others = [
        candidate.prefix
        for candidate in everything
        if candidate.whole and candidate.prefix != best.prefix
    ]
    beside = {
        best.prefix + name
        for name, tensor in best.tensors.items()
        if _is_beside(name, tensor, best, others)
    }
    kept = {
        own_names.get(name, name): tensor
        for name, tensor in best.tensors.items()
        if best.prefix + name not in beside
    }
    inside = {
        name: written[name]
        for name in tensors
        if name.startswith(best.prefix) and name not in beside
    }
    left_out = [name for name in tensors if name not in inside]
    return CheckpointNetwork(
        _as_written(best.prefix, inside), kept, _counted(left_out, best.prefix)
    )


def _as_written(prefix: str, names: Mapping[str, str]) -> str:
    """Return a network's prefix with the wrappers that the file has before every layer's own name.

    names: names in the file, by the same names without wrappers.
    """
    begins = {
        file_name.removesuffix(name.removeprefix(prefix)) for name, file_name in names.items()
    }
    begin = begins.pop()
    return begin if not begins and _without_wrappers(begin) == prefix else prefix


def _candidates(
    tensors: Mapping[str, Tensor], variants: Sequence[Shapes], rename: Rename
) -> list[_Candidate]:
    """Return every part of the file that has names of its own, as the best-matching variant."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parts.setdefault("", {})[name] = tensor
        at = name.find(".")
        while at >= 0:
            parts.setdefault(name[: at + 1], {})[name[at + 1 :]] = tensor
            at = name.find(".", at + 1)

    candidates = []
    for prefix, inner in parts.items():
        renamed = rename(inner)
        ways = [_Candidate(prefix, renamed, layers) for layers in variants]
        candidates.append(max(ways, key=lambda c: (c.whole, c.known, -len(c.layers))))
    return candidates


def _only(path: Path, whole: Sequence[_Candidate]) -> _Candidate:
    """Return the only network, or the first if all of them are the same."""
    fitting = [candidate for candidate in whole if candidate.fits] or list(whole)
    first = fitting[0]
    if all(_same(first, other) for other in fitting[1:]):
        return first

    names = " and ".join(f"`{candidate.prefix}`" for candidate in fitting)
    raise UsageError(
        f"{path}: holds {len(fitting)} different networks of this architecture. Their names begin with {names}; "
        f"choose one: --prefix {fitting[0].prefix or repr('')}"
    )


def _same(one: _Candidate, other: _Candidate) -> bool:
    return all(
        torch.equal(one.tensors[name], other.tensors[name])
        for name in one.layers
        if name in other.tensors
    )


def _is_beside(name: str, tensor: Tensor, network: _Candidate, others: Sequence[str]) -> bool:
    """Return whether a tensor under the network's prefix is not one of its layers.

    It is a counter, or belongs to another network of the file.
    """
    if name in network.layers:
        return False
    is_counter = tensor.numel() <= 1 and not tensor.is_floating_point()
    return is_counter or (network.prefix + name).startswith(tuple(others))


def _counted(left_out: Sequence[str], prefix: str) -> Mapping[str, int]:
    """Count tensors by the first part of the name that differs from the network's prefix."""
    kept = prefix.split(".")
    counted: dict[str, int] = {}
    for name in left_out:
        parts = name.split(".")
        shared = next(
            (n for n, pair in enumerate(zip(parts, kept, strict=False)) if pair[0] != pair[1]), 0
        )
        first = ".".join(parts[: shared + 1])
        counted[first] = counted.get(first, 0) + 1
    return counted


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _named(names: Mapping[str, object]) -> str:
    """Return three names of many, for a message."""
    first = ", ".join(f"`{name}`" for name in list(names)[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{first} and {more} more" if more > 0 else first
