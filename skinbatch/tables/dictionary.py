"""Describe every column of every table: the data dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from skinbatch.tables.schema import BOXES, gradings_schema, images_schema, masks_schema


@dataclass(frozen=True, slots=True)
class Column:
    """Describe a column.

    type: Arrow's name of its type. meaning: one or more sentences, with the unit.
    """

    name: str
    type: str
    nullable: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class TableText:
    """Describe a table. rows: what one row stands for."""

    name: str
    rows: str
    columns: tuple[Column, ...]


def dictionary(
    detector_classes: Sequence[str], prob_columns: Iterable[str], segmenter_classes: Sequence[str]
) -> tuple[TableText, ...]:
    """Return the data dictionary for a pack: the texts that the files also carry as field metadata.

    Args:
        detector_classes: of the pack.
        prob_columns: columns of all its classifiers.
        segmenter_classes: of the pack.
    """
    return (
        _table(
            "images",
            "One row for each listed photo, scored or not.",
            images_schema(detector_classes, prob_columns),
        ),
        _table(
            "boxes",
            "One row for each stored box. Boxes below the threshold are stored too, with `counted` false.",
            BOXES,
        ),
        _table(
            "masks",
            "One row for each photo, written only with `--save-masks`.",
            masks_schema(segmenter_classes),
        ),
        _table(
            "gradings",
            "One row for each photo, written by `skinbatch regrade`. `skinbatch.open(DEST, grading=ID)` shows `images` "
            "and `boxes` with it.",
            gradings_schema(detector_classes),
        ),
    )


def _table(name: str, rows: str, schema: pa.Schema) -> TableText:
    columns = (
        Column(
            field.name,
            str(field.type),
            field.nullable,
            (field.metadata or {})[b"description"].decode(),
        )
        for field in schema
    )
    return TableText(name, rows, tuple(columns))
