"""Read TOML files that people write, and write TOML values."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from skinbatch.errors import SkinbatchError, UsageError


def read_toml(path: Path, error: type[SkinbatchError] = UsageError) -> dict[str, Any]:
    """Read a TOML file.

    Raises FileNotFoundError if it does not exist, and `error`, naming the file, if it is not TOML.
    Wrong bytes, endless numbers and tables that are nested too deep raise different exceptions in
    `tomllib`.
    """
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
        pairs = ", ".join(
            f"{toml_key(name)} = {toml_value(inner)}" for name, inner in value.items()
        )
        return "{ " + pairs + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """Return a key as TOML, quoted if necessary."""
    return (
        name
        if name.replace("_", "").replace("-", "").isalnum() and name.isascii()
        else toml_value(name)
    )
