"""Test listings and inventories: rows that name photos."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skinbatch.archive.source import Source, open_source
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config, DecodeSettings, SourceSettings
from skinbatch.errors import ForbiddenError, UsageError
from skinbatch.storage.local import LocalStore
from skinbatch.storage.locate import Locator
from skinbatch.storage.store import ObjectInfo
from skinbatch.types import ImageRef, ShardRef, WorkUnit
from tests.conftest import S3Server
from tests.pictures import encoded, picture

CONFIG = Config()


def refs(source: Source) -> list[ImageRef]:
    return [entry for entry in source.entries() if isinstance(entry, ImageRef)]


def listing(path: Path, text: str, **source: Any) -> Source:
    path.write_text(text, encoding="utf-8")
    return open_source(str(path), Config(source=SourceSettings(**source)))


def test_a_csv_names_photos_and_its_other_columns_pass_through(photos: Path) -> None:
    text = (
        "patient,uri,size,etag,note\n"
        'p1,00000/00000.png,,,"a, b"\n'
        f'p2,{photos}/00000/00001.png,123,"""abc""",\n'
        "p3,s3://bucket/x y.jpg,5,abc-2,\n"
        "p4,s3://bucket/no-extension,,,\n"
    )
    source = listing(photos / "list.csv", text)
    assert refs(source) == [
        ImageRef(
            "00000/00000.png",
            f"{photos}/00000/00000.png",
            None,
            None,
            {"patient": "p1", "note": "a, b"},
        ),
        ImageRef(
            f"{photos}/00000/00001.png", f"{photos}/00000/00001.png", 123, "abc", {"patient": "p2"}
        ),
        ImageRef("s3://bucket/x y.jpg", "s3://bucket/x y.jpg", 5, "abc-2", {"patient": "p3"}),
        ImageRef(
            "s3://bucket/no-extension", "s3://bucket/no-extension", None, None, {"patient": "p4"}
        ),
    ]
    assert (source.kind, source.uri) == ("listing", str(photos / "list.csv"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_excel_and_others_write_csv_in_their_own_ways(photos: Path, delimiter: str) -> None:
    lines = [
        delimiter.join(fields)
        for fields in (("Patient", "URI "), ("p1", "00000/00000.png"), ("", ""))
    ]
    path = photos / "list.csv"
    path.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    (ref,) = refs(open_source(str(path), CONFIG))
    assert (ref.image_id, dict(ref.meta)) == ("00000/00000.png", {"Patient": "p1"})
    packed = photos / "list.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert refs(open_source(str(packed), CONFIG)) == [ref]


def test_a_parquet_listing_gives_the_same_as_a_csv(photos: Path) -> None:
    table = pa.table(
        {
            "uri": ["00000/00000.png", "s3://b/k.jpg", None],
            "size": [None, 7, 1],
            "etag": [None, '"e"', None],
            "age": [41, None, 1],
            "tags": [["a"], None, None],
        }
    )
    pq.write_table(table, photos / "list.parquet")
    source = open_source(str(photos / "list.parquet"), CONFIG)
    assert refs(source) == [
        ImageRef(
            "00000/00000.png",
            f"{photos}/00000/00000.png",
            None,
            None,
            {"age": "41", "tags": '["a"]'},
        ),
        ImageRef("s3://b/k.jpg", "s3://b/k.jpg", 7, "e", {}),
    ]
    assert source.skipped == {"(no uri)": 1}
    pq.write_table(
        pa.table({"uri": pa.array([b"00000/00000.png"], pa.binary())}), photos / "old.parquet"
    )
    assert [r.image_id for r in refs(open_source(str(photos / "old.parquet"), CONFIG))] == [
        "00000/00000.png"
    ]


def test_the_same_uri_twice_is_one_photo_and_the_first_row_wins(photos: Path) -> None:
    text = f"uri,n\n00000/00000.png,1\n{photos}/00000/00000.png,2\n00000/./00000.png,3\n00000/00001.png,4\n"
    source = listing(photos / "list.csv", text)
    assert [dict(r.meta) for r in refs(source)] == [{"n": "1"}, {"n": "4"}]
    assert source.skipped == {"(duplicate)": 2}


def test_rows_that_name_no_photo_are_counted(photos: Path) -> None:
    source = listing(
        photos / "list.csv", "uri\na.xml\nb.jpg\nc/._d.jpg\ne.mp4\n\n", exclude=("e.*",)
    )
    assert [r.image_id for r in refs(source)] == ["b.jpg"]
    assert source.skipped == {".xml": 1, "._*": 1, "(excluded)": 1}


def test_with_head_the_store_says_size_and_version_where_the_listing_says_neither(
    photos: Path,
) -> None:
    text = "uri,size\n00000/00000.png,\n00000/00001.png,5\ngone.jpg,\n"
    first, second, gone = refs(listing(photos / "list.csv", text, head=True))
    found = (photos / "00000" / "00000.png").stat()
    assert (first.size, first.version) == (found.st_size, str(found.st_mtime_ns))
    assert (second.size, second.version, gone.size, gone.version) == (5, None, None, None)


def test_with_content_hash_local_photos_are_hashed(photos: Path) -> None:
    source = listing(photos / "list.csv", "uri\n00000/00000.png\ns3://b/k.jpg\n", content_hash=True)
    first, second = refs(source)
    os.utime(first.uri, (1, 1))
    assert refs(source) == [first, second]
    assert len(str(first.version)) == 64 and second.version is None


def test_archive_files_in_a_listing_are_shards_named_by_their_uri(photos: Path) -> None:
    with tarfile.open(photos / "a.tar", "w") as archive:
        archive.add(photos / "00000" / "00000.png", "x.png")
    pq.write_table(pa.table({"image": [b"x"]}), photos / "p.parquet")
    pq.write_table(pa.table({"label": [1]}), photos / "labels.parquet")
    source = listing(
        photos / "list.csv", "uri,size\na.tar,\np.parquet,\nlabels.parquet,\ngone.zip,\n"
    )
    entries = list(source.entries())
    assert [(e.key, e.kind) for e in entries if isinstance(e, ShardRef)] == [
        ("a.tar", "tar"),
        ("p.parquet", "parquet"),
    ]
    assert source.skipped == {"(Parquet without photos)": 1, ".zip": 1}
    shard = entries[0]
    assert isinstance(shard, ShardRef) and shard.size == (photos / "a.tar").stat().st_size
    rows = list(read_unit(WorkUnit("u", (), shard), Locator(CONFIG.storage), DecodeSettings(), 1))
    assert [r.ref.image_id for r in rows] == ["a.tar/x.png"]


@pytest.mark.parametrize("uri", ["/etc/face.png", "file:///etc/face.png"])
def test_a_listing_on_s3_may_not_name_files_of_the_workers(s3: S3Server, uri: str) -> None:
    bucket = s3.bucket()
    s3.client.put_object(Bucket=bucket, Key="l.csv", Body=f"uri\na.png\n{uri}\n".encode())
    with pytest.raises(
        UsageError, match=r"row 2: /etc/face\.png: a listing on S3 may name s3:// uris only"
    ):
        refs(open_source(f"s3://{bucket}/l.csv", Config(storage=s3.settings)))


def test_an_archive_in_a_listing_that_may_not_be_read_is_left_to_its_row(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> ObjectInfo:
        raise ForbiddenError("access denied")

    source = listing(photos / "list.csv", "uri\n00000/00000.png\na.tar\nb.parquet\n")
    monkeypatch.setattr(LocalStore, "head", forbidden)
    monkeypatch.setattr(LocalStore, "get_range", forbidden)
    shards = [entry for entry in source.entries() if isinstance(entry, ShardRef)]
    assert [(s.key, s.size, s.version) for s in shards] == [
        ("a.tar", 0, None),
        ("b.parquet", 0, None),
    ]


def test_a_listing_on_s3_is_relative_to_its_own_prefix(s3: S3Server) -> None:
    bucket = s3.bucket()
    data = encoded(picture(1), "PNG")
    s3.client.put_object(Bucket=bucket, Key="lists/sub/a.png", Body=data)
    s3.client.put_object(Bucket=bucket, Key="other/b.png", Body=data)
    s3.client.put_object(Bucket=bucket, Key="lists/l.csv", Body=b"uri\nsub/a.png\n../other/b.png\n")
    config = Config(storage=s3.settings)
    found = refs(open_source(f"s3://{bucket}/lists/l.csv", config))
    assert [r.uri for r in found] == [
        f"s3://{bucket}/lists/sub/a.png",
        f"s3://{bucket}/other/b.png",
    ]
    read = read_unit(WorkUnit("u", tuple(found)), Locator(s3.settings), DecodeSettings(), 2)
    assert [(f.ref.version, f.data) for f in read] == [(None, data), (None, data)]
    with_head = config.model_copy(update={"source": SourceSettings(head=True)})
    sized = refs(open_source(f"s3://{bucket}/lists/l.csv", with_head))
    assert [r.size for r in sized] == [len(data)] * 2 and all(r.version for r in sized)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.jpg\n", "no `uri` column; its columns are path"),
        ("", "no `uri` column"),
        ("uri,size\na.jpg,big\n", "row 1: size 'big'"),
        ("uri\nok.jpg\nhttps://example.org/a.jpg\n", "row 2: .*https:// is not supported"),
    ],
)
def test_a_malformed_listing_is_wrong_use(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"list\.csv: .*{message}"):
        refs(listing(tmp_path / "list.csv", text))


def test_bytes_that_are_no_text_or_no_gzip_are_wrong_use(tmp_path: Path) -> None:
    for name, data in (
        ("l.csv", "uri\nmüller.jpg\n".encode("latin-1")),
        ("l.csv.gz", gzip.compress(b"uri\n" * 99)[:-9]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=name):
            refs(open_source(str(tmp_path / name), CONFIG))


def test_a_long_listing_streams(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    with path.open("w") as out:
        out.write("uri,size,etag,patient\n")
        out.writelines(f"s3://bucket/{n:08}.jpg,1000,{n:032x},{n}\n" for n in range(10_000))
    entries = open_source(str(path), CONFIG).entries()
    first = next(iter(entries))
    assert isinstance(first, ImageRef)
    tracemalloc.start()
    assert sum(1 for _ in entries) == 9_999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Detecting repeated rows costs about 100 bytes per row; the refs themselves would take 600.
    assert peak < 10_000 * 200


HEADER = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, ETag, StorageClass"


def inventory_rows(
    bucket: str,
) -> list[tuple[str, str, str, bool, bool, int | None, str | None, str]]:
    return [
        (bucket, "photos/a b+c.jpg", "v2", True, False, 3, "e2", "STANDARD"),
        (bucket, "photos/a b+c.jpg", "v1", False, False, 2, "e1", "STANDARD"),
        (bucket, "photos/gone.jpg", "v3", True, True, None, None, "STANDARD"),
        (bucket, "photos/ü/d.png", "", True, False, 4, "e4", "GLACIER"),
        (bucket, "photos/", "", True, False, 0, "e0", "STANDARD"),
        (bucket, "photos/readme.txt", "", True, False, 1, "e5", "STANDARD"),
        (bucket, "photos/shard.tar", "", True, False, 6, "e6", "STANDARD"),
        (bucket, "photos/raw", "", True, False, 7, "e7", "STANDARD"),
        (bucket, "photos/other", "", True, False, 8, "e8", "STANDARD"),
    ]


def inventory_csv(bucket: str) -> bytes:
    from urllib.parse import quote_plus

    lines = []
    for name, key, version, latest, marker, size, etag, kind in inventory_rows(bucket):
        fields = [
            name,
            quote_plus(key),
            version,
            str(latest).lower(),
            str(marker).lower(),
            size,
            etag,
            kind,
        ]
        lines.append(",".join('"' + ("" if f is None else str(f)) + '"' for f in fields))
    return gzip.compress("\n".join(lines).encode())


def inventory_parquet(bucket: str) -> bytes:
    names = [
        "bucket",
        "key",
        "version_id",
        "is_latest",
        "is_delete_marker",
        "size",
        "e_tag",
        "storage_class",
    ]
    columns = zip(*inventory_rows(bucket), strict=True)
    out = io.BytesIO()
    pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), out)
    return out.getvalue()


def manifest(bucket: str, form: str, name: str) -> bytes:
    return json.dumps(
        {
            "sourceBucket": bucket,
            "destinationBucket": f"arn:aws:s3:::{bucket}",
            "version": "2016-11-30",
            "creationTimestamp": "1700000000000",
            "fileFormat": form,
            "fileSchema": HEADER,
            "files": [{"key": f"inv/{bucket}/all/data/{name}", "size": 1, "MD5checksum": "x"}],
        }
    ).encode()


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_an_s3_inventory_lists_the_newest_versions(s3: S3Server, form: str) -> None:
    bucket = s3.bucket()
    name, data = (
        ("1.csv.gz", inventory_csv(bucket))
        if form == "CSV"
        else ("1.parquet", inventory_parquet(bucket))
    )
    s3.client.put_object(Bucket=bucket, Key=f"inv/{bucket}/all/data/{name}", Body=data)
    s3.client.put_object(
        Bucket=bucket, Key=f"inv/{bucket}/all/2024/manifest.json", Body=manifest(bucket, form, name)
    )
    s3.client.put_object(Bucket=bucket, Key="photos/raw", Body=encoded(picture(1), "PNG"))
    s3.client.put_object(Bucket=bucket, Key="photos/other", Body=b"no photo")
    source = open_source(
        f"s3://{bucket}/inv/{bucket}/all/2024/manifest.json", Config(storage=s3.settings)
    )
    place = f"s3://{bucket}/photos"
    assert list(source.entries()) == [
        ImageRef(f"{place}/a b+c.jpg", f"{place}/a b+c.jpg", 3, "e2"),
        ImageRef(f"{place}/ü/d.png", f"{place}/ü/d.png", 4, "e4"),
        ShardRef(f"{place}/shard.tar", f"{place}/shard.tar", "tar", 6, "e6"),
        ImageRef(f"{place}/raw", f"{place}/raw", 7, "e7"),
    ]
    assert source.kind == "inventory"
    assert source.skipped == {".txt": 1, "(no extension)": 2}


def test_an_inventory_copied_to_a_disk_is_read_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "2024").mkdir()
    rows = b'"bucket","a.jpg","","true","false","3","e1","STANDARD"\n'
    (tmp_path / "data" / "1.csv.gz").write_bytes(gzip.compress(rows))
    (tmp_path / "2024" / "manifest.json").write_bytes(manifest("bucket", "CSV", "1.csv.gz"))
    (ref,) = refs(open_source(str(tmp_path / "2024" / "manifest.json"), CONFIG))
    assert (ref.uri, ref.size, ref.version) == ("s3://bucket/a.jpg", 3, "e1")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            manifest("b", "ORC", "1.orc"),
            "ORC inventories are not supported; configure .* CSV or Parquet",
        ),
        (manifest("b", "CSV", "none.csv.gz"), "names the data file .*none.csv.gz, which is not at"),
        (b"{}", "not an S3 Inventory manifest: it has no sourceBucket"),
        (b"no json", "is not JSON"),
    ],
)
def test_an_inventory_that_cannot_be_read_is_wrong_use(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(UsageError, match=message):
        list(open_source(str(tmp_path / "manifest.json"), CONFIG).entries())


@pytest.mark.parametrize("size", ["18446744073709551616", "-1", "9" * 5000, "1e99", "many"])
def test_a_size_that_is_no_number_of_bytes_is_refused_with_its_row(photos: Path, size: str) -> None:
    with pytest.raises(UsageError, match=r"list\.csv: row 2: size .* is not a number of bytes"):
        refs(listing(photos / "list.csv", f"uri,size\n00000/00000.png,\n00000/00001.png,{size}\n"))
