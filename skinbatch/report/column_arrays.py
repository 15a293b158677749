"""Read columns of tables as arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def numbers_of(table: pa.Table, column: str) -> Floats:
    """Return (N,) a column as float64, NaN for null."""
    values = pc.cast(table.column(column), pa.float64())
    return np.asarray(values.to_numpy(), np.float64)
