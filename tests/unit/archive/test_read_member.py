"""Test that one member of any kind of archive is found by the image_id of its row."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skinbatch.archive.shard import read_member
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import DecodeSettings, StorageSettings
from skinbatch.storage.locate import Locator
from skinbatch.types import Fetched, ShardKind, ShardRef, Status, WorkUnit
from tests.faces import tar_bytes

MEMBERS = {
    "a/1.jpg": b"first",
    "notes.txt": b"no photo",
    "a/2.jpg": b"second",
    "a/2.json": b"{}",
    "b/3.png": b"third",
}


def zip_bytes() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return out.getvalue()


def parquet_bytes() -> bytes:
    out = io.BytesIO()
    pq.write_table(
        pa.table({"image": [d for n, d in MEMBERS.items() if n.endswith("g")]}),
        out,
        row_group_size=2,
    )
    return out.getvalue()


ARCHIVES: dict[ShardKind, bytes] = {
    "tar": tar_bytes(MEMBERS),
    "zip": zip_bytes(),
    "parquet": parquet_bytes(),
}


def shard(folder: Path, kind: ShardKind, data: bytes) -> ShardRef:
    path = folder / f"photos.{kind}"
    path.write_bytes(data)
    return ShardRef(f"shards/photos.{kind}", str(path), kind, len(data), None)


def find(ref: ShardRef, image_id: str, **limits: int) -> Fetched | None:
    return read_member(ref, image_id, Locator(StorageSettings()), DecodeSettings(**limits))


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_photo_that_a_unit_gives_is_found_by_its_name(
    tmp_path: Path, kind: ShardKind
) -> None:
    ref = shard(tmp_path, kind, ARCHIVES[kind])
    rows = list(
        read_unit(WorkUnit("u", shard=ref), Locator(StorageSettings()), DecodeSettings(), threads=1)
    )
    assert [row.data for row in rows] == [b"first", b"second", b"third"]
    for row in rows:
        found = find(ref, row.ref.image_id)
        assert found is not None and found.data == row.data
        assert (found.ref.image_id, found.ref.uri) == (row.ref.image_id, row.ref.uri)


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("name", ["7", "a/4.jpg", "notes.txt", "#truncated"])
def test_a_name_that_is_not_in_it_is_none(tmp_path: Path, kind: ShardKind, name: str) -> None:
    ref = shard(tmp_path, kind, ARCHIVES[kind])
    assert find(ref, f"{ref.key}/{name}") is None


def test_a_repeated_member_is_told_apart_by_its_number(tmp_path: Path) -> None:
    one, two = tar_bytes({"a.jpg": b"one"}), tar_bytes({"a.jpg": b"two"})
    ref = shard(tmp_path, "tar", one[:1024] + two)
    found = [find(ref, f"{ref.key}/{name}") for name in ("a.jpg", "a.jpg#2")]
    assert [f and f.data for f in found] == [b"one", b"two"]


def test_a_member_over_the_limit_says_so(tmp_path: Path) -> None:
    ref = shard(tmp_path, "tar", ARCHIVES["tar"])
    found = find(ref, f"{ref.key}/a/2.jpg", max_image_bytes=3)
    assert found is not None and found.status is Status.TOO_LARGE and found.data is None


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_is_cut_says_so(tmp_path: Path, kind: ShardKind) -> None:
    ref = shard(tmp_path, kind, ARCHIVES[kind][: len(ARCHIVES[kind]) // 3])
    found = find(ref, f"{ref.key}/b/3.png" if kind != "parquet" else f"{ref.key}/2")
    assert found is not None and found.data is None and found.error is not None
    assert str(tmp_path) in found.error
