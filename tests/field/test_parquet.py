"""Test Parquet files as data sets have them: several image columns, Arrow's newer types, values that are not text."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.archive.shard import count_members
from skinbatch.archive.source import open_source
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config, SourceSettings
from skinbatch.errors import UsageError
from skinbatch.storage.locate import Locator
from skinbatch.types import Fetched, ShardRef, Status, WorkUnit
from tests.faces import face, jpeg, png, rows, tar_bytes, write_tree
from tests.field.in_process import command

FACES = [jpeg(face(n)) for n in range(3)]
MASKS = [png(np.full((96, 96, 3), 7, np.uint8))] * 3
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def structs(data: list[bytes], kind: pa.DataType = STRUCT) -> pa.Array:
    return pa.array([{"bytes": photo, "path": f"{n}.jpg"} for n, photo in enumerate(data)], kind)


def write(
    path: Path, columns: dict[str, Any], features: dict[str, str] | None = None, **options: Any
) -> Path:
    table = pa.table(columns)
    if features is not None:
        info = {"info": {"features": {name: {"_type": kind} for name, kind in features.items()}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def settings(**source: Any) -> Config:
    return Config(source=SourceSettings(**source))


def read(path: Path, **source: Any) -> list[Fetched]:
    config = settings(**source)
    found = open_source(str(path), config)
    locator = Locator(config.storage)
    fetched = []
    for entry in found.entries():
        assert isinstance(entry, ShardRef)
        unit = list(read_unit(WorkUnit("u", shard=entry), locator, config.decode, 1))
        assert count_members(entry, locator) == len(unit)
        fetched += unit
    return fetched


def data_of(fetched: list[Fetched]) -> list[bytes | None]:
    return [row.data for row in fetched]


@pytest.mark.parametrize(
    "names", [("mask", "photo"), ("image", "mask"), ("mask", "image"), ("a", "b")]
)
def test_of_two_columns_with_images_neither_is_guessed(
    tmp_path: Path, fake_pack: str, names: tuple[str, str]
) -> None:
    columns = {name: structs(MASKS if n else FACES) for n, name in enumerate(names)}
    path = write(tmp_path / "in" / "two.parquet", columns)
    for source in (path, path.parent):
        with pytest.raises(UsageError) as raised:
            skinbatch.score(source, tmp_path / "out", pack=fake_pack, engine="local")
        message = str(raised.value)
        assert str(path) in message and "image_column" in message
        assert all(name in message for name in names)
        assert not (tmp_path / "out" / "images").exists()


def test_the_column_is_named_by_option_keyword_or_settings_file(
    tmp_path: Path, fake_pack: str
) -> None:
    path = write(
        tmp_path / "two.parquet", {"mask": structs(MASKS), "photo": structs(FACES), "n": [1, 2, 3]}
    )
    report = skinbatch.score(
        path, tmp_path / "keyword", pack=fake_pack, engine="local", image_column="photo"
    )
    assert report.statuses == {"ok": 3}
    expected = {f"two.parquet/{n}": n for n in range(3)}
    assert {i: row["count_total"] for i, row in rows(tmp_path / "keyword").items()} == expected

    (tmp_path / "s.toml").write_text('[source]\nimage_column = "photo"\n')
    for name, option in (
        ("file", ["--config", str(tmp_path / "s.toml")]),
        ("option", ["--image-column", "photo.bytes"]),
    ):
        run = ("score", str(path), str(tmp_path / name), "--pack", fake_pack, "--engine", "local")
        code, _, errors = command(*run, *option)
        assert code == 0, errors
        assert {i: row["count_total"] for i, row in rows(tmp_path / name).items()} == expected


def test_another_column_of_the_same_file_is_another_input(tmp_path: Path, fake_pack: str) -> None:
    path = write(
        tmp_path / "two.parquet", {"one": structs(FACES), "other": structs([jpeg(face(5))] * 3)}
    )
    dest = tmp_path / "out"
    skinbatch.score(path, dest, pack=fake_pack, engine="local", image_column="one")
    assert [row["count_total"] for row in rows(dest).values()] == [0, 1, 2]
    skinbatch.score(path, dest, pack=fake_pack, engine="local", image_column="other")
    assert [row["count_total"] for row in rows(dest).values()] == [5, 5, 5]
    assert skinbatch.verify(dest).differences == []
    # `retry` takes the column from the plan.
    assert skinbatch.retry(dest, engine="local").nothing_to_do


def test_metadata_decides_where_it_calls_one_column_an_image(tmp_path: Path) -> None:
    columns = {"mask": structs(MASKS), "photo": structs(FACES)}
    path = write(tmp_path / "hf.parquet", columns, {"mask": "Value", "photo": "Image"})
    assert data_of(read(path)) == FACES
    both = write(tmp_path / "both.parquet", columns, {"mask": "Image", "photo": "Image"})
    with pytest.raises(UsageError, match="mask, photo"):
        read(both)
    assert data_of(read(both, image_column="mask")) == MASKS
    broken = pa.table(columns).replace_schema_metadata({"huggingface": "[" * 9})
    pq.write_table(broken, tmp_path / "broken.parquet")
    with pytest.raises(UsageError, match="mask, photo"):
        read(tmp_path / "broken.parquet")


def test_content_decides_where_only_one_column_holds_images(tmp_path: Path) -> None:
    empty = pa.nulls(3, pa.binary())
    path = write(
        tmp_path / "a.parquet",
        {"embedding": [b"\0\1" * 50] * 3, "face": FACES, "hash": [b"abc"] * 3},
    )
    assert data_of(read(path)) == FACES
    late = write(tmp_path / "b.parquet", {"vector": [b"x"] * 40, "face": [*[None] * 37, *FACES]})
    assert data_of(read(late))[37:] == FACES
    unknown = write(tmp_path / "c.parquet", {"face": FACES, "mask": empty})
    with pytest.raises(UsageError, match="face, mask"):
        read(unknown)
    only = write(tmp_path / "d.parquet", {"vector": [b"x"] * 3, "mask": empty})
    assert [row.status for row in read(only)] == [Status.EMPTY] * 3
    neither = write(tmp_path / "tree" / "e.parquet", {"one": [b"x"] * 3, "two": [b"y"] * 3})
    assert read(neither.parent) == []
    assert (
        read(
            write(
                tmp_path / "f.parquet",
                {"a": pa.array([], pa.binary()), "b": pa.array([], pa.binary())},
            )
        )
        == []
    )


LISTS = pa.list_(STRUCT)
PARTS = pa.struct([("image", STRUCT), ("mask", STRUCT)])


@pytest.mark.parametrize("kind", [LISTS, PARTS], ids=["list", "struct"])
@pytest.mark.parametrize("hugging_face", [False, True])
def test_masks_are_not_scored_for_photos_within_lists_or_structs(
    tmp_path: Path, kind: pa.DataType, hugging_face: bool
) -> None:
    photos = [{"bytes": photo, "path": None} for photo in FACES]
    inner = [[photo] if kind == LISTS else {"image": photo, "mask": None} for photo in photos]
    table = pa.table({"mask": structs(MASKS), "images": pa.array(inner, kind)})
    if hugging_face:
        features = {
            "mask": {"_type": "Image"},
            "images": {"feature": {"_type": "Image"}, "_type": "List"},
        }
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, path := tmp_path / "a.parquet")

    with pytest.raises(
        UsageError, match=r"a\.parquet: .*mask, images \(images: within lists.*image_column"
    ):
        read(path)
    assert data_of(read(path, image_column="mask")) == MASKS


def test_lists_that_hold_no_photos_are_no_reason_to_ask(tmp_path: Path) -> None:
    tokens = pa.array([[b"ab", b"cd"]] * 3, pa.list_(pa.binary()))
    nothing = pa.array([[]] * 3, LISTS)
    path = write(tmp_path / "a.parquet", {"tokens": tokens, "nothing": nothing, "face": FACES})
    assert data_of(read(path)) == FACES


def test_a_file_without_the_named_column_is_refused_alone_and_counted_in_a_tree(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.parquet", {"photo": FACES, "mask": MASKS})
    write(tmp_path / "b.parquet", {"mask": MASKS})
    found = open_source(str(tmp_path), settings(image_column="photo"))
    assert [entry.key for entry in found.entries() if isinstance(entry, ShardRef)] == ["a.parquet"]
    assert found.skipped == {"(Parquet without photos in a column 'photo')": 1}
    with pytest.raises(
        UsageError, match=r"b\.parquet: has no photos in a column 'photo'.* hold them: mask"
    ):
        open_source(str(tmp_path / "b.parquet"), settings(image_column="photo"))


def test_of_several_columns_that_are_named_the_first_that_a_file_has_is_read(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.parquet", {"mask": MASKS, "image": MASKS, "photo": FACES})
    write(tmp_path / "b.parquet", {"mask": MASKS, "image": FACES})
    write(tmp_path / "c.parquet", {"mask": MASKS})
    assert data_of(read(tmp_path, image_column=("photo", "image"))) == [*FACES, *FACES]
    with pytest.raises(
        UsageError, match=r"c\.parquet: has no photos in a column 'photo' or 'image'"
    ):
        read(tmp_path / "c.parquet", image_column=("photo", "image"))


def test_a_parquet_file_with_another_name_says_in_its_row_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "in" / "two.tar", {"photo": FACES, "mask": MASKS})
    (row,) = read(tmp_path / "in")
    assert (row.ref.image_id, row.status) == ("two.tar/#corrupt", Status.CORRUPT)
    assert "photo, mask" in str(row.error) and "image_column" in str(row.error)


def coded(data: list[bytes]) -> pa.Array:
    return pa.array(data).dictionary_encode()


def opaque(data: list[bytes]) -> pa.Array:
    return pa.ExtensionArray.from_storage(
        pa.opaque(pa.binary(), "image", "me"), pa.array(data, pa.binary())
    )


VIEWS = pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())])
IMAGES = {
    "view": pa.array(FACES, pa.binary_view()),
    "large": pa.array(FACES, pa.large_binary()),
    "coded": coded(FACES),
    "opaque": opaque(FACES),
    "struct of views": structs(FACES, VIEWS),
    "struct of large": structs(
        FACES, pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    ),
    "struct of coded": pa.StructArray.from_arrays(
        [coded(FACES), pa.array(["a", "b", "c"])], ["bytes", "path"]
    ),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("stored", [True, False])
def test_photos_are_read_whatever_arrow_calls_their_type(
    tmp_path: Path, kind: str, stored: bool
) -> None:
    path = write(
        tmp_path / "a.parquet", {"image": IMAGES[kind], "n": [1, 2, 3]}, store_schema=stored
    )
    fetched = read(path)
    assert data_of(fetched) == FACES
    assert [row.ref.meta for row in fetched] == [{"n": "1"}, {"n": "2"}, {"n": "3"}]


def extension(kind: pa.BaseExtensionType, storage: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, storage)


ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
VALUES: list[tuple[pa.Array, str | None]] = [
    (pa.array([ID.bytes] * 3, pa.uuid()), str(ID)),
    (pa.ListArray.from_arrays([0, 1, 2, 3], pa.array([ID.bytes] * 3, pa.uuid())), f'["{ID}"]'),
    (extension(pa.json_(), pa.array(['{"a": 1}'] * 3)), '{"a": 1}'),
    (extension(pa.bool8(), pa.array([1] * 3, pa.int8())), "true"),
    (extension(pa.opaque(pa.string(), "x", "y"), pa.array(["text"] * 3)), "text"),
    (extension(pa.opaque(pa.binary(), "x", "y"), pa.array([b"\xff"] * 3, pa.binary())), None),
    (pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((3, 2), np.float32)), "[1.0, 1.0]"),
    (pa.array(["a"] * 3, pa.string_view()), "a"),
    (pa.array(["a"] * 3, pa.large_string()), "a"),
    (pa.array(["a"] * 3).dictionary_encode(), "a"),
    (pa.array([["a", "b"]] * 3, pa.list_view(pa.string_view())), '["a", "b"]'),
    (pa.array([["a"]] * 3, pa.large_list(pa.string())), '["a"]'),
    (pa.array([[1, 2]] * 3, pa.list_(pa.int8(), 2)), "[1, 2]"),
    (pa.array([{"k": 1}] * 3, pa.struct([("k", pa.int16())])), '{"k": 1}'),
    (pa.array([b"abcd"] * 3, pa.binary(4)), None),
    (pa.array([[b"abcd"]] * 3, pa.list_view(pa.binary_view())), None),
    (pa.array([0.5] * 3, pa.float16()), "0.5"),
    (pa.array([None] * 3, pa.null()), None),
]


@pytest.mark.parametrize(
    ("column", "text"), VALUES, ids=[str(column.type)[:40] for column, _ in VALUES]
)
def test_other_columns_pass_through_as_plain_text(
    tmp_path: Path, column: pa.Array, text: str | None
) -> None:
    path = write(tmp_path / "a.parquet", {"image": FACES, "x": column})
    expected = {} if text is None else {"x": text}
    assert [dict(row.ref.meta) for row in read(path)] == [expected] * 3


def test_unnamed_photos_and_archives_are_scored_side_by_side(
    tmp_path: Path, fake_pack: str
) -> None:
    write(tmp_path / "in" / "a.parquet", {"mask": MASKS, "photo": FACES})
    write_tree(tmp_path / "in", {"b.tar": tar_bytes({"x.jpg": FACES[0]}), "c.jpg": FACES[1]})
    skinbatch.score(
        tmp_path / "in", tmp_path / "out", pack=fake_pack, engine="local", image_column="photo"
    )
    found = [*(f"a.parquet/{n}" for n in range(3)), "b.tar/x.jpg", "c.jpg"]
    assert sorted(rows(tmp_path / "out")) == found
    assert skinbatch.verify(tmp_path / "out").differences == []


def test_a_damaged_sample_decides_nothing(tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(
        pa.table({"a": FACES, "b": MASKS}), out, compression="NONE", write_page_checksum=True
    )
    whole = out.getvalue()
    at = whole.index(FACES[0]) + 40
    (tmp_path / "a.parquet").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(UsageError, match="a, b"):
        read(tmp_path / "a.parquet")


def test_a_file_that_ends_whoever_looks_at_its_values_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.archive import sampling

    columns = {"a": FACES, "b": [b"x"] * 3, "c": pa.nulls(3)}
    path = write(tmp_path / "a.parquet", columns)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'skinbatch' in str(sys.orig_argv): os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sampling, "_known", {})
    with pytest.raises(UsageError, match="a, b"):
        open_source(str(path), Config())
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr(sampling, "_known", {})
    assert data_of(read(path)) == FACES
