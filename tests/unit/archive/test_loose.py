"""Test photos that are files of their own: they are listed and read in order, and changes since then are noticed."""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skinbatch.archive.fetch import LooseReader
from skinbatch.archive.source import open_source
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import Config, DecodeSettings, SourceSettings
from skinbatch.errors import ChangedError, ForbiddenError, StoreError, UsageError
from skinbatch.storage.links import LOOP, OUT_OF_SOURCE
from skinbatch.storage.local import LocalStore
from skinbatch.storage.locate import Locator
from skinbatch.storage.store import ObjectInfo, Store
from skinbatch.types import Fetched, ImageRef, ShardRef, Status, WorkUnit
from tests.conftest import S3Server
from tests.pictures import encoded, picture

CONFIG = Config()
SETTINGS = DecodeSettings()


def config(**source: Any) -> Config:
    return Config(source=SourceSettings(**source))


def listed(uri: object, settings: Config = CONFIG) -> list[ImageRef]:
    entries = list(open_source(str(uri), settings).entries())
    assert all(isinstance(entry, ImageRef) for entry in entries)
    return entries  # type: ignore[return-value]


def reader(refs: list[ImageRef], **limits: int) -> LooseReader:
    unit = WorkUnit("u", tuple(refs))
    found = read_unit(unit, Locator(CONFIG.storage), DecodeSettings(**limits), 4)
    assert isinstance(found, LooseReader)
    return found


def test_a_tree_is_listed_by_key_with_size_version_and_place(photos: Path) -> None:
    source = open_source(str(photos), CONFIG)
    refs = list(source.entries())
    assert [r.image_id for r in refs if isinstance(r, ImageRef)] == [
        f"{n // 4:05}/{n:05}.{'png' if n < 4 else 'jpg'}" for n in range(8)
    ]
    first, path = refs[0], photos / "00000" / "00000.png"
    assert first == ImageRef(
        "00000/00000.png", str(path), path.stat().st_size, str(path.stat().st_mtime_ns)
    )
    assert (source.uri, source.kind, source.skipped) == (
        str(photos),
        "folder",
        Counter({".txt": 1}),
    )


def test_the_same_tree_on_s3_gives_the_same_names(photos: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    for path in photos.rglob("*.*"):
        s3.client.upload_file(str(path), bucket, f"deep/{path.relative_to(photos)}")
    settings = Config(storage=s3.settings)
    for uri in (f"s3://{bucket}/deep", f"s3://{bucket}/deep/"):
        refs = listed(uri, settings)
        assert [r.image_id for r in refs] == [r.image_id for r in listed(photos)]
    unit = WorkUnit("u", tuple(refs))
    fetched = list(read_unit(unit, Locator(s3.settings), SETTINGS, 4))
    assert [f.data for f in fetched] == [f.data for f in reader(listed(photos))]
    assert [f.ref for f in fetched] == refs


def test_every_image_extension_counts_and_nothing_else(tmp_path: Path) -> None:
    endings = (
        "JPG",
        "jpeg",
        "jpe",
        "png",
        "webp",
        "avif",
        "heic",
        "heif",
        "tif",
        "TIFF",
        "bmp",
        "gif",
        "jfif",
    )
    names = [f"{number:02}.{ending}" for number, ending in enumerate(endings)]
    for name in [*names, "n.xml", "o.jpg.bak", "p.mp4", "._a.JPG", "Thumbs.db", "q.json", "r.XML"]:
        (tmp_path / name).write_bytes(b"x")
    source = open_source(str(tmp_path), CONFIG)
    assert [e.image_id for e in source.entries() if isinstance(e, ImageRef)] == names
    assert source.skipped == {".xml": 2, ".bak": 1, ".mp4": 1, "._*": 1, ".db": 1, ".json": 1}


def test_files_without_an_extension_are_told_by_content(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(encoded(picture(1), "JPEG"))
    (tmp_path / "text").write_bytes(b"hello")
    (tmp_path / "empty").write_bytes(b"")
    source = open_source(str(tmp_path), CONFIG)
    assert [e.image_id for e in source.entries() if isinstance(e, ImageRef)] == ["photo"]
    assert source.skipped == {"(no extension)": 2}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (("*.png",), (), 4),
        (("00001/*",), (), 4),
        (("**/00000.png",), (), 1),
        ((), ("*.jpg", "*/00000.png"), 3),
        (("0000?/*",), ("00001/*",), 4),
        (("*.txt",), (), 0),
    ],
)
def test_globs_choose_by_key(
    photos: Path, include: tuple[str, ...], exclude: tuple[str, ...], expected: int
) -> None:
    source = open_source(str(photos), config(include=include, exclude=exclude))
    assert len(list(source.entries())) == expected
    assert source.skipped.total() == 9 - expected


def test_an_include_pattern_with_an_extension_lists_such_files_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(encoded(picture(1), "PNG"))
    (tmp_path / "b.img").write_bytes(b"no photo")
    (tmp_path / "c.png").write_bytes(encoded(picture(1), "PNG"))
    assert [r.image_id for r in listed(tmp_path, config(include=("*.img",)))] == ["a.img"]


def test_links_that_are_not_followed_are_counted(photos: Path) -> None:
    (photos / "link").symlink_to("/etc")
    (photos / "link.jpg").symlink_to("/etc/hostname")
    (photos / "loop").symlink_to(photos)
    source = open_source(str(photos), CONFIG)
    assert len(list(source.entries())) == 8
    assert source.skipped == {".txt": 1, OUT_OF_SOURCE: 2, LOOP: 1}


def test_a_single_photo_is_listed_in_its_folder(photos: Path) -> None:
    (ref,) = listed(photos / "00000" / "00001.png")
    assert (ref.image_id, ref.uri) == ("00001.png", str(photos / "00000" / "00001.png"))


@pytest.mark.parametrize("name", ["nowhere", "notes/readme.txt", "nowhere/a.tar"])
def test_what_is_no_source_is_wrong_use(photos: Path, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        open_source(str(photos / name), CONFIG)


def test_what_is_no_source_on_s3_is_wrong_use(s3: S3Server) -> None:
    settings = Config(storage=s3.settings)
    with pytest.raises(UsageError, match="does not exist"):
        open_source(f"s3://{s3.bucket()}/nowhere", settings)
    with pytest.raises(UsageError, match="no such bucket"):
        open_source("s3://no-such-bucket/x", settings)
    with pytest.raises(UsageError, match="no such bucket"):
        open_source("s3://no-such-bucket", settings)


def test_an_empty_folder_is_a_source_without_photos(tmp_path: Path) -> None:
    assert listed(tmp_path) == []


def test_with_content_hash_a_touched_photo_keeps_its_version(photos: Path) -> None:
    settings = config(content_hash=True)
    before = listed(photos, settings)
    for ref in before:
        os.utime(ref.uri, (1, 1))
    assert listed(photos, settings) == before
    assert [f.ref for f in reader(before)] == before
    Path(before[0].uri).write_bytes(encoded(picture(99), "PNG"))
    after = listed(photos, settings)
    assert [a == b for a, b in zip(after, before, strict=True)] == [False] + [True] * 7
    read = reader(before)
    assert [f.ref for f in read] == after
    assert read.changed == [after[0]]


def test_photos_come_in_order_with_their_bytes(photos: Path) -> None:
    refs = list(reversed(listed(photos)))
    fetched = list(reader(refs))
    assert [f.ref for f in fetched] == refs
    assert [f.data for f in fetched] == [Path(r.uri).read_bytes() for r in refs]
    assert {f.status for f in fetched} == {Status.OK}


def test_skipped_photos_are_not_read(photos: Path) -> None:
    refs = listed(photos)
    for ref in refs[::2]:
        Path(ref.uri).unlink()
    unit = WorkUnit("u", tuple(refs))
    read = read_unit(unit, Locator(CONFIG.storage), SETTINGS, 2, skip=lambda ref: ref in refs[::2])
    assert [f.ref for f in read] == refs[1::2]
    assert read.vanished == []


def test_a_photo_that_is_gone_is_told_apart_and_gets_no_row(photos: Path) -> None:
    refs = listed(photos)
    Path(refs[2].uri).unlink()
    read = reader(refs)
    assert [f.ref for f in read] == refs[:2] + refs[3:]
    assert read.vanished == [refs[2]]


def test_a_photo_that_changed_is_read_as_it_is_now(photos: Path) -> None:
    refs = listed(photos)
    Path(refs[2].uri).write_bytes(b"something else")
    read = reader(refs)
    fetched = list(read)
    now = Path(refs[2].uri).stat()
    expected = replace(refs[2], size=14, version=str(now.st_mtime_ns))
    assert (fetched[2].data, fetched[2].ref, read.changed) == (
        b"something else",
        expected,
        [expected],
    )


def test_a_photo_that_changes_again_and_again_is_an_error(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = listed(photos)
    head = LocalStore.head

    def touched_meanwhile(self: LocalStore, key: str) -> ObjectInfo:
        info = head(self, key)
        Path(refs[2].uri).write_bytes(b"and again")
        return info

    Path(refs[2].uri).write_bytes(b"once")
    monkeypatch.setattr(LocalStore, "head", touched_meanwhile)
    with pytest.raises(ChangedError, match=r"00002\.png"):
        list(reader(refs))


def test_what_a_listing_did_not_say_stays_unsaid(photos: Path) -> None:
    refs = [replace(r, size=None, version=None) for r in listed(photos)]
    read = reader(refs)
    assert [f.ref for f in read] == refs
    assert read.changed == []


def test_a_photo_over_the_byte_limit_is_a_row(photos: Path) -> None:
    refs = listed(photos)
    limit = max(r.size or 0 for r in refs) - 1
    rows = {f.ref.image_id: f for f in reader(refs, max_image_bytes=limit)}
    large = [f for f in rows.values() if f.status is Status.TOO_LARGE]
    assert large and len(rows) == 8
    assert all(f.data is None and "max_image_bytes" in str(f.error) for f in large)


class Guarded(Locator):
    """Forbid some photos and fail on others."""

    def __init__(self, forbidden: set[str], broken: frozenset[str] = frozenset()) -> None:
        super().__init__(CONFIG.storage)
        self.forbidden, self.broken = forbidden, broken
        self.reads = 0
        self._reading = threading.Lock()

    def locate(self, uri: str) -> tuple[Store, str]:
        world = self

        class GuardedStore(LocalStore):
            def get(
                self,
                key: str,
                *,
                version: str | None = None,
                size: int | None = None,
                limit: int | None = None,
            ) -> tuple[bytes, ObjectInfo]:
                with world._reading:
                    world.reads += 1
                if key in world.forbidden:
                    raise ForbiddenError(f"{key}: access denied")
                if key in world.broken:
                    raise StoreError(f"{key}: no answer")
                return super().get(key, version=version, size=size, limit=limit)

            def get_range(
                self, key: str, start: int, stop: int, *, version: str | None = None
            ) -> bytes:
                if key in world.forbidden:
                    raise ForbiddenError(f"{key}: access denied")
                return super().get_range(key, start, stop, version=version)

        return GuardedStore("/"), uri.lstrip("/")


def guarded(refs: list[ImageRef], world: Guarded) -> LooseReader:
    return LooseReader(WorkUnit("u", tuple(refs)), world, SETTINGS, 4)


def many(folder: Path, count: int) -> list[ImageRef]:
    for number in range(count):
        (folder / f"{number:03}.jpg").write_bytes(b"x")
    return listed(folder)


def keys(refs: list[ImageRef]) -> set[str]:
    return {r.uri.lstrip("/") for r in refs}


@pytest.mark.parametrize("forbidden", [slice(0, 19), slice(5, 6), slice(1, 30), slice(20, 30)])
def test_a_forbidden_photo_among_readable_ones_is_its_own_row(
    tmp_path: Path, forbidden: slice
) -> None:
    refs = many(tmp_path, 30)
    fetched = list(guarded(refs, Guarded(keys(refs[forbidden]))))
    assert [f.ref for f in fetched] == refs
    assert [f.ref for f in fetched if f.status is Status.UNREADABLE] == refs[forbidden]


@pytest.mark.parametrize("count", [8, 20, 30])
def test_when_the_first_photos_are_all_forbidden_nothing_is_a_row(
    tmp_path: Path, count: int
) -> None:
    refs = many(tmp_path, count)
    rows: list[Fetched] = []
    with pytest.raises(ForbiddenError, match="the first"):
        rows.extend(guarded(refs, Guarded(keys(refs[:20]))))
    assert rows == []


@pytest.mark.parametrize("count", [1, 7])
def test_a_few_forbidden_photos_are_rows_where_others_beside_them_can_be_read(
    tmp_path: Path, count: int
) -> None:
    refs = many(tmp_path, 30)
    fetched = list(guarded(refs[:count], Guarded(keys(refs[:count]))))
    assert [(f.ref, f.status, f.data) for f in fetched] == [
        (r, Status.UNREADABLE, None) for r in refs[:count]
    ]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_few_forbidden_photos_stop_where_nothing_can_be_read(tmp_path: Path, count: int) -> None:
    refs = many(tmp_path, 30)
    (tmp_path / "notes.txt").write_bytes(b"can be read, and says nothing about photos")
    with pytest.raises(ForbiddenError, match="may not be read, nor anything beside"):
        list(guarded(refs[:count], Guarded(keys(refs))))


def test_photos_that_are_gone_do_not_make_forbidden_ones_rows(tmp_path: Path) -> None:
    refs = many(tmp_path, 4)
    Path(refs[0].uri).unlink()
    with pytest.raises(ForbiddenError, match="nor anything beside"):
        list(guarded(refs, Guarded(keys(refs))))


def test_a_worker_that_has_read_before_makes_rows_of_forbidden_photos(tmp_path: Path) -> None:
    refs = many(tmp_path, 60)
    world = Guarded(keys(refs[30:]))
    assert len(list(guarded(refs[:30], world))) == 30
    assert [f.status for f in guarded(refs[30:], world)] == [Status.UNREADABLE] * 30


def test_permissions_that_are_taken_away_meanwhile_stop_the_run(tmp_path: Path) -> None:
    refs = many(tmp_path, 60)
    world = Guarded(set())
    list(guarded(refs[:30], world))
    world.forbidden = keys(refs)
    for rest in (refs[30:], refs[30:33]):
        with pytest.raises(ForbiddenError):
            list(guarded(rest, world))


@pytest.mark.parametrize("left", ["no folder", "empty folder"])
def test_a_source_that_is_gone_as_a_whole_is_an_error_not_vanished_photos(
    tmp_path: Path, left: str
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    refs = many(folder, 100)  # more than are read ahead
    rows = iter(reader(refs))
    next(rows)
    folder.rename(tmp_path / "elsewhere")
    if left == "empty folder":
        folder.mkdir()
    with pytest.raises(StoreError, match="unmounted"):
        list(rows)
    with pytest.raises(StoreError, match="unmounted"):
        list(reader(refs))


def test_all_photos_of_a_unit_may_vanish_while_their_folder_stays(tmp_path: Path) -> None:
    refs = many(tmp_path, 12)
    for ref in refs[:3]:
        Path(ref.uri).unlink()
    read = reader(refs[:3])
    assert list(read) == [] and read.vanished == refs[:3]


def test_photos_gone_before_the_first_readable_one_are_named_right(tmp_path: Path) -> None:
    refs = many(tmp_path, 12)
    for ref in refs[2:4]:
        Path(ref.uri).unlink()
    read = guarded(refs, Guarded(keys(refs[:2])))
    assert [f.ref for f in read] == refs[:2] + refs[4:]
    assert read.vanished == refs[2:4]


def test_an_error_of_the_store_is_never_a_row(tmp_path: Path) -> None:
    refs = many(tmp_path, 12)
    with pytest.raises(StoreError, match="no answer"):
        list(guarded(refs, Guarded(set(), frozenset(keys(refs[5:6])))))


def test_reading_ahead_is_bounded_and_stops_when_left(tmp_path: Path) -> None:
    refs = many(tmp_path, 200)
    world = Guarded(set())
    rows = iter(guarded(refs, world))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert world.reads <= 1 + 4 * 4


def test_archive_files_in_a_tree_are_listed_as_such(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tgz", "c.tar.gz", "d.zip", "e.tar.xz"):
        (tmp_path / name).write_bytes(b"not looked at while listing")
    kinds = {
        e.key: e.kind
        for e in open_source(str(tmp_path), CONFIG).entries()
        if isinstance(e, ShardRef)
    }
    assert kinds == {
        "a.tar": "tar",
        "b.tgz": "tar",
        "c.tar.gz": "tar",
        "d.zip": "zip",
        "e.tar.xz": "tar",
    }
