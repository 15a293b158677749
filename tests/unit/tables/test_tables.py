import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from skinbatch.errors import TableError
from skinbatch.tables.parquet import file_metadata, read_metadata, read_parquet, write_parquet
from skinbatch.tables.rows import (
    Row,
    boxes_table,
    concat_images,
    copy_rows,
    images_table,
    masks_table,
)
from skinbatch.tables.schema import BOXES, images_schema, masks_schema
from skinbatch.types import GradedBox, ImageRef, ImageResult, Status

CLASSES = ("acne",)
PROBS = ("prob_rosacea", "prob_lupus")
METADATA = file_metadata(
    "0123456789ab", 1, "starter", {"detector": "d" * 64, "segmenter": "s" * 64}
)


def box(score: float) -> GradedBox:
    return GradedBox(1.5, 2.0, 20.0, 22.0, score, "acne", 0.9, "left", score >= 0.3)


def scored(boxes: int = 2) -> ImageResult:
    return ImageResult(
        Status.OK,
        sha256="a" * 64,
        width=640,
        height=480,
        face=True,
        faces=1,
        view="half",
        skin_fraction=0.4,
        crop=(10, 20, 300, 400),
        count_total=1,
        counts={"acne": 1},
        saturated=False,
        grade="mild",
        grade_level=0,
        grade_scheme="hayashi",
        probs={"prob_rosacea": 0.25, "prob_lupus": 0.5},
        top_class="lupus",
        boxes=tuple(box(0.9 - 0.7 * n) for n in range(boxes)),
    )


def photo(name: str, **meta: str) -> ImageRef:
    return ImageRef(name, f"/photos/{name}", 100, "v1", meta)


def images(*rows: Row) -> pa.Table:
    return images_table(rows, CLASSES, PROBS)


def test_images_has_the_columns_of_the_contract_in_its_order() -> None:
    schema = images_schema(["acne"], ["prob_rosacea"])
    text = (
        "image_id! string · uri! string · sha256 string · size int64 · version string · status! string · error string · "
        "width int32 · height int32 · face bool · faces int16 · view string · skin_fraction float · crop_x1 int32 · "
        "crop_y1 int32 · crop_x2 int32 · crop_y2 int32 · sharpness float · brightness float · ita_degrees float · "
        "count_total int32 · count_left int32 · count_right int32 · count_acne int32 · saturated bool · grade string · "
        "grade_level int8 · grade_scheme string · prob_rosacea float · top_class string · unit_id! string · meta! string"
    )
    assert " · ".join(f"{f.name}{'' if f.nullable else '!'} {f.type}" for f in schema) == text


def test_boxes_has_the_columns_of_the_contract_in_its_order() -> None:
    text = (
        "image_id! string · box_id! int32 · x1! float · y1! float · x2! float · y2! float · score! float · label! string · "
        "skin_overlap float · side string · counted! bool"
    )
    assert " · ".join(f"{f.name}{'' if f.nullable else '!'} {f.type}" for f in BOXES) == text


def test_every_field_is_described_and_the_grade_says_it_is_an_overestimate() -> None:
    for schema in (images_schema(["acne"], ["prob_x"]), BOXES, masks_schema(["skin"])):
        assert all(f.metadata[b"description"] for f in schema)
    assert b"overestimate" in images_schema([], []).field("grade").metadata[b"description"]


def test_a_scored_photo_becomes_one_row_with_its_values() -> None:
    row = images(Row(photo("a.jpg", patient="7"), "u1", scored())).to_pylist()[0]
    assert (row["image_id"], row["uri"], row["size"], row["version"]) == (
        "a.jpg",
        "/photos/a.jpg",
        100,
        "v1",
    )
    assert (row["status"], row["unit_id"], row["meta"]) == ("ok", "u1", '{"patient": "7"}')
    assert [row[f"crop_{edge}"] for edge in ("x1", "y1", "x2", "y2")] == [10, 20, 300, 400]
    assert (row["count_acne"], row["prob_rosacea"], row["top_class"]) == (1, 0.25, "lupus")


def test_a_failed_photo_has_its_status_and_nulls() -> None:
    row = images(
        Row(photo("b.jpg"), "u1", ImageResult(Status.CORRUPT, "b.jpg: not a JPEG"))
    ).to_pylist()[0]
    assert (row["status"], row["error"]) == ("corrupt", "b.jpg: not a JPEG")
    assert all(
        row[name] is None
        for name in ("count_acne", "count_total", "prob_lupus", "crop_x1", "face", "grade")
    )


def test_what_passes_through_is_one_json_object_a_row() -> None:
    first = Row(photo("a", patient="7", **{"Größe": 'sagt "groß"'}), "u", scored())
    table = images(first, Row(photo("b"), "u", scored()))
    assert table.schema.equals(images_schema(CLASSES, PROBS))
    assert table.column_names[-2:] == ["unit_id", "meta"]
    assert [json.loads(text) for text in table.column("meta").to_pylist()] == [
        {"Größe": 'sagt "groß"', "patient": "7"},
        {},
    ]
    assert table.column("meta").to_pylist()[1] == "{}"


def test_names_that_are_no_utf8_are_written_out_in_every_table() -> None:
    row = Row(photo("\udcff.jpg", note="\udcfe"), "u", scored(1))
    assert images(row).column("image_id").to_pylist() == [r"\x{ff}.jpg"]
    assert json.loads(images(row).column("meta").to_pylist()[0]) == {"note": r"\x{fe}"}
    assert boxes_table([row]).column("image_id").to_pylist() == [r"\x{ff}.jpg"]


def test_no_error_says_an_address_which_the_next_run_would_have_elsewhere() -> None:
    error = "a.jpg: cannot identify image file <_io.BytesIO object at 0x7f3a5c0e12b0>"
    row = images(Row(photo("a.jpg"), "u1", ImageResult(Status.CORRUPT, error))).to_pylist()[0]
    assert row["error"] == "a.jpg: cannot identify image file <_io.BytesIO object>"


def test_boxes_are_numbered_within_their_photo() -> None:
    rows = [
        Row(photo("a"), "u", scored(2)),
        Row(photo("b"), "u", scored(0)),
        Row(photo("c"), "u", scored(1)),
    ]
    table = boxes_table(rows)
    assert table.select(["image_id", "box_id"]).to_pylist() == [
        {"image_id": "a", "box_id": 0},
        {"image_id": "a", "box_id": 1},
        {"image_id": "c", "box_id": 0},
    ]
    assert table.column("counted").to_pylist() == [True, False, True]


def test_no_boxes_is_an_empty_table_with_the_full_schema() -> None:
    assert boxes_table([]).schema.equals(BOXES)
    assert read_parquet(write_parquet(boxes_table([]), METADATA), "x.parquet").num_rows == 0


def test_masks_have_one_row_a_photo_and_nulls_where_there_is_none() -> None:
    pixels = np.zeros((480, 640), np.uint8)
    pixels[100:200, 50:70] = 1
    counts = coco.encode(np.asfortranarray(pixels))["counts"]
    masked = ImageResult(Status.OK, width=640, height=480, mask_rle={"skin": counts})
    table = masks_table(
        [Row(photo("a"), "u", masked), Row(photo("b"), "u", ImageResult(Status.EMPTY))], ["skin"]
    )
    first, second = table.to_pylist()
    assert (
        coco.decode({"size": [first["height"], first["width"]], "counts": first["rle_skin"]})
        == pixels
    ).all()
    assert (second["height"], second["rle_skin"]) == (None, None)


def test_parquet_files_are_the_same_bytes_each_time_and_come_back_whole() -> None:
    table = images(Row(photo("a", patient="7"), "u", scored()))
    data = write_parquet(table, METADATA)
    assert data == write_parquet(images(Row(photo("a", patient="7"), "u", scored())), METADATA)
    back = read_parquet(data, "a.parquet")
    assert back.equals(table)
    assert read_metadata(back) == METADATA
    assert back.schema.field("status").metadata[b"description"].startswith(b"Outcome for the photo")


def test_files_carry_what_scored_them_and_are_compressed_with_zstd() -> None:
    file = pq.ParquetFile(
        io.BytesIO(write_parquet(images(Row(photo("a"), "u", scored())), METADATA))
    )
    assert file.metadata.metadata[b"skinbatch.fingerprint"] == b"0123456789ab"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_null_where_none_may_be_is_not_written() -> None:
    table = images(Row(photo("a"), "u", scored())).drop_columns(["status"])
    schema = images_schema(CLASSES, PROBS)
    broken = pa.table(
        [table.column(f.name) if f.name != "status" else pa.nulls(1, f.type) for f in schema],
        schema=schema,
    )
    with pytest.raises(pa.ArrowInvalid):
        write_parquet(broken, METADATA)


def test_damaged_files_are_named() -> None:
    data = write_parquet(images(Row(photo("a"), "u", scored())), METADATA)
    for damaged in (data[: len(data) // 2], b"", b"x" * 100):
        with pytest.raises(TableError, match=r"a\.parquet: not readable"):
            read_parquet(damaged, "a.parquet")


def test_files_of_others_and_of_newer_versions_are_refused() -> None:
    table = pa.table({"x": [1]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    with pytest.raises(TableError, match="did not write"):
        read_parquet(sink.getvalue(), "x.parquet")
    with pytest.raises(TableError, match="schema version 99"):
        read_parquet(write_parquet(table, {"schema_version": "99"}), "x.parquet")


def changed_fields(table: pa.Table) -> list[pa.Field]:
    """Return fields that differ from the schema of `images` in what or where they are."""
    return [
        a
        for a, b in zip(table.schema, images_schema(CLASSES, PROBS), strict=True)
        if not a.equals(b)
    ]


def test_copied_rows_keep_what_was_computed_and_take_the_photos_new_place() -> None:
    old = [
        Row(photo("a", label="x"), "u1", scored(2)),
        Row(photo("b"), "u1", scored(1)),
        Row(photo("c"), "u1", scored(1)),
    ]
    moved = ImageRef("new.tar/c", "/photos/new.tar/c", 100, "v9", {"patient": "3"})
    kept, boxes, masks = copy_rows(
        images(*old), boxes_table(old), None, {"a": (photo("a"), "u2"), "c": (moved, "u2")}
    )
    assert kept.select(["image_id", "uri", "version", "unit_id", "meta"]).to_pylist() == [
        {"image_id": "a", "uri": "/photos/a", "version": "v1", "unit_id": "u2", "meta": "{}"},
        {
            "image_id": "new.tar/c",
            "uri": "/photos/new.tar/c",
            "version": "v9",
            "unit_id": "u2",
            "meta": '{"patient": "3"}',
        },
    ]
    assert not changed_fields(kept)
    assert boxes.column("image_id").to_pylist() == ["a", "a", "new.tar/c"]
    assert boxes.schema.equals(BOXES)
    assert masks is None


def test_copied_masks_follow_their_photo() -> None:
    row = Row(photo("a"), "u1", ImageResult(Status.OK, width=2, height=2, mask_rle={"skin": b"04"}))
    _, _, masks = copy_rows(
        images(row), boxes_table([row]), masks_table([row], ["skin"]), {"a": (photo("b"), "u2")}
    )
    assert masks is not None
    assert masks.to_pylist() == [{"image_id": "b", "height": 2, "width": 2, "rle_skin": "04"}]


def test_keeping_nothing_gives_empty_tables() -> None:
    row = Row(photo("a"), "u1", scored())
    kept, boxes, _ = copy_rows(images(row), boxes_table([row]), None, {})
    assert (kept.num_rows, boxes.num_rows) == (0, 0)


def test_copied_and_new_rows_go_into_one_table() -> None:
    row = Row(photo("a"), "u1", scored())
    kept, _, _ = copy_rows(
        images(row), boxes_table([row]), None, {"a": (photo("a", label="x"), "u2")}
    )
    both = concat_images([kept, images(Row(photo("b", age="3"), "u2", scored()))])
    assert both.column("image_id").to_pylist() == ["a", "b"]
    assert both.column("meta").to_pylist() == ['{"label": "x"}', '{"age": "3"}']
    assert not changed_fields(read_parquet(write_parquet(both, METADATA), "x"))


def test_tables_of_different_scorings_do_not_go_together() -> None:
    row = Row(photo("a"), "u", scored())
    with pytest.raises(ValueError, match="different scorings"):
        concat_images([images(row), images_table([row], ("papule",), PROBS)])
