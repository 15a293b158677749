"""Read a grading scheme that a user wrote as TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skinbatch.errors import UsageError
from skinbatch.grading.schemes import SCHEMES, Area, Scheme
from skinbatch.toml_file import read_toml

Name = Annotated[str, Field(min_length=1, max_length=100)]


class _SchemeFile(BaseModel):
    """Hold the keys of a scheme file; see `Scheme` for their meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    grades: Annotated[list[Name], Field(min_length=1, max_length=100)]
    upper: list[Annotated[int, Field(ge=0)]]
    area: Area = "half"
    classes: Annotated[list[Name], Field(min_length=1)] | None = None


def find_scheme(name_or_file: str) -> Scheme:
    """Return a scheme by its name, or from a TOML file.

    A file has the keys `name`, `grades` (names by level), `upper` (the highest count of each grade
    but the last) and, if needed, `area` ("half" or "whole") and `classes`:

        name = "trial-7"
        grades = ["clear", "mild", "severe"]
        upper = [0, 10]
        classes = ["papule", "pustule"]

    Raises:
        UsageError: there is no such scheme or file, or the file is wrong.
    """
    if name_or_file in SCHEMES:
        return SCHEMES[name_or_file]
    if not name_or_file.endswith(".toml"):
        raise UsageError(
            f"no grading scheme {name_or_file!r}: there are {', '.join(SCHEMES)}, or a file such as scheme.toml"
        )

    try:
        data = read_toml(Path(name_or_file))
    except FileNotFoundError:
        raise UsageError(f"{name_or_file}: no such scheme file") from None

    return _parse(data, name_or_file)


def _parse(data: dict[str, Any], where: str) -> Scheme:
    try:
        read = _SchemeFile.model_validate(data)
    except ValidationError as e:
        problems = (f"`{'.'.join(map(str, err['loc']))}`: {err['msg']}" for err in e.errors())
        keys = ", ".join(_SchemeFile.model_fields)
        raise UsageError(f"{where}: {'; '.join(problems)}; the keys are {keys}") from None

    if read.name in SCHEMES:
        raise UsageError(
            f"{where}: `name`: {read.name!r} is the name of a scheme that exists; choose another one"
        )

    try:
        return Scheme(
            read.name,
            tuple(read.grades),
            tuple(read.upper),
            read.area,
            tuple(read.classes) if read.classes else None,
        )
    except ValueError as e:
        raise UsageError(f"{where}: {e}") from None
