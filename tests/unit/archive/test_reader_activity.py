"""Test whether an archive's reader computes or waits for its store, whichever thread asks the store."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skinbatch.archive import tar
from skinbatch.archive.reader_activity import Reading
from skinbatch.archive.shard import ShardReader
from skinbatch.config import Config
from skinbatch.scoring.ahead import Activity
from skinbatch.storage.local import LocalStore
from skinbatch.storage.locate import Locator
from skinbatch.types import ShardRef
from tests.faces import face, png

PHOTO = png(face(1, 1))


@pytest.fixture(params=["tar", "tar.gz", "zip", "parquet"])
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> ShardRef:
    path, kind = tmp_path / f"a.{request.param}", request.param.partition(".")[0]
    if kind == "tar":
        with tarfile.open(
            path, "w:gz" if request.param == "tar.gz" else "w", format=tarfile.PAX_FORMAT
        ) as out:
            for n in range(3):
                member = tarfile.TarInfo(f"{n}ä.png")  # with an extended header
                member.size = len(PHOTO)
                out.addfile(member, io.BytesIO(PHOTO))
    elif kind == "zip":
        import zipfile

        with zipfile.ZipFile(path, "w") as out:
            for n in range(3):
                out.writestr(f"{n}.png", PHOTO)
    else:
        pq.write_table(pa.table({"image": [PHOTO] * 3}), path)
    return ShardRef(path.name, str(path), kind, path.stat().st_size, None)


class Held:
    """Wait at the `after`-th call until it is released."""

    def __init__(self, after: int) -> None:
        self.calls, self.after = 0, after
        self.here, self.go = threading.Event(), threading.Event()

    def stand(self) -> None:
        self.calls += 1
        if self.calls == self.after:
            self.here.set()
            assert self.go.wait(30)


def read_in_a_thread(shard: ShardRef, activity: Activity) -> tuple[threading.Thread, list[Any]]:
    config, found = Config(), list[Any]()
    reader = ShardReader(shard, Locator(config.storage), config.decode, reading=Reading(activity))
    thread = threading.Thread(target=lambda: found.extend(reader))
    thread.start()
    return thread, found


@pytest.mark.parametrize("after", [1, 2])
def test_while_the_store_does_not_answer_nothing_computes(
    shard: ShardRef, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, activity = Held(after), Activity()
    whole_range, whole_stream = LocalStore.get_range, LocalStore.stream

    def get_range(self: LocalStore, *args: Any, **how: Any) -> bytes:
        held.stand()
        return whole_range(self, *args, **how)

    class Slow(io.BufferedReader):
        def read(self, size: int | None = -1) -> bytes:
            held.stand()
            return super().read(size)

    def stream(self: LocalStore, *args: Any, **how: Any) -> Any:
        return Slow(whole_stream(self, *args, **how).detach())  # type: ignore[attr-defined]

    monkeypatch.setattr(LocalStore, "get_range", get_range)
    monkeypatch.setattr(LocalStore, "stream", stream)
    thread, found = read_in_a_thread(shard, activity)
    assert held.here.wait(30)
    assert activity.idle
    held.go.set()
    thread.join(30)
    assert len(found) == 3
    assert activity.idle


def test_a_reader_that_hangs_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        out.addfile(tarfile.TarInfo("ä.png"))
    held, activity, pax = Held(1), Activity(), tar._pax

    def hanging(data: bytes) -> dict[str, str]:
        held.stand()
        return pax(data)

    monkeypatch.setattr(tar, "_pax", hanging)
    thread, found = read_in_a_thread(
        ShardRef("a.tar", str(path), "tar", path.stat().st_size, None), activity
    )
    assert held.here.wait(30)
    assert not activity.idle
    held.go.set()
    thread.join(30)
    assert len(found) == 1
    assert activity.idle


def test_between_photos_the_reader_does_nothing(shard: ShardRef) -> None:
    config, activity = Config(), Activity()
    reading = Reading(activity)
    photos = iter(ShardReader(shard, Locator(config.storage), config.decode, reading=reading))
    for _ in range(3):
        assert next(photos).data == PHOTO
        assert activity.idle
    assert next(photos, None) is None


def test_members_that_are_passed_are_steps(shard: ShardRef) -> None:
    config, steps = Config(), []
    reading = Reading(step=lambda: steps.append(1))
    photos = list(ShardReader(shard, Locator(config.storage), config.decode, 2, None, reading))
    assert len(photos) == 1
    # Three members. In a packed archive, each MiB that is unpacked only to be skipped counts as
    # well, here two photos.
    assert len(steps) == {"a.tar": 3, "a.tar.gz": 5, "a.zip": 3, "a.parquet": 0}[shard.key]


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before
