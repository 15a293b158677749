"""Run one suite over every store: a local folder, and S3 on moto, a real Ceph gateway and rclone."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skinbatch.config import StorageSettings
from skinbatch.errors import ChangedError, NotFoundError, ObjectTooLargeError, StoreError
from skinbatch.storage.local import LocalStore
from skinbatch.storage.locate import Locator, open_store
from skinbatch.storage.store import Store
from tests.conftest import S3Server


@pytest.fixture(
    params=[
        "local",
        "s3",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ceph", "rclone")),
    ]
)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Return a function that opens the same empty root."""
    if request.param == "local":
        return lambda: LocalStore(tmp_path / "root")
    server: S3Server = request.getfixturevalue(request.param)
    root = f"s3://{server.bucket()}/some/root"
    return lambda: open_store(root, server.settings)


@pytest.fixture
def store(reopen: Callable[[], Store]) -> Store:
    return reopen()


def test_what_was_put_is_read_back_with_its_size_and_version(store: Store) -> None:
    put = store.put("a/b.bin", b"hello")
    data, info = store.get("a/b.bin", version=put.version)
    assert (data, info, store.head("a/b.bin")) == (b"hello", put, put)
    assert (info.key, info.size) == ("a/b.bin", 5)
    assert info.version and '"' not in info.version


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty.bin", b"")
    assert store.get("empty.bin")[0] == b""
    with store.stream("empty.bin") as stream:
        assert stream.read() == b""


def test_a_file_larger_than_one_request_is_put_and_left_as_it_is(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "large"
    data = bytes(range(256)) * 4096 * 10  # S3 takes it in two parts
    file.write_bytes(data)
    put = store.put_file("a/large", file)
    assert (put.key, put.size, store.head("a/large")) == ("a/large", len(data), put)
    assert store.get("a/large", version=put.version)[0] == data == file.read_bytes()


def test_names_with_spaces_signs_and_other_scripts_survive(store: Store) -> None:
    keys = sorted(
        [
            "a b.jpg",
            "a+b.jpg",
            "a%20b.jpg",
            "ünï.jpg",
            "皮膚/痤瘡.jpg",
            "q?a=b&c#d.jpg",
            "'\"<&>.jpg",
        ]
    )
    for key in keys:
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == keys
    assert [store.get(key)[0].decode() for key in keys] == keys


def test_a_list_ascends_by_key_as_bytes_and_heeds_its_prefix(store: Store) -> None:
    for key in ["b/x", "a/x", "a-b", "a.b", "ab", "a/y/z", "B"]:
        store.put(key, b"1")
    assert [i.key for i in store.list()] == ["B", "a-b", "a.b", "a/x", "a/y/z", "ab", "b/x"]
    assert [i.key for i in store.list("a")] == ["a-b", "a.b", "a/x", "a/y/z", "ab"]
    assert [i.key for i in store.list("a/")] == ["a/x", "a/y/z"]
    assert [i.key for i in store.list("a/y/zz")] == []
    assert [i.key for i in store.list("nowhere/")] == []


def test_an_empty_root_lists_nothing(store: Store) -> None:
    assert list(store.list()) == []


def test_a_listed_version_is_the_one_that_a_read_accepts(store: Store) -> None:
    store.put("k", b"12345")
    (info,) = store.list()
    assert store.get("k", version=info.version)[1] == info
    assert store.get_range("k", 1, 3, version=info.version) == b"23"
    with store.stream("k", version=info.version) as stream:
        assert stream.read() == b"12345"


def test_another_version_is_refused_by_every_read(store: Store) -> None:
    old = store.put("k", b"first").version
    store.put("k", b"second!")
    with pytest.raises(ChangedError, match="k"):
        store.get("k", version=old)
    with pytest.raises(ChangedError, match="k"):
        store.get_range("k", 0, 2, version=old)
    with pytest.raises(ChangedError, match="k"), store.stream("k", version=old) as stream:
        stream.read()


def test_what_is_not_there_is_not_found(store: Store) -> None:
    for read in (store.head, store.get, store.stream, lambda key: store.get_range(key, 0, 1)):
        with pytest.raises(NotFoundError, match="no/such"):
            read("no/such")


def test_a_limit_is_checked_before_reading(store: Store) -> None:
    store.put("k", b"x" * 100)
    assert len(store.get("k", limit=100)[0]) == 100
    with pytest.raises(ObjectTooLargeError, match="100 bytes, over the limit of 99"):
        store.get("k", limit=99)


def test_a_range_past_the_end_is_an_error_not_a_short_answer(store: Store) -> None:
    store.put("k", b"0123456789")
    assert (store.get_range("k", 0, 10), store.get_range("k", 9, 10)) == (b"0123456789", b"9")
    assert store.get_range("k", 4, 4) == b""
    for start, stop in ((5, 11), (10, 12), (3, 2)):
        with pytest.raises(StoreError, match="k"):
            store.get_range("k", start, stop)


def test_a_stream_reads_on_and_skips_forward(store: Store) -> None:
    data = bytes(range(256)) * 4096 * 10
    store.put("k", data)
    with store.stream("k") as stream:
        assert stream.read(10) == data[:10]
        stream.seek(1000, 1)
        assert stream.read(10) == data[1010:1020]
        stream.seek(9_000_000, 1)
        assert stream.read() == data[9_001_020:]


def test_delete_removes_many_and_does_not_mind_missing_ones(store: Store) -> None:
    for number in range(5):
        store.put(f"k{number}", b"")
    store.delete(["k0", "k3", "never there"])
    assert [info.key for info in store.list()] == ["k1", "k2", "k4"]


def test_delete_takes_more_than_one_batch(store: Store) -> None:
    store.put("kept", b"")
    store.put("last", b"")
    store.delete(iter([f"never/{number}" for number in range(1500)] + ["last"]))
    assert [info.key for info in store.list()] == ["kept"]


def test_a_list_takes_more_than_one_page(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.put(f"{n:04}", b""), range(1050)))
    assert [info.key for info in store.list()] == [f"{n:04}" for n in range(1050)]


def test_temporary_files_are_hidden_and_probing_leaves_nothing(store: Store) -> None:
    store.probe_writable()
    store.put("a/.tmp-left", b"x")
    store.put("a/kept", b"x")
    assert [info.key for info in store.list()] == ["a/kept"]


def test_a_store_pickles_and_still_reads(store: Store) -> None:
    store.put("k", b"data")
    assert pickle.loads(pickle.dumps(store)).get("k")[0] == b"data"


def test_many_threads_share_a_store(store: Store) -> None:
    barrier = threading.Barrier(16)

    def work(number: int) -> bytes:
        barrier.wait()
        store.put(f"n/{number}", str(number).encode() * 1000)
        return store.get(f"n/{number}")[0]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(work, range(16)))
    assert found == [str(number).encode() * 1000 for number in range(16)]
    assert len(list(store.list("n/"))) == 16


def test_readers_of_a_key_that_is_overwritten_see_one_whole_version_or_a_change(
    store: Store,
) -> None:
    store.put("k", b"0" * 2_000_000)
    stop = threading.Event()

    def overwrite() -> None:
        for number in range(1, 10):
            store.put("k", str(number).encode() * 2_000_000)
        stop.set()

    writer = threading.Thread(target=overwrite)
    writer.start()
    reads = 0
    while not stop.is_set() or not reads:
        try:
            data, info = store.get("k")
        except ChangedError:
            continue
        assert len(data) == info.size == 2_000_000 and len(set(data)) == 1
        reads += 1
    writer.join()


def test_a_locator_finds_what_a_store_names(store: Store, request: pytest.FixtureRequest) -> None:
    store.put("some photo.jpg", b"data")
    settings = getattr(store, "_settings", StorageSettings())
    locator = pickle.loads(pickle.dumps(Locator(settings)))
    found, key = locator.locate(store.uri_of("some photo.jpg"))
    assert found.get(key)[0] == b"data"
    assert found.uri_of(key) == store.uri_of("some photo.jpg")
