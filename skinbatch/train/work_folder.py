"""Keep the records of a training in its work folder, and refuse to continue another one there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skinbatch.errors import UsageError
from skinbatch.train.fitting.saved_state import whole
from skinbatch.train.recipe import Recipe

RECIPE, PHOTOS, PROBLEMS, DONE = "recipe.json", "photos.json", "problems.json", "done.json"


def keep_photos(work: Path, seen: dict[str, Any]) -> None:
    """Record the photos that are trained on. Raises UsageError if they have changed.

    Otherwise photos that were held back could be trained on, or the other way round.
    """
    path = work / PHOTOS
    before = read_json(path)
    if before is None:
        write_json(path, seen)
        return
    for name, now in seen.items():
        if before.get(name) != now:
            counts = (
                f": {before[name].get('photos')} photos then, {now['photos']} now"
                if "photos" in now
                else ""
            )
            raise UsageError(
                f"{work}: the inputs of this training have changed since it began ({name}{counts}); give another --out, "
                f"or remove {work}"
            )


def keep_recipe(recipe: Recipe, work: Path) -> None:
    """Record the recipe of this folder. Raises UsageError if another recipe was trained here."""
    path = work / RECIPE
    now = json.loads(
        json.dumps({name: value for name, value in recipe.as_dict().items() if name != "run"})
    )
    before = read_json(path)
    if before is not None:
        changed = list(_differences(before, now))
        if changed:
            raise UsageError(
                f"{work}: holds the training of another recipe: {'; '.join(changed[:3])}; give another --out, or remove {work}"
            )
        return
    write_json(path, now)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Any:
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"`{prefix}{name}` was {json.dumps(old)}, is {json.dumps(new)}"


def write_json(path: Path, value: Any) -> None:
    """Write JSON, all of it or nothing."""
    with whole(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any | None:
    """Read JSON; None if the file does not exist or is incomplete."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
