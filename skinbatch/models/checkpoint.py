"""A user's checkpoint to a state dict: tensors and nothing else, finite, under the names that the network has."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from skinbatch.errors import PackError
from skinbatch.models.weights import BOOKKEEPING

_INSIDE = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "params")
"""Where training scripts put the weights in their checkpoints; the first that is there is taken."""
_WAY_OUT = (
    'python -c "import sys, torch; c = torch.load(sys.argv[1], weights_only=False); '
    f"c = next((c[k] for k in {_INSIDE} if isinstance(c, dict) and k in c), c); "
    "torch.save(c if isinstance(c, dict) else c.state_dict(), 'weights.pth')\" FILE"
)
_DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.")
"""What DataParallel, torch.compile and Lightning put before every name."""

# Mappings within mappings that are looked into. {"state_dict": {"model": {...}}} has been seen.
_DEEPEST = 6


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by layer, floats in the precision of the file, from .safetensors or from what torch.save writes.

    Nothing in the file is executed. Raises PackError naming the file, and the layer where it holds NaN or infinity.
    """
    state = _unwrap(path, _read(path))
    check_tensors(path, state)
    return state


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """tensors: every one of the file by its full name, the keys of the mappings around it joined with dots. classes: as mmdet
    notes them in its checkpoints; None elsewhere."""

    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None = None


def read_tensors(path: Path) -> Checkpoint:
    """Read a checkpoint of any nesting. Nothing in the file is executed.

    Raises PackError naming the file, also if it holds no tensor.
    """
    content = _read(path)
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        _collect(content, "", tensors, set())
    if not tensors:
        raise PackError(f"{path}: holds no state dict (layer names with tensors) but {type(content).__name__}")
    return Checkpoint(tensors, _classes(content))


def _classes(content: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """mmdet 3 writes meta.dataset_meta.classes, mmdet 2 meta.CLASSES."""
    meta = content.get("meta")
    if not isinstance(meta, Mapping):
        return None
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes", dataset.get("CLASSES")) if isinstance(dataset, Mapping) else meta.get("CLASSES")
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        return None
    return tuple(names)


def _collect(
    content: Mapping[Any, Any], prefix: str, tensors: dict[str, Tensor], seen: set[int], depth: int = 0
) -> None:
    """Collect the tensors of nested mappings. A mapping that is in the file twice is read once."""
    seen.add(id(content))
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor) and not name.endswith(BOOKKEEPING):
            tensors[name] = value
        elif isinstance(value, Mapping) and id(value) not in seen and depth < _DEEPEST:
            _collect(value, f"{name}.", tensors, seen, depth + 1)


def check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise PackError naming the first layer that is of a kind no network here has, or not finite."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device.type}"
            raise PackError(
                f"{path}: layer `{name}` is a tensor of a kind that is not read here ({kind}); save it as float32"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise PackError(f"{path}: layer `{name}` holds NaN or infinite numbers; the training has diverged")


def _read(path: Path) -> Any:
    try:
        return load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except FileNotFoundError:
        raise PackError(f"{path}: no such weights file") from None
    except (OSError, SafetensorError) as e:
        raise PackError(f"{path}: cannot be read: {e}") from None


def _unpickle(path: Path) -> Any:
    path.open("rb").close()  # what cannot be read at all; torch's own OSErrors are about what it finds inside
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if (code := _code(e)) is None:
            raise _no_checkpoint(path, e) from None
        raise PackError(
            f"{path}: holds more than weights (`{code}`), and loading that may run any code; it is refused. Where you trust "
            f"the file, save its weights alone and import those: {_WAY_OUT}"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as e:
        if "TorchScript" in str(e):
            raise PackError(
                f"{path}: is a TorchScript program; import the state dict of its module, or an ONNX export"
            ) from None
        raise _no_checkpoint(path, e) from None


def _code(error: Exception) -> str | None:
    """What a pickle wants to call, from torch's long message; None where it does not get that far."""
    named = re.search(r"GLOBAL ([\w.]+)|nsupported class ([\w.]+)", str(error))
    return (named.group(1) or named.group(2)) if named else None


def _no_checkpoint(path: Path, error: Exception) -> PackError:
    first = (str(error).splitlines() or [""])[0].split(". ")[0] or type(error).__name__
    return PackError(f"{path}: is no file that torch.save writes, or is cut off ({first})")


def _unwrap(path: Path, found: Any) -> dict[str, Tensor]:
    for _ in range(3):  # {"state_dict": {"model": {...}}} has been seen; deeper has not
        inner = next((found[key] for key in _INSIDE if isinstance(found, Mapping) and _is_mapping(found, key)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping) or not found:
        raise PackError(f"{path}: holds no state dict (layer names with tensors) but {type(found).__name__}")
    odd = next((str(name) for name, value in found.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        raise PackError(f"{path}: `{odd}` is no tensor; save the network's state dict alone")
    state = {str(name): value for name, value in found.items() if not str(name).endswith(BOOKKEEPING)}
    stripped = True
    while stripped:
        stripped = False
        for prefix in _WRAPPERS:
            if state and all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
                stripped = True
    return state


def _is_mapping(found: Mapping[Any, Any], key: str) -> bool:
    return isinstance(found.get(key), Mapping)
