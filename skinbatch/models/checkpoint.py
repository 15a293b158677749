"""Read a user's checkpoint as a state dict, without executing anything in it.

The result has only finite tensors, under the network's own names.
"""

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

# The keys under which training scripts store the weights in a checkpoint. The first one found is
# used.
_INSIDE = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "params")
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
# The prefixes that DataParallel, torch.compile and Lightning put before every name.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.")

# How deep nested mappings are searched. {"state_dict": {"model": {...}}} occurs in practice.
_DEEPEST = 6


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return tensors by layer, floats in the precision of the file.

    The file is .safetensors, or was written by torch.save; nothing in it is executed.

    Raises PackError naming the file, and the layer if it has NaN or infinity.
    """
    state = _unwrap(path, _read(path))
    check_tensors(path, state)
    return state


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Hold the tensors and classes of a checkpoint.

    tensors: every tensor by its full name, with the keys of the mappings around it joined by dots.
    classes: as mmdet notes them in its checkpoints; None for other files.
    """

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
        raise PackError(
            f"{path}: holds no state dict (layer names with tensors) but {type(content).__name__}"
        )
    return Checkpoint(tensors, _classes(content))


def _classes(content: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """Return the classes: mmdet 3 writes meta.dataset_meta.classes, mmdet 2 meta.CLASSES."""
    meta = content.get("meta")
    if not isinstance(meta, Mapping):
        return None
    dataset = meta.get("dataset_meta")
    names = (
        dataset.get("classes", dataset.get("CLASSES"))
        if isinstance(dataset, Mapping)
        else meta.get("CLASSES")
    )
    if (
        not isinstance(names, list | tuple)
        or not names
        or not all(isinstance(name, str) and name for name in names)
    ):
        return None
    return tuple(names)


def _collect(
    content: Mapping[Any, Any],
    prefix: str,
    tensors: dict[str, Tensor],
    seen: set[int],
    depth: int = 0,
) -> None:
    """Collect the tensors of nested mappings. A mapping that occurs twice is read once."""
    seen.add(id(content))
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor) and not name.endswith(BOOKKEEPING):
            tensors[name] = value
        elif isinstance(value, Mapping) and id(value) not in seen and depth < _DEEPEST:
            _collect(value, f"{name}.", tensors, seen, depth + 1)


def check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise PackError naming the first layer that has NaN, infinity or an unsupported type."""
    for name, tensor in tensors.items():
        if (
            tensor.dtype not in _DTYPES
            or tensor.layout is not torch.strided
            or tensor.device.type != "cpu"
        ):
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device.type}"
            raise PackError(
                f"{path}: layer `{name}` has an unsupported tensor type ({kind}); save it as float32"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise PackError(
                f"{path}: layer `{name}` holds NaN or infinite numbers; the training has diverged"
            )


def _read(path: Path) -> Any:
    try:
        return load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except FileNotFoundError:
        raise PackError(f"{path}: no such weights file") from None
    except (OSError, SafetensorError) as e:
        raise PackError(f"{path}: cannot be read: {e}") from None


def _unpickle(path: Path) -> Any:
    path.open(
        "rb"
    ).close()  # raises if unreadable; torch's own OSErrors concern the file's contents
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if (code := _code(e)) is None:
            raise _no_checkpoint(path, e) from None
        raise PackError(
            f"{path}: contains more than weights (`{code}`). Loading it could run any code, so it is refused. If you trust "
            f"the file, save its weights alone and import those: {_WAY_OUT}"
        ) from None
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        struct.error,
    ) as e:
        if "TorchScript" in str(e):
            raise PackError(
                f"{path}: is a TorchScript program; import the state dict of its module, or an ONNX export"
            ) from None
        raise _no_checkpoint(path, e) from None


def _code(error: Exception) -> str | None:
    """Return the object that a pickle tries to call, from torch's message; None if it has none."""
    named = re.search(r"GLOBAL ([\w.]+)|nsupported class ([\w.]+)", str(error))
    return (named.group(1) or named.group(2)) if named else None


def _no_checkpoint(path: Path, error: Exception) -> PackError:
    first = (str(error).splitlines() or [""])[0].split(". ")[0] or type(error).__name__
    return PackError(f"{path}: was not written by torch.save, or is cut off ({first})")


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    for _ in range(3):  # {"state_dict": {"model": {...}}} occurs in practice, and nothing deeper
        inner = next(
            (
                content[key]
                for key in _INSIDE
                if isinstance(content, Mapping) and _is_mapping(content, key)
            ),
            None,
        )
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        raise PackError(
            f"{path}: holds no state dict (layer names with tensors) but {type(content).__name__}"
        )
    odd = next(
        (str(name) for name, value in content.items() if not isinstance(value, Tensor)), None
    )
    if odd is not None:
        raise PackError(f"{path}: `{odd}` is not a tensor; save the network's state dict alone")
    state = {
        str(name): value for name, value in content.items() if not str(name).endswith(BOOKKEEPING)
    }
    stripped = True
    while stripped:
        stripped = False
        for prefix in _WRAPPERS:
            if state and all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
                stripped = True
    return state


def _is_mapping(table: Mapping[Any, Any], key: str) -> bool:
    return isinstance(table.get(key), Mapping)
