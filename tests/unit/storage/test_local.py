"""Test what differs between a folder and a bucket: links, odd names, permissions, unfinished files."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skinbatch.errors import ChangedError, ForbiddenError, NotFoundError, StoreError, UsageError
from skinbatch.storage.links import LOOP, NO_FILE, OUT_OF_SOURCE, Links
from skinbatch.storage.local import LocalStore


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Open a folder and give up all rights.

    Root may read everything, so root becomes another user.
    """
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            for below, _, _ in os.walk(folder):
                os.chmod(below, 0o700)


def test_version_is_the_modification_time_in_nanoseconds(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert LocalStore(tmp_path).head("a.jpg").version == str(
        (tmp_path / "a.jpg").stat().st_mtime_ns
    )


def test_a_link_to_a_file_inside_is_listed_and_others_are_reported(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "real.jpg").write_bytes(b"inside")
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    (root / "inside.jpg").symlink_to("sub/real.jpg")
    (root / "outside.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "folder").symlink_to(root / "sub")
    (root / "round").symlink_to(root)
    (root / "dangling.jpg").symlink_to("nowhere")
    assert [i.key for i in LocalStore(root).list()] == ["inside.jpg", "sub/real.jpg"]
    skipped: dict[str, str] = {}
    links = Links(str(root), on_skipped=skipped.__setitem__)
    keys = ["folder/real.jpg", "inside.jpg", "sub/real.jpg"]
    assert [i.key for i in LocalStore(root).list(links=links)] == keys
    assert skipped == {"dangling.jpg": NO_FILE, "outside.jpg": OUT_OF_SOURCE, "round": LOOP}
    assert LocalStore(root).get("inside.jpg")[0] == b"inside"


def test_a_root_that_is_itself_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"x")
    (tmp_path / "real" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert [i.key for i in LocalStore(tmp_path / "link").list()] == ["a.jpg", "b.jpg"]


def test_a_name_that_is_not_utf8_is_listed_as_storable_text_and_read_back(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xfcller.jpg")).write_bytes(b"x")
    store = LocalStore(tmp_path)
    (info,) = store.list()
    info.key.encode("utf-8")
    assert store.get(info.key)[0] == b"x"


@pytest.mark.parametrize(
    "key", ["../secret", "a/../../secret", "/etc/passwd", "nul\0.jpg", "x" * 300, "a.jpg/b"]
)
def test_a_key_that_no_file_inside_can_have_is_not_found(tmp_path: Path, key: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.jpg").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    with pytest.raises(NotFoundError):
        LocalStore(root).get(key)


def test_folders_and_pipes_are_no_objects(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    store = LocalStore(tmp_path)
    assert list(store.list()) == []
    for key in ("folder", "pipe.jpg"):
        with pytest.raises(NotFoundError):
            store.get(key)


def test_a_subfolder_that_may_not_be_read_is_named(as_nobody: Path) -> None:
    (as_nobody / "closed").mkdir()
    (as_nobody / "open.jpg").write_bytes(b"x")
    (as_nobody / "closed").chmod(0)
    with pytest.raises(ForbiddenError, match=r"closed/?: Permission denied"):
        list(LocalStore(as_nobody).list())


def test_a_file_that_may_not_be_read_is_forbidden(as_nobody: Path) -> None:
    (as_nobody / "a.jpg").write_bytes(b"x")
    (as_nobody / "a.jpg").chmod(0)
    store = LocalStore(as_nobody)
    for read in (store.get, store.stream):
        with pytest.raises(ForbiddenError, match=r"a\.jpg: Permission denied"):
            read("a.jpg")


def test_a_folder_that_may_not_be_written_is_wrong_use(as_nobody: Path) -> None:
    as_nobody.chmod(0o500)
    with pytest.raises(UsageError, match=r"cannot be written to: .*choose a folder"):
        LocalStore(as_nobody / "out").probe_writable()


def test_a_file_in_the_place_of_a_folder_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written to"):
        LocalStore(tmp_path / "out").probe_writable()


def test_a_disk_error_concerns_the_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(ForbiddenError, match=r"a\.jpg: Input/output error"):
        LocalStore(tmp_path).get("a.jpg")


def test_a_file_that_changes_while_it_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"before")
    read = os.read

    def meanwhile(fd: int, count: int) -> bytes:
        data = read(fd, count)
        path.write_bytes(b"after and longer")
        return data

    monkeypatch.setattr(os, "read", meanwhile)
    with pytest.raises(ChangedError, match="while it was read"):
        LocalStore(tmp_path).get("a.jpg")


@pytest.mark.parametrize("now", [b"", b"short", b"x" * 5_000_000])
def test_a_file_that_changes_under_a_stream_is_noticed(tmp_path: Path, now: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"y" * 4_000_000)
    with LocalStore(tmp_path).stream("a.bin") as stream:
        stream.read(10)
        path.write_bytes(now)
        with pytest.raises(ChangedError):
            stream.read()


def test_put_that_fails_leaves_neither_the_file_nor_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "root")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "root" / "a").mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put("a/b.parquet", b"data")
    assert [p.name for p in (tmp_path / "root").rglob("*")] == ["a"]


def test_what_dead_writers_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".tmp-1").write_bytes(b"")
    (tmp_path / ".tmp-2").write_bytes(b"")
    (tmp_path / "a" / "kept").write_bytes(b"")
    assert LocalStore(tmp_path).clear_temporary() == 2
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["kept"]


def test_what_dead_writers_left_is_cleared_where_it_was_listed_too(tmp_path: Path) -> None:
    names = (
        "listed/a/.tmp-1",
        "listed/a/kept",
        "listed/.tmp-2/.tmp-3",
        "listed-not/.tmp-4",
        "other/c/.tmp-5",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    store = LocalStore(tmp_path)
    assert list(store.keys("listed/")) == ["listed/a/kept"]
    assert store.clear_temporary(["listed/"]) == 4
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["kept"]


def test_what_may_not_be_removed_is_left(as_nobody: Path) -> None:
    for name in ("mine/.tmp-1", "not-mine/.tmp-2", "not-mine/.tmp-3"):
        (as_nobody / name).parent.mkdir(exist_ok=True)
        (as_nobody / name).write_bytes(b"")
    os.chmod(as_nobody / "not-mine", 0o500)
    assert LocalStore(as_nobody).clear_temporary() == 1
    assert sorted(p.name for p in as_nobody.rglob(".tmp-*")) == [".tmp-2", ".tmp-3"]


def test_what_lies_behind_a_link_to_a_folder_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere" / "a" / ".tmp-1").write_bytes(b"")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    store = LocalStore(tmp_path / "root")
    assert list(store.keys("link/a/")) == []
    assert store.clear_temporary(["link/a/"]) == 0
    assert (tmp_path / "elsewhere" / "a" / ".tmp-1").exists()


def test_folders_that_were_just_listed_are_not_read_again_to_be_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("listed/a/kept", "listed/b/kept", "listed/.tmp-1", "other/c/kept"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    store = LocalStore(tmp_path)
    scandir, read = os.scandir, []

    def noted(path: str) -> Iterator[os.DirEntry[str]]:
        read.append(os.path.relpath(path, tmp_path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noted)
    list(store.keys("listed/"))
    assert store.clear_temporary(["listed/"]) == 1
    assert sorted(read) == [".", "listed", "listed", "listed/a", "listed/b", "other", "other/c"]


def test_a_writer_whose_unfinished_file_is_cleared_away_writes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    rename = os.rename
    cleared: list[int] = []

    def clear_first(old: str, new: str) -> None:
        if not cleared:
            cleared.append(store.clear_temporary())
        rename(old, new)

    monkeypatch.setattr(os, "rename", clear_first)
    store.put("a/b", b"what was to be written")
    assert (cleared, store.get("a/b")[0]) == ([1], b"what was to be written")
