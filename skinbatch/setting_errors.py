"""Explain what is wrong with the settings that people write, each mistake in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel


def explain(
    error: Any,
    where: Path | str,
    root: type[BaseModel] | None = None,
    *,
    prefix: str = "",
    leave_out: Sequence[str] = (),
) -> str:
    """Return a line for one of pydantic's errors: the file, the setting and what it may be.

    Args:
        error: One of `ValidationError.errors()`.
        where: The file, or another name for the settings.
        root: The model of the whole file, whose settings are listed if one is unknown.
        prefix: Goes before the setting's name.
        leave_out: Parts of a place that people do not write.
    """
    place = [part for part in error["loc"] if part not in leave_out]
    name = prefix + ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown setting `{name}`{_known(place, root)}"
    if error["type"] == "missing":
        return f"{where}: setting `{name}` is missing"

    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{where}: [{name}]: {message}" if name else f"{where}: {message}"
    return f"{where}: setting `{name}`: {message} (got {error['input']!r})"


def _known(place: Sequence[Any], root: type[BaseModel] | None) -> str:
    """Return `; there are: …` for the table that holds the last part of a place."""
    if root is None:
        return ""
    table: type[BaseModel] = root
    for part in place[:-1]:
        if isinstance(part, int):
            continue
        field = table.model_fields.get(part)
        inner = None if field is None else next(_models(field.annotation), None)
        if inner is None:
            return ""
        table = inner
    return "; there are: " + ", ".join(table.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in a type: itself, and those of which it is made."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
