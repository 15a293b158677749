"""Define the Arrow schemas of the tables.

The metadata `description` of each field is its line in the data dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from skinbatch.tables.names import count_columns, mask_columns
from skinbatch.types import Status

# Version 1 had a column `meta_<name>` for each pass-through field of a file's photos.
SCHEMA_VERSION = 2

META = "meta"

_PIXELS = "pixels of the displayed original (EXIF orientation applied)"
_BYTES = "bytes that are not UTF-8 are written as `\\x{ff}`"
_ITA = "Individual typology angle: atan((L* - 50) / b*) over the median CIELAB of the skin; null without colour (b* < 0.5)"
_GRADE_CAVEAT = (
    "Hayashi counts inflammatory lesions (papules and pustules) only: with a detector that has one class for all "
    "lesions the grade is an overestimate"
)


def _field(name: str, kind: pa.DataType, description: str, *, null: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=null, metadata={"description": description})


_PHOTO = (
    _field(
        "image_id",
        pa.string(),
        f"Key relative to the source; for a member, `shard.tar/member`; {_BYTES}",
        null=False,
    ),
    _field(
        "uri",
        pa.string(),
        "Address of the bytes; for a member, the shard's uri and the member's name",
        null=False,
    ),
    _field(
        "sha256", pa.string(), "SHA-256 of the photo's bytes, hex; null when they could not be read"
    ),
    _field("size", pa.int64(), "Size of the photo in bytes, as read or listed"),
    _field(
        "version",
        pa.string(),
        "Opaque version: ETag on S3, mtime_ns locally, the shard's for members",
    ),
    _field("status", pa.string(), f"Outcome for the photo: {', '.join(Status)}", null=False),
    _field("error", pa.string(), "Error message for people; null for ok rows"),
    _field("width", pa.int32(), "Pixels as displayed (EXIF orientation applied)"),
    _field("height", pa.int32(), "Pixels as displayed (EXIF orientation applied)"),
    _field(
        "face",
        pa.bool_(),
        "True if a connected piece of skin covers at least 1 % of the photo and does not belong to another part of the "
        "body; otherwise counts and grade are null",
    ),
    _field(
        "faces",
        pa.int16(),
        "Number of pieces of skin large enough to be separate faces; only the largest is scored",
    ),
    _field(
        "view",
        pa.string(),
        "frontal or half, by the position of the nose in the skin, or as set in [grading]. Packs whose segmenter "
        "recognises close-ups also give closeup (the photo is all skin) and body (skin of a hand, foot, limb or trunk: "
        "not a face, with probabilities but neither counts nor grade)",
    ),
    _field(
        "skin_fraction",
        pa.float32(),
        "Share of the photo that is acne-affectable skin (skin and nose), 0-1",
    ),
    _field("crop_x1", pa.int32(), f"Left edge of the face crop, {_PIXELS}"),
    _field("crop_y1", pa.int32(), f"Top edge of the face crop, {_PIXELS}"),
    _field("crop_x2", pa.int32(), f"Right edge of the face crop, exclusive, {_PIXELS}"),
    _field("crop_y2", pa.int32(), f"Bottom edge of the face crop, exclusive, {_PIXELS}"),
    _field(
        "sharpness",
        pa.float32(),
        "Variance of the Laplacian of the crop's luma, its longer side at 256 px; low is blurred",
    ),
    _field("brightness", pa.float32(), "Mean luma of the crop, 0-255"),
    _field("ita_degrees", pa.float32(), _ITA),
)
_HALF = "in the displayed picture; null without a nose and in close-ups"
_COUNTS = (
    _field(
        "count_total",
        pa.int32(),
        "Counted lesions: score at or over the threshold, centre on the skin",
    ),
    _field(
        "count_left",
        pa.int32(),
        f"Counted lesions left of the nose {_HALF}",
    ),
    _field(
        "count_right",
        pa.int32(),
        f"Counted lesions right of the nose {_HALF}",
    ),
)
_GRADE = (
    _field(
        "saturated",
        pa.bool_(),
        "True if the detector's limit on boxes was reached; the counts may then be too low",
    ),
    _field(
        "grade",
        pa.string(),
        f"Severity in the words of the scheme; mild, moderate, severe or very_severe by Hayashi. {_GRADE_CAVEAT}",
    ),
    _field(
        "grade_level",
        pa.int8(),
        f"The grade as a number from 0, which is the mildest of the scheme. {_GRADE_CAVEAT}",
    ),
    _field(
        "grade_scheme",
        pa.string(),
        "Name of the grading scheme; ends in -closeup if only part of the face was visible",
    ),
)

BOXES = pa.schema(
    [
        _field("image_id", pa.string(), "The photo, as in `images`", null=False),
        _field("box_id", pa.int32(), "0, 1, ... within the photo, by descending score", null=False),
        _field("x1", pa.float32(), f"Left edge, {_PIXELS}", null=False),
        _field("y1", pa.float32(), f"Top edge, {_PIXELS}", null=False),
        _field("x2", pa.float32(), f"Right edge, {_PIXELS}", null=False),
        _field("y2", pa.float32(), f"Bottom edge, {_PIXELS}", null=False),
        _field(
            "score",
            pa.float32(),
            "The detector's confidence, 0-1; boxes are kept down to the score floor",
            null=False,
        ),
        _field("label", pa.string(), "The detector's class", null=False),
        _field(
            "skin_overlap",
            pa.float32(),
            "Share of the box's central region (its middle half in each direction) that lies on the face's skin, 0-1",
        ),
        _field(
            "side",
            pa.string(),
            "left or right of the nose in the displayed picture; null without a nose",
        ),
        _field(
            "counted",
            pa.bool_(),
            "Score at or over the threshold and skin_overlap at least 0.5",
            null=False,
        ),
    ]
)


META_FIELD = _field(
    META,
    pa.string(),
    "Fields passed through from the source (sidecar files in shards, columns of listings and Parquet files): a JSON "
    "object whose values are text; `{}` if there are none",
    null=False,
)


def meta_column_field(column: str) -> pa.Field:
    """Return the field of a column `meta_<name>`, which readers build from `meta`."""
    return _field(column, pa.string(), "Passed through from the source")


def images_schema(detector_classes: Sequence[str], prob_columns: Iterable[str]) -> pa.Schema:
    """Return the schema of `images` for one pack. Every file of a scoring has it.

    detector_classes: names as the detector has them. prob_columns: column names (`prob_rosacea`),
    in the order in which they appear.
    """
    counts = [
        _field(column, pa.int32(), f"Counted lesions of class {name!r}")
        for name, column in count_columns(detector_classes).items()
    ]
    probs = [
        _field(
            column,
            pa.float32(),
            "Probability of this class on its own (one logistic output for each class, so they need not add up to 1)",
        )
        for column in prob_columns
    ]
    tail = [
        _field(
            "top_class",
            pa.string(),
            "Disease with the highest probability; null if it is below the pack's threshold",
        ),
        _field("unit_id", pa.string(), "The unit of work that scored the photo", null=False),
        META_FIELD,
    ]
    return pa.schema([*_PHOTO, *_COUNTS, *counts, *_GRADE, *probs, *tail])


def masks_schema(segmenter_classes: Sequence[str]) -> pa.Schema:
    """Return the schema of `masks`: one row for each photo.

    `rle_<class>` are COCO compressed run lengths (`counts`) of size [height, width].
    """
    return pa.schema(
        [
            _field("image_id", pa.string(), "The photo, as in `images`", null=False),
            _field(
                "height",
                pa.int32(),
                "Pixels of the mask: the photo as displayed; null if there is no mask",
            ),
            _field(
                "width",
                pa.int32(),
                "Pixels of the mask: the photo as displayed; null if there is no mask",
            ),
            *(
                _field(
                    column,
                    pa.string(),
                    f"COCO compressed run lengths of class {name!r}; decode with size [height, width]",
                )
                for name, column in mask_columns(segmenter_classes).items()
            ),
        ]
    )


def gradings_schema(detector_classes: Sequence[str]) -> pa.Schema:
    """Return the schema of `gradings`: one row for each photo, the columns that a grading changes."""
    counts = [
        _field(column, pa.int32(), f"Counted lesions of class {name!r}")
        for name, column in count_columns(detector_classes).items()
    ]
    image_id = _field("image_id", pa.string(), "The photo, as in `images`", null=False)
    grade = [field for field in _GRADE if field.name != "saturated"]
    unit_id = _field("unit_id", pa.string(), "The unit of work that scored the photo", null=False)
    return pa.schema([image_id, *_COUNTS, *counts, *grade, unit_id])
