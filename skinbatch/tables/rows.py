"""Build Arrow tables from scored photos, and copy rows of older tables into new ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.redact import redacted, without_addresses
from skinbatch.tables.meta import meta_json
from skinbatch.tables.names import count_columns, mask_columns, safe_text
from skinbatch.tables.schema import BOXES, META, images_schema, masks_schema
from skinbatch.types import GradedBox, ImageRef, ImageResult, Status

_CROP = ("crop_x1", "crop_y1", "crop_x2", "crop_y2")
_SAME_NAME = (
    *(
        "sha256",
        "width",
        "height",
        "face",
        "faces",
        "view",
        "skin_fraction",
        "sharpness",
        "brightness",
        "ita_degrees",
    ),
    *(
        "count_total",
        "count_left",
        "count_right",
        "saturated",
        "grade",
        "grade_level",
        "grade_scheme",
        "top_class",
    ),
)
_BOX = ("x1", "y1", "x2", "y2", "score", "label", "skin_overlap", "side", "counted")
_REF = ("image_id", "uri", "size", "version", "unit_id", META)


class Row(NamedTuple):
    """Hold one photo that is to be written to the tables."""

    ref: ImageRef
    unit_id: str
    result: ImageResult


def images_table(
    rows: Sequence[Row], detector_classes: Sequence[str], prob_columns: Sequence[str]
) -> pa.Table:
    """Return one row for each photo, in the given order.

    prob_columns: column names of the pack, of all heads. A photo without counts or probabilities
    has nulls there.
    """
    counts = count_columns(detector_classes)
    schema = images_schema(detector_classes, prob_columns)
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for ref, unit_id, result in rows:
        for name, value in _of_ref(ref, unit_id).items():
            columns[name].append(value)
        columns["status"].append(result.status.value)
        columns["error"].append(None if result.error is None else _error_text(result.error))
        for name in _SAME_NAME:
            columns[name].append(getattr(result, name))
        for name, edge in zip(_CROP, result.crop or (None,) * 4, strict=True):
            columns[name].append(edge)
        for class_name, column in counts.items():
            columns[column].append(result.counts.get(class_name))
        for column in prob_columns:
            columns[column].append(result.probs.get(column))
    return pa.table(columns, schema=schema)


def boxes_table(rows: Sequence[Row]) -> pa.Table:
    """Return one row for each box, in the order of the photos, box_id from 0 within each.

    Photos without boxes have no rows.
    """
    columns: dict[str, list[Any]] = {name: [] for name in BOXES.names}
    for ref, _, result in rows:
        image_id = safe_text(ref.image_id)
        for box_id, box in enumerate(result.boxes):
            columns["image_id"].append(image_id)
            columns["box_id"].append(box_id)
            for name in _BOX:
                columns[name].append(getattr(box, name))
    return pa.table(columns, schema=BOXES)


def result_of(
    row: Mapping[str, Any],
    boxes: Sequence[Mapping[str, Any]],
    masks: Mapping[str, Any] | None,
    classes: tuple[Sequence[str], Sequence[str]],
    prob_columns: Collection[str],
) -> ImageResult:
    """Return the result from which the rows of one photo were made.

    Args:
        row: of `images`.
        boxes: its rows of `boxes`, in the order of box_id.
        masks: its row of `masks`, None if masks are not stored.
        classes: of the detector and of the segmenter. Counts of other classes are left out.
        prob_columns: the columns of probabilities to read.
    """
    crop = tuple(row[edge] for edge in _CROP)
    counts = {name: row.get(column) for name, column in count_columns(classes[0]).items()}
    values: dict[str, Any] = {name: row[name] for name in _SAME_NAME}
    return ImageResult(
        Status(row["status"]),
        row["error"],
        crop=None if None in crop else crop,
        counts={name: count for name, count in counts.items() if count is not None},
        probs={column: row[column] for column in prob_columns if row.get(column) is not None},
        boxes=tuple(GradedBox(**{name: box[name] for name in _BOX}) for box in boxes),
        mask_rle=None if masks is None else _rle_of(masks, classes[1]),
        **values,
    )


def _rle_of(masks: Mapping[str, Any], segmenter_classes: Sequence[str]) -> dict[str, bytes] | None:
    texts = {name: masks.get(column) for name, column in mask_columns(segmenter_classes).items()}
    if None in texts.values():
        return None
    return {name: str(text).encode("ascii") for name, text in texts.items()}


def masks_table(rows: Sequence[Row], segmenter_classes: Sequence[str]) -> pa.Table:
    """Return one row for each photo, in the given order; nulls for photos that have no mask."""
    columns: dict[str, list[Any]] = {name: [] for name in masks_schema(segmenter_classes).names}
    for ref, _, result in rows:
        masks = result.mask_rle
        columns["image_id"].append(safe_text(ref.image_id))
        columns["height"].append(None if masks is None else result.height)
        columns["width"].append(None if masks is None else result.width)
        for class_name, column in mask_columns(segmenter_classes).items():
            columns[column].append(None if masks is None else masks[class_name].decode("ascii"))
    return pa.table(columns, schema=masks_schema(segmenter_classes))


def copy_rows(
    images: pa.Table,
    boxes: pa.Table,
    masks: pa.Table | None,
    keep: Mapping[str, tuple[ImageRef, str]],
) -> tuple[pa.Table, pa.Table, pa.Table | None]:
    """Copy the rows of older results that are still valid into new units, in their old order.

    keep: image_id in the older tables -> the photo as it is listed now, and its unit. The new rows
    have the photo's image_id, uri, size, version, meta and unit_id; every computed value stays as
    it was.
    """
    kept = _only(images, keep)
    chosen = [keep[old] for old in kept.column("image_id").to_pylist()]
    fresh: dict[str, list[Any]] = {name: [] for name in _REF}
    for ref, unit_id in chosen:
        for name, value in _of_ref(ref, unit_id).items():
            fresh[name].append(value)

    fields = list(kept.schema)
    arrays = [
        pa.array(fresh[f.name], f.type) if f.name in fresh else kept.column(f.name) for f in fields
    ]
    renamed = {old: safe_text(ref.image_id) for old, (ref, _) in keep.items()}
    return (
        pa.table(arrays, schema=pa.schema(fields)),
        _rename(_only(boxes, keep), renamed),
        None if masks is None else _rename(_only(masks, keep), renamed),
    )


def concat_images(tables: Iterable[pa.Table]) -> pa.Table:
    """Return several `images` tables of one scoring as one, with the schema of the first.

    Raises ValueError if their columns differ.
    """
    parts = list(tables)
    schema = parts[0].schema
    for part in parts:
        if [(f.name, f.type) for f in part.schema] != [(f.name, f.type) for f in schema]:
            raise ValueError(
                f"tables of different scorings: columns {part.column_names} and {schema.names}"
            )
    return pa.concat_tables(pa.table(part.columns, schema=schema) for part in parts)


def _of_ref(ref: ImageRef, unit_id: str) -> dict[str, Any]:
    version = None if ref.version is None else safe_text(ref.version)
    values = (
        safe_text(ref.image_id),
        safe_text(ref.uri),
        ref.size,
        version,
        unit_id,
        meta_json(ref.meta),
    )
    return dict(zip(_REF, values, strict=True))


def _error_text(error: str) -> str:
    return safe_text(without_addresses(redacted(error)))


def _only(table: pa.Table, keep: Mapping[str, object]) -> pa.Table:
    return table.filter(
        pc.is_in(table.column("image_id"), value_set=pa.array(list(keep), pa.string()))
    )


def _rename(table: pa.Table, renamed: Mapping[str, str]) -> pa.Table:
    field = table.schema.field("image_id")
    ids = pa.array([renamed[old] for old in table.column("image_id").to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("image_id"), field, ids)
