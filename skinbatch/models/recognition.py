"""Check and describe the network that was recognised in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skinbatch.errors import UsageError
from skinbatch.models.layers import CheckpointNetwork
from skinbatch.models.stages import AnyStage


def check_outputs(
    path: Path, number: int | None, stage: AnyStage, given: Mapping[str, Any]
) -> None:
    """Raise UsageError if the file has more or fewer classes than assumed, and nothing names them.

    stage: with the assumed classes.
    """
    if number is None or "classes" in given or number == len(stage.classes):
        return
    raise UsageError(
        f"{path}: distinguishes {number} classes and does not name them; give their names in order: --classes a,b,c"
    )


def describe_place(network: CheckpointNetwork) -> str:
    """Describe where in the file the layers are, and what else it contains."""
    begins = f"names begin with `{network.prefix}`" if network.prefix else "all names in the file"
    if not network.left_out:
        return begins
    left_out = [f"{name} ({n} tensors)" if n > 1 else name for name, n in network.left_out.items()]
    shown = ", ".join(left_out[:3]) + (
        f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    )
    return f"{begins}; left out: {shown}"
