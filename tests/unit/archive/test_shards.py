"""Test archive files: members in order, ranges that fit together, and what happens where an archive breaks."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skinbatch.archive.tar

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from skinbatch.archive.shard import count_members
from skinbatch.archive.source import open_source
from skinbatch.archive.unit_reader import UnitReader, read_unit
from skinbatch.config import Config, DecodeSettings
from skinbatch.errors import ChangedError, ForbiddenError, NotFoundError, StoreError, UsageError
from skinbatch.storage.local import LocalStore
from skinbatch.storage.locate import Locator
from skinbatch.storage.store import ObjectInfo, Store
from skinbatch.types import Fetched, ShardRef, Status, WorkUnit
from tests.conftest import S3Server
from tests.pictures import encoded, picture

CONFIG = Config()
LOCATOR = Locator(CONFIG.storage)
Files = Sequence[tuple[str, bytes]]


def photo(number: int) -> bytes:
    return encoded(picture(number), "JPEG")


PHOTOS: Files = [(f"dir/{n:03}.jpg", photo(n)) for n in range(7)]


def tar(files: Files, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def packed(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def shard(path: Path, data: bytes) -> ShardRef:
    path.write_bytes(data)
    (entry,) = open_source(str(path), CONFIG).entries()
    assert isinstance(entry, ShardRef)
    return entry


def reader(ref: ShardRef, start: int = 0, stop: int | None = None, **limits: int) -> UnitReader:
    return read_unit(WorkUnit("u", (), ref, start, stop), LOCATOR, DecodeSettings(**limits), 2)


def read(ref: ShardRef, start: int = 0, stop: int | None = None, **limits: int) -> list[Fetched]:
    return list(reader(ref, start, stop, **limits))


def names(rows: Sequence[Fetched]) -> list[str]:
    return [row.ref.image_id.partition("/")[2] for row in rows]


MAKERS: dict[str, Callable[[Files], bytes]] = {
    "a.tar": tar,
    "gnu.tar": lambda files: tar(files, form=tarfile.GNU_FORMAT),
    "ustar.tar": lambda files: tar(files, form=tarfile.USTAR_FORMAT),
    "a.tar.gz": lambda files: tar(files, "w:gz"),
    "a.tgz": lambda files: tar(files, "w:gz"),
    "a.tar.bz2": lambda files: tar(files, "w:bz2"),
    "a.tar.xz": lambda files: tar(files, "w:xz"),
    "a.tar.zst": lambda files: bytes(pa.compress(tar(files), codec="zstd", asbytes=True)),
    "a.zip": packed,
    "stored.zip": lambda files: packed(files, zipfile.ZIP_STORED),
    "lzma.zip": lambda files: packed(files, zipfile.ZIP_LZMA),
}


@pytest.fixture(params=list(MAKERS))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Files], ShardRef]:
    return lambda files: shard(tmp_path / request.param, MAKERS[request.param](files))


def test_photos_come_in_order_named_after_archive_and_member(
    make: Callable[[Files], ShardRef],
) -> None:
    ref = make(PHOTOS)
    rows = read(ref)
    assert [(r.ref.image_id, r.ref.uri, r.data) for r in rows] == [
        (f"{ref.key}/{name}", f"{ref.uri}/{name}", data) for name, data in PHOTOS
    ]
    assert all(r.ref.version == ref.version and r.ref.size == len(r.data or b"") for r in rows)
    assert count_members(ref, LOCATOR) == 7


def test_ranges_fit_together_without_gap_or_overlap(make: Callable[[Files], ShardRef]) -> None:
    files = [
        *PHOTOS[:3],
        ("notes.txt", b"x"),
        ("dir/002.json", b"{}"),
        *PHOTOS[3:],
        ("end.xml", b"x"),
    ]
    ref = make(files)
    for size in (1, 2, 3, 7):
        parts = [
            reader(ref, start, start + size if start + size < 7 else None)
            for start in range(0, 7, size)
        ]
        rows = [row for part in parts for row in part]
        assert [r.data for r in rows] == [data for _, data in PHOTOS]
        assert sum((part.skipped for part in parts), Counter()) == {
            ".txt": 1,
            ".xml": 1,
            ".json": 1,
        }
    assert read(ref, 7) == [] == read(ref, 3, 3)


def test_what_is_no_photo_is_counted_and_folders_are_not(make: Callable[[Files], ShardRef]) -> None:
    files = [
        ("a.txt", b"x"),
        ("b.JPG", photo(1)),
        ("raw", photo(2)),
        ("text", b"x"),
        ("__MACOSX/._b.JPG", b"x"),
        ("c.xml", b""),
    ]
    found = reader(make(files))
    assert names(list(found)) == ["b.JPG", "raw"]
    assert found.skipped == {".txt": 1, "(no extension)": 1, "._*": 1, ".xml": 1}
    assert count_members(make(files), LOCATOR) == 2


def test_a_repeated_member_gets_a_number_in_every_range(make: Callable[[Files], ShardRef]) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if "zip" in make([]).key else _nothing():
        ref = make(
            [("a.jpg", photo(1)), ("b.jpg", photo(2)), ("./a.jpg", photo(3)), ("a.jpg", photo(4))]
        )
    expected = ["a.jpg", "b.jpg", "a.jpg#2", "a.jpg#3"]
    assert names(read(ref)) == expected
    assert names(read(ref, 2)) == expected[2:]


def test_no_two_photos_get_one_name_whatever_the_members_are_called(tmp_path: Path) -> None:
    members = [
        "x#2",
        "x",
        "x",
        "x",
        "y",
        "y",
        "y#2",
        "y#2",
        "#truncated",
        "#corrupt",
        "#unreadable",
    ]
    files = [(name, photo(n)) for n, name in enumerate(members)]
    ref = shard(tmp_path / "a.tar", tar([*files, ("cut.jpg", bytes(9000))])[:-10240])
    expected = ["x#2", "x", "x#3", "x#4", "y", "y#2", "y#2#2", "y#2#3"]
    expected += ["#truncated#2", "#corrupt#2", "#unreadable#2", "#truncated"]
    rows = read(ref)
    assert names(rows) == expected
    assert [row for at in range(12) for row in read(ref, at, at + 1)] == rows


def test_sidecars_cannot_make_columns_without_end(tmp_path: Path) -> None:
    files: list[tuple[str, bytes]] = []
    for n in range(5):
        facts = (
            {"patient": f"p{n}"} | {"k" * 257: "long"} | {f"key{n}-{k}": "v" for k in range(100)}
        )
        files += [(f"{n}.jpg", photo(n)), (f"{n}.json", json.dumps(facts).encode())]
    metas = [dict(row.ref.meta) for row in read(shard(tmp_path / "a.tar", tar(files)))]
    assert len(set().union(*metas)) == 256
    assert [len(meta) for meta in metas] == [101, 101, 56, 1, 1]
    assert [meta["patient"] for meta in metas] == [f"p{n}" for n in range(5)]


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_sidecars_become_meta_wherever_they_stand(make: Callable[[Files], ShardRef]) -> None:
    facts = {"patient": "p7", "age": 41, "tags": ["a", "b"], "none": None}
    files = [
        ("s/1.json", json.dumps(facts).encode()),
        ("s/1.jpg", photo(1)),
        ("s/2.jpg", photo(2)),
        ("s/2.json", b'{"patient": "p8"}'),
        ("s/3.left.jpg", photo(3)),
        ("s/3.right.jpg", photo(4)),
        ("s/3.json", b'{"patient": "p9"}'),
        ("t/3.jpg", photo(5)),
        ("t/4.json", b"not json"),
        ("t/4.jpg", photo(6)),
        ("t/5.json", b"{}"),
    ]
    ref = make(files)
    expected: list[dict[str, str]] = [
        {"patient": "p7", "age": "41", "tags": '["a", "b"]'},
        {"patient": "p8"},
        {"patient": "p9"},
        {"patient": "p9"},
        {},
        {},
    ]
    found = reader(ref)
    assert [dict(row.ref.meta) for row in found] == expected
    assert found.skipped == {".json": 1}
    apart = [row for at in range(6) for row in read(ref, at, at + 1)]
    assert [dict(row.ref.meta) for row in apart] == expected


def test_a_member_over_the_byte_limit_is_a_row_without_being_read(
    make: Callable[[Files], ShardRef],
) -> None:
    ref = make([PHOTOS[0], ("large.jpg", b"\xff\xd8\xff" + bytes(200_000)), PHOTOS[1]])
    rows = read(ref, max_image_bytes=100_000)
    assert [r.status for r in rows] == [Status.OK, Status.TOO_LARGE, Status.OK]
    assert (
        rows[1].data is None
        and "max_image_bytes" in str(rows[1].error)
        and rows[1].ref.size == 200_003
    )


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/a.jpg", "x/../../a.jpg", "..\\a.jpg", "C:\\a.jpg"]
)
def test_a_name_that_leads_out_of_the_archive_is_refused_by_name(
    make: Callable[[Files], ShardRef], name: str
) -> None:
    ref = make([PHOTOS[0], (name, photo(9)), PHOTOS[1]])
    rows = read(ref)
    assert [r.status for r in rows] == [Status.OK, Status.REFUSED, Status.OK]
    assert (names(rows)[1], rows[1].data) == (name, None)
    assert name in str(rows[1].error)


def test_an_empty_archive_gives_nothing(make: Callable[[Files], ShardRef]) -> None:
    ref = make([])
    assert (read(ref), count_members(ref, LOCATOR)) == ([], 0)


def test_an_empty_member_is_a_row_with_zero_bytes(make: Callable[[Files], ShardRef]) -> None:
    (row,) = read(make([("a.jpg", b"")]))
    assert (row.data, row.status) == (b"", Status.OK)


def test_long_and_foreign_names_survive(make: Callable[[Files], ShardRef]) -> None:
    long = "/".join(["ordner"] * 20) + "/" + "ä" * 60 + ".jpg"
    ref = make([(long, photo(1))]) if "ustar" not in make([]).key else make([("ä.jpg", photo(1))])
    assert names(read(ref)) in ([long], ["ä.jpg"])


def test_an_archive_that_changed_or_went_is_an_error(make: Callable[[Files], ShardRef]) -> None:
    ref = make(PHOTOS)
    make(PHOTOS[1:])
    with pytest.raises(ChangedError):
        read(ref)
    with pytest.raises(ChangedError):
        count_members(ref, LOCATOR)
    Path(ref.uri).unlink()
    with pytest.raises(NotFoundError):
        read(ref)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_that_is_written_over_while_it_is_read_is_an_error(tmp_path: Path, name: str) -> None:
    first, second = (
        MAKERS[name]([(f"{n}.bin.jpg", bytes([k]) * 700_000) for n in range(4)]) for k in (1, 2)
    )
    ref = shard(tmp_path / name, first)
    found = iter(read_unit(WorkUnit("u", (), ref), LOCATOR, DecodeSettings(), 2))
    next(found)
    with open(ref.uri, "r+b") as file:
        file.write(second)
    os.utime(ref.uri, ns=(1, 1))
    with pytest.raises(ChangedError):
        list(found)


# Python says the second and the third where memory runs out within a lock or a thread.
WANT_OF_MEMORY = (
    pa.ArrowMemoryError("malloc of size 64 failed"),
    RuntimeError("can't allocate read lock"),
    RuntimeError("can't start new thread"),
)


@pytest.mark.parametrize("error", WANT_OF_MEMORY, ids=str)
def test_want_of_memory_is_not_the_fault_of_a_parquet_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pq.write_table(pa.table({"image": [photo(1)]}), tmp_path / "a.parquet")
    ref = shard(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fail)
    with pytest.raises(type(error), match=str(error)):
        read(ref)


@pytest.mark.parametrize("error", WANT_OF_MEMORY[1:], ids=str)
def test_want_of_memory_is_not_the_fault_of_a_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    ref = shard(tmp_path / "a.tar", MAKERS["a.tar"]([("a.jpg", photo(1))]))

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(skinbatch.archive.tar, "is_tar_header", fail)
    with pytest.raises(type(error), match=str(error)):
        read(ref)


def test_an_archive_without_a_listed_version_is_read_as_one_version(
    make: Callable[[Files], ShardRef],
) -> None:
    listed = make(PHOTOS)
    ref = ShardRef(listed.key, listed.uri, listed.kind, 1, None)
    rows = read(ref)
    assert len(rows) == 7 and rows[0].ref.version is None


def test_s3_gives_the_same_rows_as_a_file(make: Callable[[Files], ShardRef], s3: S3Server) -> None:
    local = make(PHOTOS)
    bucket = s3.bucket()
    s3.client.upload_file(local.uri, bucket, local.key)
    (ref,) = open_source(f"s3://{bucket}/{local.key}", Config(storage=s3.settings)).entries()
    assert isinstance(ref, ShardRef)
    locator = Locator(s3.settings)
    for start, stop in ((0, None), (2, 5)):
        rows = list(read_unit(WorkUnit("u", (), ref, start, stop), locator, DecodeSettings(), 2))
        assert [(r.ref.image_id, r.data) for r in rows] == [
            (r.ref.image_id, r.data) for r in read(local, start, stop)
        ]
    assert count_members(ref, locator) == 7
    s3.client.put_object(Bucket=bucket, Key=local.key, Body=b"another")
    with pytest.raises(ChangedError):
        list(read_unit(WorkUnit("u", (), ref), locator, DecodeSettings(), 2))


def ok_names(rows: Sequence[Fetched]) -> list[str]:
    return [r.ref.image_id.partition("/")[2] for r in rows if r.status is Status.OK]


def unpacked(data: bytes, name: str) -> bytes:
    """Return what can be unpacked of a packed file that is cut off."""
    if name.endswith("gz"):
        return zlib.decompressobj(31).decompress(data)
    if name.endswith("bz2"):
        return bz2.BZ2Decompressor().decompress(data)
    if name.endswith("zst"):
        return zstd.ZstdDecompressor().decompress(data)
    return lzma.LZMADecompressor().decompress(data) if name.endswith("xz") else data


@pytest.mark.parametrize(
    "name", ["a.tar", "gnu.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.tar.zst"]
)
def test_a_tar_cut_anywhere_gives_what_is_whole_and_a_row_for_the_break(
    tmp_path: Path, name: str
) -> None:
    whole = MAKERS[name](PHOTOS)
    plain = tar(PHOTOS) if name == "a.tar.zst" else whole  # older versions of Python cannot read it
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        ends = [member.offset_data + member.size for member in archive.getmembers()]
    end_marker = -(-ends[-1] // 512) * 512 + 512
    for cut in [*range(20, len(whole), max(1, len(whole) // 40)), *range(512, len(whole), 4096)]:
        ref = shard(tmp_path / name, whole[:cut])
        readable = len(unpacked(whole[:cut], name))
        complete = sum(end <= readable for end in ends)
        rows = read(ref)
        assert [r.data for r in rows if r.status is Status.OK] == [
            data for _, data in PHOTOS[:complete]
        ]
        broken = ["#truncated"] if readable < end_marker else []
        assert names(rows) == [member for member, _ in PHOTOS[:complete]] + broken, cut
        assert count_members(ref, LOCATOR) == len(rows)
        parts = read(ref, 0, 3) + read(ref, 3, 6) + read(ref, 6)
        assert [(r.ref.image_id, r.data) for r in parts] == [(r.ref.image_id, r.data) for r in rows]


def test_a_tar_cut_between_two_members_is_not_taken_for_its_end(tmp_path: Path) -> None:
    whole = tar(PHOTOS)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        fourth = archive.getmembers()[3].offset
    rows = read(shard(tmp_path / "a.tar", whole[:fourth]))
    assert names(rows) == ["dir/000.jpg", "dir/001.jpg", "dir/002.jpg", "#truncated"]


def test_a_tar_with_a_damaged_header_gives_what_is_before_it(tmp_path: Path) -> None:
    whole = bytearray(tar(PHOTOS))
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        whole[archive.getmembers()[3].offset + 5] ^= 0xFF
    ref = shard(tmp_path / "a.tar", bytes(whole))
    rows = read(ref)
    assert names(rows) == ["dir/000.jpg", "dir/001.jpg", "dir/002.jpg", "#corrupt"]
    assert (rows[-1].status, rows[-1].data) == (Status.CORRUPT, None)
    assert count_members(ref, LOCATOR) == 4


@pytest.mark.parametrize("name", ["a.tar", "a.zip", "a.parquet", "a.tar.gz"])
def test_a_file_that_is_no_archive_at_all_is_one_row(tmp_path: Path, name: str) -> None:
    for data, status in ((b"no archive " * 200, Status.CORRUPT), (b"", Status.TRUNCATED)):
        (tmp_path / name).write_bytes(data)
        (ref,) = open_source(str(tmp_path), CONFIG).entries()
        assert isinstance(ref, ShardRef)
        (row,) = read(ref)
        assert (row.ref.image_id, row.status) == (f"{name}/#{status}", status), data[:5]
        assert count_members(ref, LOCATOR) == 1
        assert read(ref, 1) == []


@pytest.mark.parametrize("name", ["a.zip", "a.parquet"])
def test_a_zip_or_parquet_file_that_is_cut_is_one_row(tmp_path: Path, name: str) -> None:
    whole = packed(PHOTOS) if name == "a.zip" else parquet({"image": [d for _, d in PHOTOS]})
    (row,) = read(shard(tmp_path / name, whole[:-40]))
    assert (row.ref.image_id, row.status) == (f"{name}/#truncated", Status.TRUNCATED)


def test_the_content_of_an_archive_wins_over_its_name(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name, data in (
        ("a.tar", packed(PHOTOS)),
        ("b.zip", tar(PHOTOS)),
        ("c", tar(PHOTOS)),
        ("d", packed(PHOTOS)),
        ("e", tar(PHOTOS, "w:gz")),
    ):
        (tmp_path / "tree" / name).write_bytes(data)
    entries = list(open_source(str(tmp_path / "tree"), CONFIG).entries())
    assert [e.key for e in entries if isinstance(e, ShardRef)] == ["a.tar", "b.zip", "c", "d", "e"]
    assert [len(read(e)) for e in entries if isinstance(e, ShardRef)] == [7] * 5


def test_links_devices_and_sparse_files_of_a_tar_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("device.jpg", tarfile.CHRTYPE),
            ("folder.jpg", tarfile.DIRTYPE),
            ("link.txt", tarfile.SYMTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("real.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    found = reader(shard(tmp_path / "a.tar", out.getvalue()))
    assert {r.ref.image_id: r.status for r in found} == {
        "a.tar/link.jpg": Status.REFUSED,
        "a.tar/hard.jpg": Status.REFUSED,
        "a.tar/device.jpg": Status.REFUSED,
        "a.tar/real.jpg": Status.OK,
    }
    assert found.skipped == {".txt": 1}


def test_a_sparse_tar_made_by_tar_itself_is_refused_and_read_past(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as hole:
        hole.truncate(1 << 20)
        hole.seek(500_000)
        hole.write(b"x" * 5000)
    (tmp_path / "after.jpg").write_bytes(photo(1))
    for form in ("gnu", "pax"):
        path = tmp_path / f"{form}.tar"
        subprocess.run(
            ["tar", "-cSf", path, f"--format={form}", "sparse.jpg", "after.jpg"],
            cwd=tmp_path,
            check=True,
        )
        rows = read(shard(path, path.read_bytes()))
        assert [r.status for r in rows] == [Status.REFUSED, Status.OK], form
        assert rows[1].data == photo(1)


def test_a_tar_header_cannot_make_the_reader_take_all_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    rows = read(shard(tmp_path / "a.tar", info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)))
    assert names(rows) == ["#corrupt"]


def test_sizes_beyond_octal_are_understood(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge.jpg")
    info.size = 9 << 30
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / "a.tar"
        with path.open("wb") as out:
            header = info.tobuf(form)
            out.write(header)
            out.seek(len(header) + info.size)
            out.write(tar(PHOTOS[:1]))
        (ref,) = open_source(str(path), CONFIG).entries()
        assert isinstance(ref, ShardRef)
        assert [(r.status, r.ref.size) for r in read(ref)] == [
            (Status.TOO_LARGE, 9 << 30),
            (Status.OK, len(photo(0))),
        ]


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(packed(PHOTOS[:2]))
    for at in (data.find(b"PK\x03\x04") + 6, data.find(b"PK\x01\x02") + 8):
        data[at] |= 1
    rows = read(shard(tmp_path / "a.zip", bytes(data)))
    assert [r.status for r in rows] == [Status.REFUSED, Status.OK]
    assert "encrypted" in str(rows[0].error)


def test_a_damaged_zip_member_is_a_row_and_the_others_are_read(tmp_path: Path) -> None:
    data = bytearray(packed(PHOTOS, zipfile.ZIP_STORED))
    at = data.find(photo(2))
    data[at + 200] ^= 0xFF
    rows = read(shard(tmp_path / "a.zip", bytes(data)))
    assert [r.status for r in rows] == [Status.OK] * 2 + [Status.CORRUPT] + [Status.OK] * 4
    assert "dir/002.jpg" in str(rows[2].error)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("link.jpg")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    (row,) = read(shard(tmp_path / "a.zip", out.getvalue()))
    assert row.status is Status.REFUSED


def test_hugging_face_images_are_rows_with_the_other_columns_as_meta(tmp_path: Path) -> None:
    columns = {
        "image": [{"bytes": data, "path": name} for name, data in PHOTOS],
        "label": list(range(7)),
        "patient": [f"p{n}" if n else None for n in range(7)],
        "when": pa.array([1_700_000_000_000_000_000 + n for n in range(7)], pa.timestamp("ns")),
        "embedding": [bytes(4)] * 7,
        "box": [[1.5, 2.0]] * 7,
    }
    ref = shard(tmp_path / "a.parquet", parquet(columns, row_group_size=3))
    rows = read(ref)
    assert [(r.ref.image_id, r.data) for r in rows] == [
        (f"a.parquet/{n}", d) for n, (_, d) in enumerate(PHOTOS)
    ]
    assert dict(rows[0].ref.meta) == {
        "label": "0",
        "when": "2023-11-14 22:13:20.000000000",
        "box": "[1.5, 2.0]",
    }
    assert rows[1].ref.meta["patient"] == "p1"
    for size in (1, 2, 4):
        assert [r for at in range(0, 7, size) for r in read(ref, at, at + size)] == rows
    assert count_members(ref, LOCATOR) == 7


@pytest.mark.parametrize("column", ["image", "jpg", "image_bytes", "content"])
def test_a_plain_binary_column_is_found(tmp_path: Path, column: str) -> None:
    for kind in (pa.binary(), pa.large_binary()):
        columns = {"id": [1, 2], column: pa.array([photo(1), photo(2)], kind)}
        assert [r.data for r in read(shard(tmp_path / "a.parquet", parquet(columns)))] == [
            photo(1),
            photo(2),
        ]


def test_rows_without_bytes_and_with_too_many_are_rows(tmp_path: Path) -> None:
    columns = {
        "image": [
            {"bytes": None, "path": "elsewhere.jpg"},
            None,
            {"bytes": b"x" * 500, "path": None},
        ]
    }
    rows = read(shard(tmp_path / "a.parquet", parquet(columns)), max_image_bytes=499)
    assert [r.status for r in rows] == [Status.EMPTY, Status.EMPTY, Status.TOO_LARGE]


def test_a_damaged_row_group_costs_only_its_own_rows(tmp_path: Path) -> None:
    data = bytearray(
        parquet(
            {"image": [d for _, d in PHOTOS]},
            row_group_size=3,
            compression="NONE",
            use_dictionary=False,
            write_page_checksum=True,
            write_statistics=False,
        )
    )
    data[data.find(photo(4)) + 100] ^= 0xFF
    ref = shard(tmp_path / "a.parquet", bytes(data))
    rows = read(ref)
    assert [r.status for r in rows] == [Status.OK] * 3 + [Status.CORRUPT] * 3 + [Status.OK]
    assert names(rows) == [str(n) for n in range(7)]
    assert [r for at in range(7) for r in read(ref, at, at + 1)] == rows


def as_strings(*values: bytes) -> pa.Array:
    """Return text columns as some writers leave them: Arrow does not check that they are UTF-8."""
    return pa.array(values, pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (as_strings(b"caf\xe9", b"ok", b""), ["caf\\xe9", "ok", ""]),
        (as_strings(b"caf\xe9", b"ok", b"").dictionary_encode(), ["caf\\xe9", "ok", ""]),
        (
            pa.array([0, None, None], pa.timestamp("ms", "Mars/Olympus")),
            ["1970-01-01 00:00:00.000Z", None, None],
        ),
        (
            pa.array([[4 * 10**17], [0], None], pa.list_(pa.timestamp("us"))),
            [None, '["1970-01-01 00:00:00"]', None],
        ),
        (
            pa.array([[1], [2], None], pa.list_(pa.timestamp("us", "Mars/Olympus"))),
            [None, None, None],
        ),
        (
            pa.ListArray.from_arrays(pa.array([0, 1, 2, 2]), as_strings(b"\xe9", b"ok")),
            [None, '["ok"]', "[]"],
        ),
    ],
)
def test_a_value_that_python_cannot_hold_costs_no_photo(
    tmp_path: Path, column: pa.Array, shown: list[str | None]
) -> None:
    ref = shard(
        tmp_path / "a.parquet", parquet({"image": [photo(n) for n in range(3)], "note": column})
    )
    rows = read(ref)
    assert [(r.data, r.status) for r in rows] == [(photo(n), Status.OK) for n in range(3)]
    assert [r.ref.meta.get("note") for r in rows] == shown
    assert [r for at in range(3) for r in read(ref, at, at + 1)] == rows


@pytest.mark.parametrize("group", [7, 1000, 5000])
def test_a_column_that_arrow_leaves_coded_keeps_to_its_rows(tmp_path: Path, group: int) -> None:
    """Write more rows than are read at a time, some null, in two such columns, one of which changes
    with the row group."""
    count = 9000
    patients = [None if n % 7 == 0 else f"patient-{n % 800}" for n in range(count)]
    table = {
        "image": [b"%d" % n for n in range(count)],
        "patient": pa.array(patients).dictionary_encode(),
        "number": pa.array(range(count)),
        "site": pa.array([f"s{n // 100}" for n in range(count)]).dictionary_encode(),
    }
    rows = read(shard(tmp_path / "a.parquet", parquet(table, row_group_size=group)), 100, count)
    assert [r.data for r in rows] == table["image"][100:]
    assert [r.ref.meta.get("patient") for r in rows] == patients[100:]
    assert [r.ref.meta["number"] for r in rows] == [str(n) for n in range(100, count)]
    assert [r.ref.meta["site"] for r in rows] == [f"s{n // 100}" for n in range(100, count)]


def test_beside_a_column_that_arrow_leaves_coded_photos_are_not_held_by_the_thousand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.archive import parquet_file as module

    held: list[int] = []
    real = module._batches

    def batches(*args: Any) -> Iterator[pa.RecordBatch]:
        for batch in real(*args):
            held.append(len(batch))
            yield batch

    monkeypatch.setattr(module, "_batches", batches)
    labels = pa.array(["a", "b"] * 600).dictionary_encode()
    data = parquet({"image": [b"photo"] * 1200, "label": labels}, row_group_size=500)
    assert len(read(shard(tmp_path / "a.parquet", data))) == 1200
    assert sum(held) == 1200 and max(held) <= module._BATCH


@pytest.mark.parametrize("coded", [False, True])
def test_a_damaged_page_costs_the_rows_from_it_on(tmp_path: Path, coded: bool) -> None:
    photos = [b"%03d" % n * 300 for n in range(400)]
    labels = pa.array(["a", "b"] * 200)
    options = {
        "data_page_size": 20_000,
        "write_batch_size": 5,
        "write_page_checksum": True,
        "write_statistics": False,
    }
    table = {"image": photos, "label": labels.dictionary_encode() if coded else labels}
    data = bytearray(parquet(table, compression="none", use_dictionary=["label"], **options))
    data[data.index(photos[350]) + 100] ^= 1
    rows = read(shard(tmp_path / "a.parquet", bytes(data)))
    assert names(rows) == [str(n) for n in range(400)]
    bad = [n for n, r in enumerate(rows) if r.status is not Status.OK]
    assert bad == list(range(bad[0], 400)) and 300 < bad[0] <= 350
    assert {rows[n].status for n in bad} == {Status.CORRUPT}


def test_a_column_that_arrow_leaves_coded_is_not_decoded_for_every_row(tmp_path: Path) -> None:
    count = 30_000
    values = pa.array([f"patient-{n:036d}" for n in range(count)])
    images = [b"photo"] * count

    def seconds(name: str, column: pa.Array) -> float:
        ref = shard(tmp_path / name, parquet({"image": images, "patient": column}))
        begin = time.process_time()
        assert len(read(ref, count - 10, count)) == 10
        return time.process_time() - begin

    text = min(seconds("text.parquet", values) for _ in range(3))
    assert min(seconds("coded.parquet", values.dictionary_encode()) for _ in range(3)) < 5 * text


def test_what_breaks_within_a_batch_takes_a_row_for_each_photo_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.archive import parquet_file as module

    calls = iter(range(99))

    def breaks(values: Any) -> dict[str, str]:
        if next(calls) == 4:
            raise ValueError("not a value")
        return {}

    monkeypatch.setattr(module, "flat_meta", breaks)
    rows = read(shard(tmp_path / "a.parquet", parquet({"image": [d for _, d in PHOTOS]})))
    assert names(rows) == [str(n) for n in range(7)]
    assert [r.status for r in rows] == [Status.OK] * 4 + [Status.CORRUPT] * 3


def named(names: list[str], *columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table([pa.array(c) for c in columns], names=names), out)
    return out.getvalue()


def test_of_columns_with_one_name_the_first_passes_through(tmp_path: Path) -> None:
    data = named(
        ["note", "image", "note", "x.y", "x"],
        ["a", "b"],
        [photo(1), photo(2)],
        [1, 2],
        [3, 4],
        [5, 6],
    )
    rows = read(shard(tmp_path / "a.parquet", data))
    assert [r.data for r in rows] == [photo(1), photo(2)]
    assert [dict(r.ref.meta) for r in rows] == [
        {"note": "a", "x.y": "3", "x": "5"},
        {"note": "b", "x.y": "4", "x": "6"},
    ]


def test_two_columns_called_image_are_one_row_that_says_so(tmp_path: Path) -> None:
    ref = shard(
        tmp_path / "a.parquet",
        named(["image", "image"], [photo(1), photo(2)], [photo(3), photo(4)]),
    )
    (row,) = read(ref)
    assert (row.ref.image_id, row.status) == ("a.parquet/#corrupt", Status.CORRUPT)
    assert "2 columns called 'image'" in str(row.error)
    assert count_members(ref, LOCATOR) == 1


def test_a_column_with_photos_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    ref = shard(
        tmp_path / "a.parquet", named(["photo.jpg", "photo"], [photo(1), photo(2)], ["a", "b"])
    )
    assert [(r.data, dict(r.ref.meta)) for r in read(ref)] == [
        (photo(1), {"photo": "a"}),
        (photo(2), {"photo": "b"}),
    ]


def test_parquet_files_without_photos_are_skipped_in_a_tree_and_refused_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "labels.parquet").write_bytes(parquet({"label": [1, 2], "name": ["a", "b"]}))
    (tmp_path / "photos.parquet").write_bytes(parquet({"image": [photo(1)]}))
    source = open_source(str(tmp_path), CONFIG)
    assert [e.key for e in source.entries() if isinstance(e, ShardRef)] == ["photos.parquet"]
    assert source.skipped == {"(Parquet without photos)": 1}
    with pytest.raises(UsageError, match="its columns are label, name"):
        open_source(str(tmp_path / "labels.parquet"), CONFIG)


@pytest.mark.parametrize("name", ["a.zip", "a.parquet", "a.tar", "a.tar.gz"])
def test_an_error_of_the_store_is_never_a_row(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.storage import local

    ref = shard(
        tmp_path / name,
        parquet({"image": [photo(1)]}) if "parquet" in name else MAKERS[name](PHOTOS),
    )
    reads = iter(range(1, 99))

    def fails_later(real: Any) -> Any:
        def ask(*args: Any, **options: Any) -> Any:
            if next(reads) > 1:
                raise StoreError("no answer")
            return real(*args, **options)

        return ask

    monkeypatch.setattr(local.LocalStore, "get_range", fails_later(local.LocalStore.get_range))
    monkeypatch.setattr(local._LocalStream, "readinto", fails_later(local._LocalStream.readinto))
    with pytest.raises(StoreError, match="no answer"):
        for _ in range(2):
            read(ref)


class Guarded(Locator):
    """Forbid some files, by the end of their name."""

    def __init__(self, *forbidden: str) -> None:
        super().__init__(CONFIG.storage)
        self.forbidden = forbidden

    def locate(self, uri: str) -> tuple[Store, str]:
        world = self

        class GuardedStore(LocalStore):
            def open_checked(
                self, key: str, version: str | None, size: int | None = None
            ) -> tuple[int, ObjectInfo]:
                if key.endswith(world.forbidden):
                    raise ForbiddenError(f"/{key}: access denied")
                return super().open_checked(key, version, size)

        return GuardedStore("/"), uri.lstrip("/")


def test_a_forbidden_archive_file_is_a_row_beside_one_that_can_be_read(
    make: Callable[[Files], ShardRef],
) -> None:
    ref = make(PHOTOS)
    world = Guarded(ref.key)
    alone = read_unit(WorkUnit("u", (), ref), world, DecodeSettings(), 2)
    with pytest.raises(ForbiddenError, match="nothing else there"):
        list(alone)
    with pytest.raises(ForbiddenError, match="nothing else there"):
        count_members(ref, world)
    Path(ref.uri).with_name("other.jpg").write_bytes(photo(1))
    (row,) = read_unit(WorkUnit("u", (), ref), world, DecodeSettings(), 2)
    assert (row.ref.image_id, row.status, row.data) == (
        f"{ref.key}/#unreadable",
        Status.UNREADABLE,
        None,
    )
    assert row.error == f"{ref.uri}: access denied"
    assert list(read_unit(WorkUnit("u", (), ref, 1), world, DecodeSettings(), 2)) == []
    assert count_members(ref, world) == 1


def test_a_forbidden_archive_file_is_a_row_after_another_was_read(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = (shard(tmp_path / name / "a.tar", tar(PHOTOS)) for name in ("one", "two"))
    world = Guarded("two/a.tar")
    assert len(list(read_unit(WorkUnit("u", (), first), world, DecodeSettings(), 2))) == 7
    (row,) = read_unit(WorkUnit("u", (), second), world, DecodeSettings(), 2)
    assert row.status is Status.UNREADABLE
    world.forbidden = ("a.tar",)
    with pytest.raises(ForbiddenError):
        list(read_unit(WorkUnit("u", (), second), world, DecodeSettings(), 2))


def test_a_forbidden_archive_file_on_s3_is_a_row_and_a_forbidden_bucket_is_not(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinbatch.storage import s3 as module

    bucket = s3.bucket()
    for name in ("a.tar", "b.tar"):
        s3.client.put_object(Bucket=bucket, Key=f"x/{name}", Body=tar(PHOTOS))
    forbidden = {"x/a.tar"}
    real = module._S3Stream._open

    def guarded(self: Any) -> Any:
        if self._key in forbidden:
            raise ForbiddenError(f"{self._uri}: access denied (AccessDenied)")
        return real(self)

    monkeypatch.setattr(module._S3Stream, "_open", guarded)
    first, second = open_source(f"s3://{bucket}/x", Config(storage=s3.settings)).entries()
    assert isinstance(first, ShardRef) and isinstance(second, ShardRef)
    (row,) = read_unit(WorkUnit("u", (), first), Locator(s3.settings), DecodeSettings(), 2)
    assert (row.ref.image_id, row.status) == ("a.tar/#unreadable", Status.UNREADABLE)
    forbidden.add("x/b.tar")
    for ref in (first, second):
        with pytest.raises(ForbiddenError, match="AccessDenied"):
            list(read_unit(WorkUnit("u", (), ref), Locator(s3.settings), DecodeSettings(), 2))


@pytest.mark.parametrize("name", ["a.tar", "stored.zip", "a.parquet", "a.tar.gz"])
def test_a_read_error_of_the_disk_costs_what_lies_there(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    files = [(f"{n}.jpg", bytes([n]) * 10 + os.urandom(3_000_000)) for n in range(4)]
    if name == "a.parquet":
        options = {"row_group_size": 1, "compression": "NONE", "use_dictionary": False}
        ref = shard(tmp_path / name, parquet({"image": [d for _, d in files]}, **options))
    else:
        ref = shard(tmp_path / name, MAKERS[name](files))
    damaged = range(ref.size * 5 // 8, ref.size * 5 // 8 + 4096)

    def damage(fd: int, count: int) -> None:
        at = os.lseek(fd, 0, os.SEEK_CUR)
        if at < damaged.stop and at + count > damaged.start:
            raise OSError(errno.EIO, "Input/output error")

    real_read, real_readv = os.read, os.readv

    def read_some(fd: int, count: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{fd}") == ref.uri:
            damage(fd, count)
        return real_read(fd, count)

    def read_into(fd: int, buffers: Any) -> int:
        damage(fd, len(buffers[0]))
        return real_readv(fd, buffers)

    monkeypatch.setattr(os, "read", read_some)
    monkeypatch.setattr(os, "readv", read_into)
    rows = read(ref)
    whole = name in ("stored.zip", "a.parquet")
    assert [r.status for r in rows] == [Status.OK] * 2 + [Status.UNREADABLE] + [Status.OK] * whole
    assert "Input/output error" in str(rows[2].error)
    assert rows[2].ref.image_id.endswith("#unreadable") is not whole


def test_an_archive_whose_folder_is_gone_is_not_taken_for_a_deleted_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    ref = shard(tmp_path / "disk" / "a.tar", tar(PHOTOS))
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="unmounted") as raised:
        read(ref)
    assert not isinstance(raised.value, NotFoundError)


PEAK = """
import sys
from skinbatch.archive.source import open_source
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config
from skinbatch.storage.locate import Locator
from skinbatch.types import WorkUnit
config = Config()
(ref,) = open_source(sys.argv[1], config).entries()
count = sum(len(row.data) for row in read_unit(WorkUnit("u", (), ref), Locator(config.storage), config.decode, 2))
print(count, *[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip", "a.parquet"])
def test_memory_does_not_grow_with_the_archive(tmp_path: Path, name: str) -> None:
    peaks = []
    for count in (50, 500):
        files = [(f"{n:04}.jpg", (b"%04d" % n) * 75_000) for n in range(count)]
        if name.endswith("parquet"):
            data = parquet(
                {"image": [d for _, d in files]},
                row_group_size=25,
                compression="NONE",
                use_dictionary=False,
            )
        else:
            data = {
                "a.tar": tar,
                "a.tar.gz": lambda f: gzip.compress(tar(f), 1),
                "a.zip": lambda f: packed(f, zipfile.ZIP_STORED),
            }[name](files)
        (tmp_path / name).write_bytes(data)
        said = subprocess.run(
            [sys.executable, "-c", PEAK, tmp_path / name],
            check=True,
            capture_output=True,
            text=True,
        )
        total, peak = map(int, said.stdout.split())
        assert total == count * 300_000
        peaks.append(peak)
    # The larger archive is 135 MB larger.
    assert peaks[1] - peaks[0] < 20_000, peaks
