"""Explain mistakes in a recipe, each in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel


def explain(error: Any, path: Path, root: type[BaseModel], prefix: str = "") -> str:
    """Return a line for one of pydantic's errors: file, setting and possible values.

    root: the model of the whole file. prefix: goes before the setting's name.
    """
    place = [
        part
        for part in error["loc"]
        if part not in ("SegmenterStage", "DetectorStage", "ClassifierStage")
    ]
    name = prefix + ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown setting `{name}`{_known(place, root)}"
    if error["type"] == "missing":
        return f"{path}: setting `{name}` is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{path}: [{name}]: {message}" if name else f"{path}: {message}"
    return f"{path}: setting `{name}`: {message} (got {error['input']!r})"


def _known(place: list[Any], root: type[BaseModel]) -> str:
    """Return `; there are: …` for the table that holds the last part of a place."""
    table: Any = root
    for part in place[:-1]:
        if isinstance(part, int):
            continue
        field = table.model_fields.get(part)
        inner = [kind for kind in _kinds(field.annotation)] if field is not None else []
        if not inner:
            return ""
        table = inner[0]
    return "; there are: " + ", ".join(table.model_fields)


def _kinds(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)
