"""Test archives joined into one file, as log rotation, parallel writers and `cat` make them, and
data behind an end mark."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import skinbatch
from skinbatch.archive.shard import count_members, read_member
from skinbatch.archive.source import open_source
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config
from skinbatch.storage.locate import Locator
from skinbatch.types import Fetched, ShardRef, Status, WorkUnit
from tests.faces import face, jpeg, rows, tar_bytes

CONFIG = Config()
PHOTOS = [jpeg(face(n)) for n in range(4)]
FIRST = tar_bytes({"a.jpg": PHOTOS[0], "b.jpg": PHOTOS[1]})
SECOND = tar_bytes({"c.jpg": PHOTOS[2], "a.jpg": PHOTOS[3]})
NAMES = ["a.jpg", "b.jpg", "c.jpg", "a.jpg#2"]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "x.tar": bytes,
    "x.tar.gz": gzip.compress,
    "x.tar.bz2": bz2.compress,
    "x.tar.xz": lzma.compress,
    "x.tar.zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
}


@pytest.fixture(params=PACKERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read(path: Path) -> list[Fetched]:
    """Return all rows, read in one go, one by one, and by name."""
    (entry,) = open_source(str(path), CONFIG).entries()
    assert isinstance(entry, ShardRef)
    locator = Locator(CONFIG.storage)
    found = list(read_unit(WorkUnit("u", shard=entry), locator, CONFIG.decode, 1))
    assert count_members(entry, locator) == len(found)
    for n, row in enumerate(found):
        assert list(read_unit(WorkUnit("u", (), entry, n, n + 1), locator, CONFIG.decode, 1)) == [
            row
        ]
        if row.status is Status.OK:
            again = read_member(entry, row.ref.image_id, locator, CONFIG.decode)
            assert again is not None and again.data == row.data
    return found


def names(found: list[Fetched]) -> list[str]:
    return [row.ref.image_id.partition("/")[2] for row in found]


def write(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def test_all_members_of_joined_tars_are_read(tmp_path: Path, name: str) -> None:
    pack = PACKERS[name]
    for n, data in enumerate(
        (pack(FIRST) + pack(SECOND), pack(FIRST + SECOND), pack(FIRST + bytes(5120) + SECOND))
    ):
        found = read(write(tmp_path / str(n), name, data))
        assert (names(found), [row.data for row in found]) == (NAMES, PHOTOS)
    three = read(write(tmp_path / "three", name, pack(FIRST) + pack(SECOND) + pack(FIRST)))
    assert names(three) == [*NAMES, "a.jpg#3", "b.jpg#2"]


def test_zeros_behind_the_end_are_no_matter(tmp_path: Path, name: str) -> None:
    pack = PACKERS[name]
    for n, zeros in enumerate((1, 511, 512, 100_000)):
        assert names(read(write(tmp_path / f"{n}a", name, pack(FIRST + bytes(zeros))))) == NAMES[:2]
        assert names(read(write(tmp_path / f"{n}b", name, pack(FIRST) + bytes(zeros)))) == NAMES[:2]
    assert (
        names(read(write(tmp_path / "c", name, pack(FIRST) + bytes(1024) + pack(SECOND)))) == NAMES
    )


@pytest.mark.parametrize(
    "garbage", [b"x", b"garbage " * 100, b"\0" * 600 + b"x", b"PK\3\4" + bytes(2000)]
)
def test_anything_else_behind_the_end_is_a_row_that_says_so(
    tmp_path: Path, name: str, garbage: bytes
) -> None:
    pack = PACKERS[name]
    for n, data in enumerate((pack(FIRST + garbage), pack(FIRST) + garbage)):
        found = read(write(tmp_path / str(n), name, data))
        assert names(found) == [*NAMES[:2], "#corrupt"]
        assert found[-1].status is Status.CORRUPT and str(tmp_path) in str(found[-1].error)
    assert "follows the end mark" in str(
        read(write(tmp_path / "c", name, pack(FIRST + garbage)))[-1].error
    )


def test_a_joined_tar_that_is_cut_says_so(tmp_path: Path, name: str) -> None:
    pack = PACKERS[name]
    first, second = pack(FIRST), pack(SECOND)
    for cut in (5, len(second) // 4, len(second) // 2):
        found = read(write(tmp_path / f"{cut}", name, first + second[:cut]))
        assert names(found)[:2] == NAMES[:2] and len(found) >= 3
        assert found[-1].status in (Status.TRUNCATED, Status.CORRUPT) and found[-1].data is None


def test_what_one_tar_says_of_all_its_members_is_not_said_of_the_next(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "renamed.jpg"}
    ) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = len(PHOTOS[0])
        archive.addfile(member, io.BytesIO(PHOTOS[0]))
    assert names(read(write(tmp_path, "x.tar", out.getvalue() + SECOND))) == [
        "renamed.jpg",
        "c.jpg",
        "a.jpg",
    ]


def test_joined_tars_are_scored_whole_and_resume(tmp_path: Path, fake_pack: str) -> None:
    path = write(tmp_path / "in", "x.tar", FIRST + SECOND)
    report = skinbatch.score(path, tmp_path / "out", pack=fake_pack, engine="local")
    assert report.statuses == {"ok": 4}
    assert {i: row["count_total"] for i, row in rows(tmp_path / "out").items()} == {
        f"x.tar/{member}": n for n, member in enumerate(NAMES)
    }
    assert skinbatch.verify(tmp_path / "out").differences == []
    assert skinbatch.score(path, tmp_path / "out", pack=fake_pack, engine="local").nothing_to_do


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return out.getvalue()


def test_joined_zips_say_that_only_the_last_is_read(tmp_path: Path) -> None:
    one, two = zipped({"a.jpg": PHOTOS[0]}), zipped({"b.jpg": PHOTOS[1]})
    found = read(write(tmp_path, "x.zip", one + two))
    assert names(found) == ["b.jpg", "#corrupt"]
    assert f"first {len(one):,} bytes" in str(found[-1].error)
    assert names(read(write(tmp_path, "x.zip", b"MZ self-extracting" * 50 + two))) == ["b.jpg"]
