"""Test buckets in which an object and a folder have the same name: each photo keeps an image_id of its own."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch
from skinbatch.config import Config
from skinbatch.runs.listed import collect
from skinbatch.types import ImageRef, ShardRef
from tests.conftest import S3Server
from tests.faces import face, jpeg, rows, tar_bytes


def parquet_bytes(photos: list[bytes]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"image": photos}), out)
    return out.getvalue()


def photo(count: int) -> bytes:
    return jpeg(face(count))


OBJECTS = {
    "d/x.tar": tar_bytes({"a.jpg": photo(0), "sub/b.jpg": photo(1)}),
    "d/x.tar/a.jpg": photo(2),
    "d/x.tar/./a.jpg": photo(3),
    "d/x.tar/deep.tar": tar_bytes({"c.jpg": photo(4)}),
    "d/x.tar/deep.tar/c.jpg": photo(5),
    "d/x.tar.d/a.jpg": photo(6),
    "p.parquet": parquet_bytes([photo(7)]),
    "p.parquet/0": photo(2),
    "plain": tar_bytes({"d.jpg": photo(3)}),
    "plain/d.jpg": photo(4),
    "no.tar/e.jpg": photo(5),
    "text.zip/f.jpg": photo(6),
}
COUNTS = {
    "d/x.tar/a.jpg": 0,
    "d/x.tar/sub/b.jpg": 1,
    "d/x.tar/./a.jpg": 2,
    "d/x.tar/././a.jpg": 3,
    "d/x.tar/./deep.tar/c.jpg": 4,
    "d/x.tar/./deep.tar/./c.jpg": 5,
    "d/x.tar.d/a.jpg": 6,
    "p.parquet/0": 7,
    "p.parquet/./0": 2,
    "plain/d.jpg": 3,
    "plain/./d.jpg": 4,
    "no.tar/e.jpg": 5,
    "text.zip/f.jpg": 6,
}


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = s3.bucket()
    for key, data in OBJECTS.items():
        s3.client.put_object(Bucket=name, Key=f"in/{key}", Body=data)
    return name


def test_photos_in_and_beside_an_archive_have_two_ids(
    s3: S3Server, bucket: str, tmp_path: Path, fake_pack: str
) -> None:
    config = Config(storage=s3.settings)
    source, dest = f"s3://{bucket}/in", tmp_path / "out"
    report = skinbatch.score(source, dest, pack=fake_pack, engine="local", config=config)
    assert report.statuses == {"ok": len(COUNTS)}
    found = rows(dest)
    assert {image_id: row["count_total"] for image_id, row in found.items()} == COUNTS
    assert found["d/x.tar/./a.jpg"]["uri"] == f"{source}/d/x.tar/a.jpg"
    assert skinbatch.verify(dest, storage=s3.settings).differences == []
    assert skinbatch.score(
        source, dest, pack=fake_pack, engine="local", config=config
    ).nothing_to_do


def test_the_rows_of_a_listing_have_ids_of_their_own_in_any_order(
    s3: S3Server, bucket: str, tmp_path: Path, fake_pack: str
) -> None:
    config = Config(storage=s3.settings)
    keys = ["in/d/x.tar/a.jpg", "in/d/x.tar", "in/no.tar/e.jpg"]
    (tmp_path / "list.csv").write_text("uri\n" + "".join(f"s3://{bucket}/{key}\n" for key in keys))
    skinbatch.score(
        tmp_path / "list.csv", tmp_path / "out", pack=fake_pack, engine="local", config=config
    )
    place = f"s3://{bucket}/in"
    counts = {
        image_id.removeprefix(place): row["count_total"]
        for image_id, row in rows(tmp_path / "out").items()
    }
    assert counts == {
        "/d/x.tar/./a.jpg": 2,
        "/d/x.tar/a.jpg": 0,
        "/d/x.tar/sub/b.jpg": 1,
        "/no.tar/e.jpg": 5,
    }


def test_ordinary_names_stay_as_they_are() -> None:
    photos = [
        ImageRef(key, f"/p/{key}")
        for key in ("a.jpg", "x.tar.gz/a.jpg", "x/a.jpg", "./x.tar/b.jpg", "xx.tar/c")
    ]
    shards = [
        ShardRef(key, f"/p/{key}", "tar", 1, None) for key in ("x.tar", "sub/x.tar", "x.tar.g")
    ]
    listing = collect([*photos, *shards])
    assert listing.photos.column("image_id").to_pylist() == [photo.image_id for photo in photos]
    assert [shard.key for shard in listing.shards] == [shard.key for shard in shards]
    assert collect([]).empty
