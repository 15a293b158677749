"""Test that the tables of a scoring open in any tool by a plain glob, whatever fields pass through."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.tables.schema import BOXES
from tests.faces import face, jpeg, png, tar_bytes, write_tree
from tests.field.in_process import score

Rows = dict[str, dict[str, Any]]


def by_id(rows: list[dict[str, Any]]) -> Rows:
    return {row["image_id"]: row for row in rows}


def with_pandas(folder: Path, pattern: str) -> list[dict[str, Any]]:
    # pandas takes a folder or a list of files where others take a pattern.
    return pd.read_parquet(sorted(folder.glob("*.parquet")), dtype_backend="pyarrow").to_dict(
        "records"
    )


def with_pandas_folder(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return pd.read_parquet(folder, dtype_backend="pyarrow").to_dict("records")


def with_polars(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return pl.read_parquet(pattern).to_dicts()


def with_polars_lazily(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return pl.scan_parquet(pattern).collect().to_dicts()


def with_duckdb(folder: Path, pattern: str) -> list[dict[str, Any]]:
    found = duckdb.execute(f"select * from '{pattern}'")
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def with_pyarrow_dataset(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return ds.dataset(folder).to_table().to_pylist()


def with_hugging_face_datasets(folder: Path, pattern: str) -> list[dict[str, Any]]:
    cache = folder.parents[2] / "cache"
    found = datasets.load_dataset(
        "parquet", data_files=pattern, cache_dir=str(cache), split="train"
    )
    return list(found)


READERS: list[Callable[[Path, str], list[dict[str, Any]]]] = [
    *(with_pandas, with_pandas_folder, with_polars, with_polars_lazily),
    *(with_duckdb, with_pyarrow_dataset, with_hugging_face_datasets),
]


def parquet_of_photos(first: int, **columns: list[Any]) -> bytes:
    count = len(next(iter(columns.values())))
    photos = [{"bytes": png(face(1, n % 4, first + n)), "path": None} for n in range(count)]
    out = io.BytesIO()
    pq.write_table(pa.table({"image": photos, **columns}), out)
    return out.getvalue()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Score loose photos, shards with different sidecars, and Parquet files with different columns."""
    root = tmp_path_factory.mktemp("mixed")
    of_a = {
        "1.png": png(face(1, 2, 20)),
        "1.json": json.dumps({"subject": "p1", "age": 41}).encode(),
    }
    of_b = {
        "1.jpg": jpeg(face(0, 1, 21)),
        "1.json": json.dumps({"Subject": "p2", "tags": ["x", "é"]}).encode(),
    }
    tree = {
        "loose/face.png": png(face(2, 0, 1)),
        "loose/cut.jpg": jpeg(face(2, 0, 2))[:-300],
        "a.tar": tar_bytes(of_a),
        "b.tar": tar_bytes(of_b),
        "bare.tar": tar_bytes({"1.png": png(face(0, 0, 22))}),
        "numbers.parquet": parquet_of_photos(30, subject=[7, 8], weight=[None, 61.5]),
        "texts.parquet": parquet_of_photos(40, subject=["p9"], label=["rosacea"]),
    }
    score(write_tree(root / "photos", tree), root / "out", fake_pack, run={"save_masks": True})
    return root / "out"


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Score a listing with columns, in several units."""
    root = tmp_path_factory.mktemp("listed")
    photos = {f"photos/{n:02}.png": png(face(n % 4, n % 3, n)) for n in range(40)}
    write_tree(root, photos)
    with (root / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "subject", "when"])
        writer.writerows(
            [name, f"p{n}", "" if n % 2 else "2026-01-01"] for n, name in enumerate(photos)
        )
    score(root / "photos.csv", root / "out", fake_pack)
    return root / "out"


def folder_of(dest: Path, kind: str) -> Path:
    (folder,) = (dest / kind).iterdir()
    return folder


META = {
    "loose/face.png": {},
    "loose/cut.jpg": {},
    "a.tar/1.png": {"subject": "p1", "age": "41"},
    "b.tar/1.jpg": {"Subject": "p2", "tags": '["x", "é"]'},
    "bare.tar/1.png": {},
    "numbers.parquet/0": {"subject": "7"},
    "numbers.parquet/1": {"subject": "8", "weight": "61.5"},
    "texts.parquet/0": {"subject": "p9", "label": "rosacea"},
}


@pytest.mark.parametrize("read", READERS)
def test_the_photos_of_mixed_sources_open_by_glob_without_options(
    mixed: Path, read: Callable[[Path, str], list[dict[str, Any]]]
) -> None:
    folder = folder_of(mixed, "images")
    found = by_id(read(folder, f"{folder}/*.parquet"))
    assert {image_id: json.loads(row["meta"]) for image_id, row in found.items()} == META
    assert found["loose/cut.jpg"]["status"] == "truncated"
    shown = by_id(skinbatch.open(mixed).images().to_pylist())
    for image_id, row in found.items():
        for name in ("sha256", "count_total", "width", "status"):
            assert row[name] == shown[image_id][name] or (
                row[name] is pd.NA and shown[image_id][name] is None
            )


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_the_other_tables_open_as_well(
    mixed: Path, kind: str, read: Callable[[Path, str], list[dict[str, Any]]]
) -> None:
    folder = folder_of(mixed, kind)
    results = skinbatch.open(mixed)
    expected = results.boxes() if kind == "boxes" else results.masks()
    found = read(folder, f"{folder}/*.parquet")
    assert len(found) == expected.num_rows > 0
    assert {row["image_id"] for row in found} == set(expected.column("image_id").to_pylist())


@pytest.mark.parametrize("read", READERS)
def test_a_listing_with_columns_opens_by_glob(
    listed: Path, read: Callable[[Path, str], list[dict[str, Any]]]
) -> None:
    folder = folder_of(listed, "images")
    assert len(list(folder.iterdir())) > 1
    found = by_id(read(folder, f"{folder}/*.parquet"))
    assert [json.loads(found[f"photos/{n:02}.png"]["meta"]) for n in (0, 1)] == [
        {"subject": "p0", "when": "2026-01-01"},
        {"subject": "p1"},
    ]


def test_every_file_of_a_scoring_has_the_same_schema(mixed: Path, listed: Path) -> None:
    for dest in (mixed, listed):
        for kind in ("images", "boxes"):
            schemas = [pq.read_schema(path) for path in sorted(folder_of(dest, kind).iterdir())]
            assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert schemas[0].equals(BOXES)
    first = pq.read_schema(next(folder_of(mixed, "images").iterdir()))
    assert first.names[-1] == "meta"
    assert (first.field("meta").type, first.field("meta").nullable) == (pa.string(), False)
    assert not [name for name in first.names if name.startswith("meta_")]
    assert first.metadata[b"skinbatch.schema_version"] == b"2"


def test_duckdb_asks_for_a_field_by_its_name(mixed: Path) -> None:
    pattern = f"{folder_of(mixed, 'images')}/*.parquet"
    found = duckdb.execute(
        f"select image_id, meta->>'subject' from '{pattern}' where meta->>'subject' is not null"
    ).fetchall()
    assert dict(found) == {
        i: fields["subject"] for i, fields in META.items() if "subject" in fields
    }


def test_open_shows_a_column_for_each_field(mixed: Path) -> None:
    results = skinbatch.open(mixed)
    table = results.images()
    names = [
        "meta",
        "meta_Subject",
        "meta_age",
        "meta_label",
        "meta_subject_2",
        "meta_tags",
        "meta_weight",
    ]
    assert table.column_names[table.column_names.index("meta") :] == names
    found = by_id(table.to_pylist())
    assert (found["a.tar/1.png"]["meta_subject_2"], found["b.tar/1.jpg"]["meta_subject_2"]) == (
        "p1",
        None,
    )
    assert found["b.tar/1.jpg"]["meta_tags"] == '["x", "é"]'

    some = results.images(columns=["meta_label", "image_id"])
    assert some.column_names == ["meta_label", "image_id"]
    assert by_id(some.to_pylist())["texts.parquet/0"]["meta_label"] == "rosacea"
    assert results.images(columns=["meta", "meta_age"]).column_names == ["meta", "meta_age"]
