"""TOML files that people write."""

from __future__ import annotations

import json
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


def toml_value(value: Any) -> str:
    """Return a plain value as TOML on one line, tables inline."""
    if isinstance(value, dict) and not value:
        return "{}"
    if isinstance(value, dict):
        pairs = ", ".join(f"{toml_key(name)} = {toml_value(inner)}" for name, inner in value.items())
        return "{ " + pairs + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """Return a key as TOML, quoted where it has to be."""
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else toml_value(name)
