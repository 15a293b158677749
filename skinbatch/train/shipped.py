"""Find, list and read the recipes that come with the package."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from skinbatch.errors import UsageError

_FOLDER = Path(__file__).parent / "recipes"


def shipped_recipes() -> Mapping[str, Path]:
    """Return name -> file of every recipe in the package, sorted by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def is_shipped(path: Path) -> bool:
    """Return whether a recipe's file is one of the package's own."""
    return path.parent.resolve() == _FOLDER.resolve()


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a recipe: the name of a shipped one, or a path.

    Raises:
        UsageError: `name_or_path` is neither; the message names similar recipes.

    Example:
        >>> find_recipe("starter_detector").name
        'starter_detector.toml'
    """
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]

    path = Path(name_or_path)
    if path.exists():
        return path

    close = difflib.get_close_matches(path.stem, shipped, n=3)
    suggestion = f"did you mean {' or '.join(close)}? " if close else ""
    raise UsageError(
        f"{name_or_path}: no such recipe; {suggestion}`skinbatch recipes` lists those that come with skinbatch"
    )


def headline(path: Path) -> str:
    """Return the comment paragraph that opens a recipe, '' if it has none."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        words += line.removeprefix("# ").split()
    return " ".join(words)
