"""Recognise errors of models, and tell those that are not the fault of the photo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skinbatch.redact import without_addresses


class DeviceLost(Exception):
    """Report a GPU that answers every call of this process with the same error.

    Only a new process can use the GPU again.
    """


class ModelFailure:
    """Hold the error message of a model that failed on one photo."""

    def __init__(self, model: str, error: Exception) -> None:
        lines = without_addresses(str(error)).splitlines()
        self.message = f"{model}: {type(error).__name__}: {lines[0] if lines else ''}"[:500]


def device_is_lost(error: Exception) -> bool:
    """Return whether a CUDA error stays with the process.

    The next photos would fail as well then. Running out of memory does not.
    """
    return (
        isinstance(error, RuntimeError)
        and "CUDA error" in str(error)
        and "out of memory" not in str(error)
    )


def without_nan(
    name: str, values: NDArray[np.float32] | ModelFailure | None
) -> NDArray[np.float32] | ModelFailure | None:
    """Return the values, or a ModelFailure if one of them is NaN or infinite."""
    if isinstance(values, np.ndarray) and not np.isfinite(values).all():
        return ModelFailure(name, ArithmeticError("the model returned NaN"))
    return values
