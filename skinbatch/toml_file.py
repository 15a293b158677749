"""TOML files that people write."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from skinbatch.errors import SkinbatchError, UsageError


def read_toml(path: Path, error: type[SkinbatchError] = UsageError) -> dict[str, Any]:
    """Raises FileNotFoundError where there is none, and `error`, naming it, for a file that is not TOML: wrong bytes, numbers
    without end and tables nested too deep are each told by an exception of their own."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as e:
        raise error(f"{path}: not readable as TOML: {e}") from None
