"""Save a training to disk, as a whole or not at all.

A kill at any moment leaves the checkpoint before.
"""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from skinbatch.errors import UsageError

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


@dataclass(slots=True)
class FitState:
    """Hold everything in a checkpoint besides weights.

    seconds: of training so far, over all starts. loss_sum, loss_steps, waited, step_seconds: since
    the last evaluation.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    since_best: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    waited: float = 0.0
    step_seconds: float = 0.0
    curve: list[Mapping[str, float]] = field(default_factory=list)


def save_checkpoint(work: Path, parts: Mapping[str, Any], state: FitState) -> None:
    """Save networks, optimiser and whatever else has a state_dict, by name."""
    write_tensors(
        {name: part.state_dict() for name, part in parts.items()} | {"state": asdict(state)},
        work / CHECKPOINT,
    )


def load_checkpoint(work: Path, parts: Mapping[str, Any], device: torch.device) -> FitState | None:
    """Load what was saved into the parts; return None if nothing was saved.

    Raises UsageError for a checkpoint of another network.
    """
    path = work / CHECKPOINT
    if not path.exists():
        return None
    try:
        kept = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            if kept[name]:  # the gradient scaler has no state on a CPU
                part.load_state_dict(kept[name])
        return FitState(**kept["state"])
    except (RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as e:
        raise UsageError(
            f"{path}: is not a checkpoint of this training ({_why(e)}); remove it, or give another --out"
        ) from None


def read_best(path: Path) -> Any:
    """Read the best weights so far. Raises UsageError if they do not exist or are damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as e:
        raise UsageError(
            f"{path}: cannot be read ({_why(e)}); remove {path.parent} to train again"
        ) from None


def _why(error: Exception) -> str:
    """Explain why torch did not read a file. Its own words advise running the file's code."""
    return "damaged" if isinstance(error, EOFError | pickle.UnpicklingError) else str(error)


def write_tensors(value: Any, path: Path) -> None:
    """Save tensors with torch.save, as a whole or not at all."""
    with whole(path) as file:
        torch.save(value, file)


def write_log(work: Path, curve: Sequence[Mapping[str, float]]) -> None:
    """Write all of `log.jsonl`, one line for each evaluation.

    No line is left from a training that was interrupted later.
    """
    with whole(work / LOG) as file:
        file.write("".join(json.dumps(dict(point)) + "\n" for point in curve).encode())


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Write a file under another name, sync it, and rename it if all went well."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
