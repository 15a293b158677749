"""Read TOML files that people write, and write TOML values."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
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


def toml_text(document: Mapping[str, Any], *, nested: bool) -> str:
    """Return a document as TOML: plain values first, then its tables.

    Args:
        document: plain values, dicts (tables) and lists of dicts (one table each).
        nested: write the dicts of a table as tables of their own, instead of on one line.

    Example:
        >>> print(toml_text({"name": "a", "run": {"workers": 2}}, nested=True), end="")
        name = "a"
        <BLANKLINE>
        [run]
        workers = 2
    """
    tables: list[tuple[str, str, Mapping[str, Any]]] = []
    plain: dict[str, Any] = {}
    for name, value in document.items():
        key = toml_key(name)
        if isinstance(value, Mapping):
            tables.append((f"[{key}]", key, value))
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            tables += [(f"[[{key}]]", key, table) for table in value]
        else:
            plain[name] = value

    lines = _pairs(plain)
    for header, key, table in tables:
        inner = {n: v for n, v in table.items() if nested and isinstance(v, Mapping)}
        lines += ["", header, *_pairs({n: v for n, v in table.items() if n not in inner})]
        for name, below in inner.items():
            lines += ["", f"[{key}.{toml_key(name)}]", *_pairs(below)]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{toml_key(name)} = {toml_value(value)}" for name, value in table.items()]


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
    # JSON's scalars are valid TOML except for null, which callers leave out, and DEL, which TOML
    # requires to be escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """Return a key as TOML, quoted if necessary."""
    return (
        name
        if name.replace("_", "").replace("-", "").isalnum() and name.isascii()
        else toml_value(name)
    )
